"""The table of source schemas: name, converter, the keys that tell rows, and whether real rows were tried.

A converter is a function from a raw row to checked conversations; it raises BadRow or InvalidConversation and nothing
else. Its module's docstring gives the schema and its source.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from selfplay.chat.conversation import Conversation
from selfplay.data.converters import dialogues, instructions, messages, oasst, preferences, sharegpt, transcripts
from selfplay.errors import BadRow, ConfigError, DataError

Converter = Callable[[Mapping[str, Any]], Iterator[Conversation]]
_SHOWN = 12
"""Keys of an unknown row that a message lists."""


@dataclass(frozen=True, slots=True)
class Format:
    """One source schema.

    `keys` are the top-level keys every row has. `told_by` tells schemas with the same keys apart. `tried` says that
    real rows of the source went through the converter; otherwise it follows the published schema alone.
    """

    name: str
    keys: frozenset[str]
    convert: Converter
    title: str
    tried: bool = True
    told_by: Callable[[Mapping[str, Any]], bool] | None = None

    def fits(self, row: Mapping[str, Any]) -> bool:
        """Whether a row looks like one of this schema."""
        return self.keys <= row.keys() and (self.told_by is None or self.told_by(row))


def _format(name: str, keys: str, convert: Converter, title: str, **rest: Any) -> Format:
    return Format(name, frozenset(keys.split()), convert, title, **rest)


def _matches(key: str, pattern: str) -> Callable[[Mapping[str, Any]], bool]:
    """Rows whose text under `key` holds a pattern near its beginning."""
    mark = re.compile(pattern, re.S)
    return lambda row: isinstance(text := row.get(key), str) and mark.search(text[:4000]) is not None


def _list_of(key: str, kind: type, *inside: str) -> Callable[[Mapping[str, Any]], bool]:
    """Rows whose list under `key` starts with a value of this kind, with these keys if it is an object."""

    def fits(row: Mapping[str, Any]) -> bool:
        items = row.get(key)
        first = items[0] if isinstance(items, list) and items else None
        return isinstance(first, kind) and (not isinstance(first, dict) or first.keys() >= set(inside))

    return fits


def _nothing_but(key: str) -> Callable[[Mapping[str, Any]], bool]:
    """Rows with this key and names alone: a benchmark's problem has a prompt too, and is no opening."""
    names = {key, "id", "prompt_id", "source", "category", "lang", "language"}
    return lambda row: row.keys() <= names


