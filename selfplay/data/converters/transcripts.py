r"""One string that holds the whole talk, its turns behind markers. What the transcript schemas differ in is a table.

hh_rlhf        {chosen, rejected}: "\n\nHuman: ...\n\nAssistant: ..."; the chosen side is read. Rows stop where two
               replies were compared: not complete. anthropics/hh-rlhf (arXiv:2204.05862).
baize          {input}: "[|Human|] ... [|AI|] ..." after a line that says what follows; the last "[|Human|]" may be
               empty. project-baize/baize-chatbot (arXiv:2304.01196).
vicuna_text    {text}: "<system> USER: ... ASSISTANT: ...</s>". lm-sys/FastChat, conversation template vicuna_v1.1.
refgpt         {dialogue}: "<chat>\n<user 1>(word count: n) ...\n<assistant 1>(word count: n) ...\n</chat>", as
               `<Human 1>:(word count: n)` between <start_chat> and <end_chat> too. mutonix/RefGPT (arXiv:2305.14994).
belle_multiturn       {instruction, output}: "Human:...\nAssistant:...\nHuman:...\nAssistant:", then the last reply.
belle_generated_chat  {instruction, output}: the characters in `instruction`, the talk in `output`, a line per turn
               behind a name and a colon. Both: BelleGroup on the hub, LianjiaTech/BELLE (arXiv:2303.14742).
moss_text      {plain_text}: "[Human]: ...<eoh> [MOSS]: ...<eoa>". OpenLMLab/MOSS, moss-002-sft-data.
taskmaster3_tsv       {column_1, column_2, column_3}: "<PR>...<C><U>...<A>...<PN>..." (the last result, then the talk);
               the next step, "[A]..." when it is a reply; the dialogue's id.
               google-research-datasets/Taskmaster, TM-3-2020 splits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from selfplay.chat.conversation import Conversation, Role, conversation_from_pairs
from selfplay.data.converters.fields import Pairs, digest, id_of, joined, optional_text, text_field, without_greeting
from selfplay.errors import BadRow

_HH = re.compile(r"\n\n(Human|Assistant): ?")
_BAIZE = re.compile(r"\[\|(Human|AI)\|\]")
_VICUNA = re.compile(r"(?:^|(?<=\s)|(?<=</s>))(USER|ASSISTANT):")
_REFGPT = re.compile(
    r"<(user|human|assistant) \d{1,4}>[ \t]*[:：]?[ \t]*(?:[(（][^()（）\n]{0,40}[)）])?[ \t]*[:：]?", re.I
)
_REFGPT_WRAPPER = re.compile(r"^\s*<(?:start_)?chat>|</chat>\s*$|<end_chat>\s*$")
_BELLE = re.compile(r"(?:^|\n)(Human|Assistant)[:：]")
_MOSS = re.compile(r"\[(Human|MOSS)\]:")
_NAMED_LINE = re.compile(r"^[ \t]*([^:：\s][^:：\n]{0,39})[:：]", re.M)
_TASKMASTER3 = re.compile(r"<(U|A|PN|PR)>")


def cut(text: str, marker: re.Pattern[str], user: str) -> tuple[str, Pairs]:
    """A transcript as what stands before the first marker, and its turns; `user` is the marker of the person."""
    before, *parts = marker.split(text)
    roles: list[Role] = ["user" if name == user else "assistant" for name in parts[::2]]
    return before, list(zip(roles, parts[1::2], strict=True))


def convert_hh_rlhf(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """The chosen transcript."""
    before, pairs = cut(text_field(row, "chosen"), _HH, "Human")
    if before.strip() or not pairs:
        raise BadRow("'chosen' does not start with '\\n\\nHuman: '")
    # The name covers the human side alone: rows that differ in the replies only fall into the same half of a split.
    # Rows that share a beginning and then part are different conversations and may fall into both.
    name = digest("\n".join(text for role, text in pairs if role == "user"))
    yield conversation_from_pairs(name, pairs, complete=False)


def prompt_and_reply(text: str, reply: str) -> Pairs:
    """A prompt that is an hh-rlhf transcript or one plain turn, and the reply to it."""
    before, pairs = cut(text, _HH, "Human")
    if before.strip() or not pairs:
        pairs = [("user", text)]
    return [*_without_empty_end(pairs), ("assistant", reply)]


def convert_baize(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """One self-chat."""
    pairs = _some(cut(text_field(row, "input"), _BAIZE, "Human")[1], "[|Human|]")
    meta = {"topic": row["topic"]} if isinstance(row.get("topic"), str) else {}
    yield conversation_from_pairs(id_of(row, "id", pairs), _without_empty_end(pairs), meta=meta)


def convert_vicuna_text(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """One prompt text; what stands before the first USER: is the system prompt."""
    before, pairs = cut(text_field(row, "text"), _VICUNA, "USER")
    pairs = [(role, text.strip().removesuffix("</s>")) for role, text in _some(pairs, "USER:")]
    system: Pairs = [("system", before)] if before.strip() else []
    yield conversation_from_pairs(id_of(row, "id", pairs), [*system, *_without_empty_end(pairs)])


def convert_refgpt(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """One dialogue; the word counts that steered its writer are left out."""
    text = _REFGPT_WRAPPER.sub("", text_field(row, "dialogue"))
    _, *parts = _REFGPT.split(text)
    pairs: Pairs = [
        ("assistant" if name.lower() == "assistant" else "user", said)
        for name, said in zip(parts[::2], parts[1::2], strict=True)
    ]
    pairs = _some(pairs, "<user 1>")
    yield conversation_from_pairs(id_of(row, "id", pairs), _without_empty_end(pairs))


def convert_belle_multiturn(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """The transcript in `instruction` and the reply in `output`."""
    before, pairs = cut(text_field(row, "instruction"), _BELLE, "Human")
    pairs = _without_empty_end(_some(pairs, "Human:"))
    system: Pairs = [("system", before)] if before.strip() else []
    pairs = [*system, *pairs, ("assistant", text_field(row, "output"))]
    yield conversation_from_pairs(id_of(row, "id", pairs), pairs)


def convert_belle_generated_chat(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """The talk in `output`; the first to speak is the user, the other one answers."""
    _, *parts = _NAMED_LINE.split(text_field(row, "output"))
    names = list(dict.fromkeys(name.strip() for name in parts[::2]))
    if len(names) != 2:
        raise BadRow(f"'output' holds {len(names)} speakers, expected two, each behind a name and a colon")
    pairs: Pairs = [
        ("user" if name.strip() == names[0] else "assistant", text)
        for name, text in zip(parts[::2], parts[1::2], strict=True)
    ]
    meta = {"scene": optional_text(row, "instruction")}
    yield conversation_from_pairs(id_of(row, "id", pairs), pairs, meta=meta)


def convert_moss_text(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """One talk of the first MOSS release."""
    pairs = _some(cut(text_field(row, "plain_text"), _MOSS, "Human")[1], "[Human]:")
    ended = re.compile(r"<eo[ahm]>\s*$")
    pairs = [(role, ended.sub("", text.strip())) for role, text in pairs]
    yield conversation_from_pairs(id_of(row, "id", pairs), _without_empty_end(pairs))


def convert_taskmaster3_tsv(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """What was said so far, and the reply where the next step is one. Calls and their results are left out."""
    context = text_field(row, "column_1" if "column_1" in row else "context")
    target = text_field(row, "column_2" if "column_2" in row else "target")
    result, mark, talk = context.partition("<C>")
    _, *parts = _TASKMASTER3.split(talk if mark else result)
    said = [(name, text) for name, text in zip(parts[::2], parts[1::2], strict=True) if name in ("U", "A")]
    pairs: Pairs = [("user" if name == "U" else "assistant", text) for name, text in said]
    if target.startswith("[A]"):
        pairs.append(("assistant", target.removeprefix("[A]")))
    kept, meta = without_greeting(joined(pairs))
    known = row.get("column_3")
    group = {"group": known} if isinstance(known, str) else {}
    name = f"{known}/{len(kept)}" if group else digest(context + target)
    yield conversation_from_pairs(name, kept, complete=False, meta={**meta, **group})


def _some(pairs: Pairs, marker: str) -> Pairs:
    if not pairs:
        raise BadRow(f"no turn marked {marker!r} found in the text")
    return pairs


def _without_empty_end(pairs: Pairs) -> Pairs:
    """A marker at the end that nothing follows opens no turn."""
    return pairs[:-1] if pairs and not pairs[-1][1].strip() else pairs
