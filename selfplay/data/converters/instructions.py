"""An instruction and its answer, or an instruction alone. Nobody decided to stop after it: `complete` is false.

alpaca       {instruction, input?, output, history?: [[user, assistant]...]}: Alpaca (tatsu-lab/stanford_alpaca), BELLE,
             Guanaco and their kin; of a list of outputs (ranked replies) the first, the best, is read
gpteacher    {instruction, input?, response}: teknium1/GPTeacher
dolly        {instruction, context, response}: databricks-dolly-15k
self_instruct  {instruction, instances: [{input, output}]}: yizhongw/self-instruct (arXiv:2212.10560), BELLE seed tasks;
             one conversation per instance, all of one group
natural_instructions  {Definition, Instances: [{input, output}]} as in allenai/natural-instructions (arXiv:2204.07705),
             or {definition, inputs, targets} as on the hub
prompt_response  {prompt, response}: GPT4All (nomic-ai/gpt4all), Safety-Prompts (thu-coai, arXiv:2304.10436)
prompt_completion  {prompt, completion}: TRL; question_answer  {question, answer}: tables of questions
prompts      {prompt} or {instruction}, or a bare string: first turns without an answer
hc3          {question, human_answers, chatgpt_answers}: HC3 (arXiv:2301.07597); the first model answer is read
firefly      {conversation: [{human, assistant}]}: yangjianxin1/Firefly, moss-003-sft-data as repacked there
firefly_single  {kind, input, target}: firefly-train-1.1M
lima         {conversations: [text...]}: GAIR/lima (arXiv:2305.11206)
ultrachat    {id, data: [text...]}: thunlp/UltraChat (arXiv:2305.14233)
chinese_vicuna  {input: [user...], output: [assistant...]}: Facico/Chinese-Vicuna
moss         {chat: {turn_1: {Human, MOSS, ...}}, meta_instruction?}: OpenLMLab/MOSS, moss-003-sft-data
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

from selfplay.chat.conversation import Conversation, conversation_from_pairs
from selfplay.data.converters.fields import (
    Pairs,
    alternating,
    id_of,
    list_field,
    object_field,
    optional_text,
    same_opening,
    text_field,
    texts_field,
)
from selfplay.errors import BadRow

Convert = Callable[[Mapping[str, Any]], Iterator[Conversation]]
_MOSS_MARK = re.compile(r"^\s*<\|(?:Human|MOSS)\|>:\s?|<eo[hm]>\s*$")


def question_and_answer(question: str, extra: str | None, answer: str) -> Convert:
    """A converter for rows with a question, perhaps something it is about, and an answer, under these keys."""

    def convert(row: Mapping[str, Any]) -> Iterator[Conversation]:
        """One round, after the rounds of `history` where there is one."""
        asked = text_field(row, question)
        about = optional_text(row, extra) if extra else ""
        turn = f"{asked}\n\n{about}" if about.strip() else asked
        pairs: Pairs = [*_history(row), ("user", turn), ("assistant", _best(row, answer))]
        yield conversation_from_pairs(id_of(row, "id", pairs), pairs, complete=False, meta=same_opening(pairs))

    return convert


convert_alpaca = question_and_answer("instruction", "input", "output")
convert_gpteacher = question_and_answer("instruction", "input", "response")
convert_dolly = question_and_answer("instruction", "context", "response")
convert_prompt_response = question_and_answer("prompt", None, "response")
convert_prompt_completion = question_and_answer("prompt", None, "completion")
convert_question_answer = question_and_answer("question", None, "answer")
convert_firefly_single = question_and_answer("input", None, "target")
convert_natural_flat = question_and_answer("definition", "inputs", "targets")


def convert_hc3(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """The question and the first answer of the model."""
    answers = texts_field(row, "chatgpt_answers")
    if not answers:
        raise BadRow("field 'chatgpt_answers' is an empty list, expected an answer")
    pairs: Pairs = [("user", text_field(row, "question")), ("assistant", answers[0])]
    yield conversation_from_pairs(id_of(row, "id", pairs), pairs, complete=False)


def convert_self_instruct(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """One conversation per instance."""
    yield from _instances(row, text_field(row, "instruction"), "instances")


def convert_natural_instructions(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """One conversation per instance of a task file."""
    definition = row.get("Definition")
    text = "\n".join(texts_field(row, "Definition")) if isinstance(definition, list) else text_field(row, "Definition")
    yield from _instances(row, text, "Instances")


def convert_prompts(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """A first turn that nobody answered yet."""
    pairs: Pairs = [("user", text_field(row, "prompt" if "prompt" in row else "instruction"))]
    yield conversation_from_pairs(id_of(row, "id", pairs), pairs, complete=False)


def convert_firefly(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """Pairs of turns."""
    rounds = list_field(row, "conversation")
    pairs = alternating(chain.from_iterable((text_field(r, "human"), text_field(r, "assistant")) for r in rounds))
    yield conversation_from_pairs(id_of(row, "conversation_id", pairs), pairs)


def convert_lima(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """Texts in the order spoken; of one text nobody wrote an answer (the test split)."""
    texts = texts_field(row, "conversations")
    pairs = alternating(texts)
    yield conversation_from_pairs(id_of(row, "id", pairs), pairs, complete=False)


def convert_ultrachat(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """Texts in the order spoken."""
    pairs = alternating(texts_field(row, "data"))
    yield conversation_from_pairs(id_of(row, "id", pairs), pairs)


def convert_chinese_vicuna(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """Turns of the user and of the assistant in two lists."""
    asked, answered = texts_field(row, "input"), texts_field(row, "output")
    if not 0 <= len(asked) - len(answered) <= 1:
        raise BadRow(f"{len(asked)} user turns beside {len(answered)} answers; expected as many, or one turn more")
    pairs: Pairs = []
    for number, text in enumerate(asked):
        pairs.append(("user", text))
        pairs += [("assistant", answer) for answer in answered[number : number + 1]]
    yield conversation_from_pairs(id_of(row, "id", pairs), pairs)


def convert_moss(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """Turns in the order of their numbers; thoughts, commands and tool responses are left out."""
    chat = object_field(row, "chat")
    numbers = sorted(int(key[5:]) for key in chat if re.fullmatch(r"turn_[0-9]{1,6}", str(key)))
    turns = [object_field(chat, f"turn_{number}") for number in numbers if f"turn_{number}" in chat]
    texts = chain.from_iterable((text_field(turn, "Human"), text_field(turn, "MOSS")) for turn in turns)
    pairs = alternating(_MOSS_MARK.sub("", text) for text in texts)
    yield conversation_from_pairs(id_of(row, "conversation_id", pairs), pairs)


def _history(row: Mapping[str, Any]) -> Pairs:
    history = row.get("history") or []
    if not isinstance(history, list) or not all(isinstance(turn, list) and len(turn) == 2 for turn in history):
        raise BadRow("field 'history' is no list of [user, assistant]")
    if not all(isinstance(text, str) for turn in history for text in turn):
        raise BadRow("field 'history' holds a turn that is no string")
    return alternating(chain.from_iterable(history))


def _best(row: Mapping[str, Any], key: str) -> str:
    """An answer, or the first of several: ranked replies stand best first."""
    if isinstance(row.get(key), list):
        answers = texts_field(row, key)
        if not answers:
            raise BadRow(f"field {key!r} is an empty list, expected an answer")
        return answers[0]
    return text_field(row, key)


def _instances(row: Mapping[str, Any], instruction: str, key: str) -> Iterator[Conversation]:
    instances = list_field(row, key)
    if not instances:
        raise BadRow(f"field {key!r} is an empty list, expected an instance")
    for number, instance in enumerate(instances):
        about = optional_text(instance, "input")
        turn = f"{instruction}\n\n{about}" if about.strip() else instruction
        pairs: Pairs = [("user", turn), ("assistant", _best(instance, "output"))]
        task = id_of(row, "id", [("user", instruction)])
        yield conversation_from_pairs(f"{task}/{number}", pairs, complete=False, meta={"group": task})