_ALL = (
    _format("messages", "messages", messages.convert, "role/content messages; No Robots; what this package writes"),
    _format("wildchat", "conversation", messages.convert_wildchat, "WildChat, LMSYS-Chat-1M", tried=False,
            told_by=_list_of("conversation", dict, "role", "content")),
    _format("sharegpt", "conversations", sharegpt.convert, "ShareGPT and its kin, whole talks and parts",
            told_by=_list_of("conversations", dict)),
    _format("sharegpt_preference", "conversations chosen rejected", sharegpt.convert_preference,
            "ShareGPT turns with a chosen and a rejected reply"),
    _format("oasst", "message_tree_id prompt", oasst.convert, "OpenAssistant trees, the best path"),
    _format("oasst_paths", "message_tree_id prompt", oasst.convert_paths, "OpenAssistant trees, all paths"),
    _format("hh_rlhf", "chosen rejected", transcripts.convert_hh_rlhf, "Anthropic hh-rlhf transcripts"),
    _format("prompt_chosen", "prompt chosen rejected", preferences.convert_prompt_chosen,
            "prompt with chosen and rejected reply: Dahoas sets, Firefly"),
    _format("webgpt", "question answer_0 answer_1", preferences.convert_webgpt, "WebGPT comparisons", tried=False),
    _format("shp", "history human_ref_A human_ref_B", preferences.convert_shp, "Stanford Human Preferences",
            tried=False),
    _format("gpt4_comparison", "user_input responses_and_scores", preferences.convert_gpt4_comparison,
            "GPT-4-LLM ranked replies", tried=False),
    _format("alpaca", "instruction output", instructions.convert_alpaca,
            "Alpaca, BELLE, Guanaco, chain of thought; with history; ranked outputs"),
    _format("belle_multiturn", "instruction output", transcripts.convert_belle_multiturn,
            "BELLE multiturn_chat_0.8M", tried=False,
            told_by=_matches("instruction", r"\A\s*Human[:：].*\nAssistant[:：]")),
    _format("belle_generated_chat", "instruction output", transcripts.convert_belle_generated_chat,
            "BELLE generated_chat_0.4M (ask for it: its keys are Alpaca's)", tried=False),
    _format("gpteacher", "instruction response", instructions.convert_gpteacher, "GPTeacher"),
    _format("dolly", "instruction context response", instructions.convert_dolly, "databricks-dolly-15k"),
    _format("self_instruct", "instruction instances", instructions.convert_self_instruct,
            "Self-Instruct and BELLE seed tasks"),
    _format("natural_instructions", "Definition Instances", instructions.convert_natural_instructions,
            "Natural Instructions task files", tried=False),
    _format("natural_flat", "definition inputs targets", instructions.convert_natural_flat,
            "Natural Instructions as rows", tried=False),
    _format("prompt_response", "prompt response", instructions.convert_prompt_response, "GPT4All, Safety-Prompts",
            tried=False),
    _format("prompt_completion", "prompt completion", instructions.convert_prompt_completion, "TRL prompt-completion",
            tried=False),
    _format("question_answer", "question answer", instructions.convert_question_answer, "questions and answers",
            tried=False),
    _format("prompts", "prompt", instructions.convert_prompts, "first turns alone: bare strings",
            told_by=_nothing_but("prompt")),
    _format("instruction_prompts", "instruction", instructions.convert_prompts, "first turns alone: InstructionWild",
            told_by=_nothing_but("instruction")),
    _format("hc3", "question human_answers chatgpt_answers", instructions.convert_hc3, "HC3", tried=False),
    _format("firefly", "conversation", instructions.convert_firefly, "Firefly human/assistant pairs", tried=False,
            told_by=_list_of("conversation", dict, "human", "assistant")),
    _format("firefly_single", "kind input target", instructions.convert_firefly_single, "firefly-train-1.1M",
            tried=False),
    _format("lima", "conversations", instructions.convert_lima, "LIMA as on the hub", tried=False,
            told_by=_list_of("conversations", str)),
    _format("ultrachat", "data", instructions.convert_ultrachat, "UltraChat", tried=False,
            told_by=_list_of("data", str)),
    _format("chinese_vicuna", "input output", instructions.convert_chinese_vicuna, "Chinese-Vicuna chat",
            told_by=_list_of("input", str)),
    _format("moss", "chat", instructions.convert_moss, "MOSS, third release", tried=False),
    _format("moss_text", "plain_text", transcripts.convert_moss_text, "MOSS, second release", tried=False),
    _format("baize", "input", transcripts.convert_baize, "Baize self-chat", tried=False,
            told_by=_matches("input", r"\[\|Human\|\]")),
    _format("vicuna_text", "text", transcripts.convert_vicuna_text, "Vicuna prompt text", tried=False,
            told_by=_matches("text", r"USER:.*ASSISTANT:")),
    _format("refgpt", "dialogue", transcripts.convert_refgpt, "RefGPT-Fact, RefGPT-Code", tried=False,
            told_by=_matches("dialogue", r"<(?:[Uu]ser|[Hh]uman) 1>")),
    _format("sgd", "dialogue_id turns", dialogues.convert_sgd, "Schema-Guided Dialogue; ConvLab-3 unified"),
    _format("dailydialog", "dialog", dialogues.convert_dailydialog, "DailyDialog as on the hub", tried=False,
            told_by=_list_of("dialog", str)),
    _format("taskmaster", "conversation_id utterances", dialogues.convert_taskmaster, "Taskmaster 1 to 4"),
    _format("taskmaster3_tsv", "column_1 column_2 column_3", transcripts.convert_taskmaster3_tsv,
            "Taskmaster-3 splits", told_by=_matches("column_1", r"<(?:C|PR|U)>")),
    _format("taskmaster_reward", "conversation_id context generation reward", dialogues.convert_taskmaster_reward,
            "Taskmaster 3 and 4 reward rows"),
    _format("camrest", "dial", dialogues.convert_camrest, "CamRest676"),
    _format("multiwoz", "goal log", dialogues.convert_multiwoz, "MultiWOZ 2.1"),
    _format("crosswoz", "messages goal final_goal", messages.convert_crosswoz, "CrossWOZ"),
    _format("topical_chat", "content article_url", dialogues.convert_topical_chat, "Topical-Chat"),
    _format("abcd", "convo_id original", dialogues.convert_abcd, "ABCD"),
)  # fmt: skip
FORMATS = {format.name: format for format in _ALL}


def format_named(name: str) -> Format:
    """Look a format up.

    Raises:
        ConfigError: no such format.
    """
    if name not in FORMATS:
        near = difflib.get_close_matches(name, FORMATS, 3) or list(FORMATS)
        raise ConfigError(f"unknown data format {name!r}; did you mean {', '.join(near)}? See `selfplay data formats`")
    return FORMATS[name]


def recognise(row: Mapping[str, Any]) -> Format:
    """The format a row fits; of several, the one that tells itself apart, then the one that names most keys.

    Raises:
        BadRow: none fits; the message shows the keys found and the nearest formats.
    """
    fitting = [format for format in _ALL if format.fits(row)]
    if fitting:
        return max(fitting, key=lambda format: (len(format.keys), format.told_by is not None))
    found = ", ".join(str(key)[:40] for key in list(row)[:_SHOWN]) or "none"
    near = "; ".join(f"{format.name} ({', '.join(sorted(format.keys))})" for format in nearest(row))
    raise BadRow(f"unknown row format: found keys {found}; nearest: {near}. Choose with --format, if it is one of them")


def recognise_any(rows: Iterable[Mapping[str, Any]], file: str) -> Format:
    """The format of the first row that fits one.

    Raises:
        DataError: no row does.
    """
    failure: BadRow | None = None
    for row in rows:
        try:
            return recognise(row)
        except BadRow as error:
            failure = failure or error
    raise DataError(f"{file}: {failure or 'no rows'}")


def nearest(row: Mapping[str, Any]) -> list[Format]:
    """The three formats whose keys overlap most with a row's."""
    found = {str(key).lower() for key in row}

    def overlap(format: Format) -> float:
        keys = {key.lower() for key in format.keys}
        return (
            len(keys & found) / len(keys) + sum(any(key in name or name in key for name in found) for key in keys) / 9
        )

    return sorted(_ALL, key=overlap, reverse=True)[:3]
