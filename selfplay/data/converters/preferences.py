"""Prompts with several replies, of which the preferred one is read. Rows stop at the comparison: not complete.

prompt_chosen    {prompt, chosen, rejected}: the Dahoas sets, whose prompts are hh-rlhf transcripts; `chosen` may be a
                 list of messages that holds the prompt too (Firefly)
webgpt           {question: {full_text}, answer_0, answer_1, score_0, score_1}: openai/webgpt_comparisons
                 (arXiv:2112.09332)
shp              {history, human_ref_A, human_ref_B, labels}: stanfordnlp/SHP (arXiv:2110.08420); labels 1: A is
                 preferred
gpt4_comparison  {user_input, responses_and_scores: [{response, score}]}: GPT-4-LLM (arXiv:2304.03277)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from selfplay.chat.conversation import Conversation, conversation_from_pairs
from selfplay.data.converters import messages
from selfplay.data.converters.fields import Pairs, id_of, list_field, object_field, same_opening, text_field
from selfplay.data.converters.transcripts import prompt_and_reply
from selfplay.errors import BadRow


def convert_prompt_chosen(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """The prompt and the chosen reply."""
    if isinstance(row.get("chosen"), list):
        yield from messages.convert({"messages": row["chosen"], "id": row.get("prompt_id"), "complete": False})
        return
    pairs = prompt_and_reply(text_field(row, "prompt"), text_field(row, "chosen"))
    yield conversation_from_pairs(id_of(row, "id", pairs), pairs, complete=False, meta=same_opening(pairs))


def convert_webgpt(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """The question and the answer that scored higher; of equal ones the first."""
    question = text_field(object_field(row, "question"), "full_text")
    best = "answer_1" if number_field(row, "score_1") > number_field(row, "score_0") else "answer_0"
    yield _one_round(row, question, text_field(row, best))


def convert_shp(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """The post and the comment with more approval. Comparisons under one post share a group."""
    best = "human_ref_A" if number_field(row, "labels") else "human_ref_B"
    yield _one_round(row, text_field(row, "history"), text_field(row, best), group=row.get("post_id"))


def convert_gpt4_comparison(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """The prompt and the reply with the highest score."""
    replies = list_field(row, "responses_and_scores")
    if not replies:
        raise BadRow("field 'responses_and_scores' is an empty list, expected a reply")
    best = max(replies, key=lambda reply: number_field(reply, "score"))
    yield _one_round(row, text_field(row, "user_input"), text_field(best, "response"))


def number_field(row: Mapping[str, Any], key: str) -> float:
    """A number; missing or of another type is a BadRow."""
    value = row.get(key)
    if not isinstance(value, int | float):
        raise BadRow(f"field {key!r} is no number")
    return value


def _one_round(row: Mapping[str, Any], question: str, answer: str, group: Any = None) -> Conversation:
    pairs: Pairs = [("user", question), ("assistant", answer)]
    meta = {"group": group} if isinstance(group, str) else same_opening(pairs)
    return conversation_from_pairs(id_of(row, "id", pairs), pairs, complete=False, meta=meta)
