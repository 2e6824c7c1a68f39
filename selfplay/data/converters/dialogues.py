"""Talks between two people, one of whom is, or stands for, the assistant.

sgd            {dialogue_id, turns: [{speaker: USER|SYSTEM, utterance}], services?}: Schema-Guided Dialogue
               (arXiv:1909.05855), and ConvLab-3's unified format in lower case, DailyDialog (arXiv:1710.03957) included
dailydialog    {dialog: [text...]}: DailyDialog as on the hub; the first to speak is the user
taskmaster     {conversation_id, utterances: [{speaker: user|assistant, text}]}: Taskmaster 1 to 4 (arXiv:1909.05358)
taskmaster_reward  {conversation_id, context, generation, reward}: PERL reward rows of Taskmaster 3 and 4; both fields
               are JSON in a string. A reply that people rejected (reward 0), or a call, is left out of the talk.
               Rows are steps of one talk under ids of their own, so the opening groups them.
camrest        {dialogue_id?, dial: [{usr: {transcript}, sys: {sent}}]}: CamRest676 (arXiv:1604.04562), ConvLab's layout
multiwoz       {goal, log: [{text}]}: MultiWOZ 2.1 (arXiv:1907.01669); user and system take turns
topical_chat   {content: [{agent: agent_1|agent_2, message}]}: Topical-Chat; the first to speak is the user
abcd           {convo_id, original: [[agent|customer|action, text]...]}: ABCD (arXiv:2104.00783); actions are left out

What people were told to get done is kept as `meta.intent`, where the source says it.
Greetings of the assistant are moved to `meta.greeting`: the user's first turn opens the conversation with or without.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from selfplay.chat.conversation import Conversation, Role, conversation_from_pairs
from selfplay.data.converters.fields import (
    Pairs,
    alternating,
    id_of,
    joined,
    json_field,
    list_field,
    object_field,
    pairs_of,
    same_opening,
    text_field,
    texts_field,
    without_greeting,
)
from selfplay.data.converters.intents import intent_of_goal, intent_of_states
from selfplay.errors import BadRow

_ASSISTANT: dict[str, Role] = {"user": "user", "assistant": "assistant"}
_SYSTEM: dict[str, Role] = {"user": "user", "system": "assistant"}
_AGENT: dict[str, Role] = {"user": "user", "agent": "assistant"}
_CUSTOMER: dict[str, Role] = {"customer": "user", "agent": "assistant"}


def convert_sgd(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """One whole dialogue; `meta.services` keeps the services it is about, `meta.intent` what the user asked of them."""
    turns = list_field(row, "turns")
    pairs = pairs_of(turns, "speaker", "utterance", _SYSTEM)
    services = row.get("services")
    meta: dict[str, Any] = {"services": list(services)} if isinstance(services, list) else {}
    yield conversation_from_pairs(text_field(row, "dialogue_id"), pairs, meta=meta | intent_of_states(turns))


def convert_dailydialog(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """One whole dialogue."""
    pairs = alternating(texts_field(row, "dialog"))
    yield conversation_from_pairs(id_of(row, "id", pairs), pairs)


def convert_taskmaster(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """One whole dialogue. Workers sometimes split one turn over several utterances; those are joined with a space."""
    pairs, meta = without_greeting(joined(pairs_of(list_field(row, "utterances"), "speaker", "text", _ASSISTANT)))
    yield conversation_from_pairs(text_field(row, "conversation_id"), pairs, meta=meta)


def convert_taskmaster_reward(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """The talk so far, with the next reply where people accepted one."""
    context, generation = json_field(row, "context"), json_field(row, "generation")
    reward = row.get("reward")
    if not isinstance(reward, int | float):
        raise BadRow("field 'reward' is no number")
    steps = list_field({"context": context}, "context")
    if reward >= 1 and isinstance(generation, Mapping):
        steps = [*steps, generation]
    pairs, meta = without_greeting(
        joined(pairs_of((step for step in steps if step.get("text")), "role", "text", _AGENT))
    )
    dialogue = text_field(row, "conversation_id")
    yield conversation_from_pairs(dialogue, pairs, complete=False, meta={**meta, **same_opening(pairs)})


def convert_camrest(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """One whole dialogue."""
    pairs: Pairs = []
    for exchange in list_field(row, "dial"):
        pairs.append(("user", text_field(object_field(exchange, "usr"), "transcript")))
        pairs.append(("assistant", text_field(object_field(exchange, "sys"), "sent")))
    yield conversation_from_pairs(id_of(row, "dialogue_id", pairs), pairs, meta=intent_of_goal(row.get("goal")))


def convert_multiwoz(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """One whole dialogue."""
    pairs = alternating(text_field(turn, "text") for turn in list_field(row, "log"))
    yield conversation_from_pairs(id_of(row, "id", pairs), pairs, meta=intent_of_goal(row.get("goal")))


def convert_topical_chat(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """One whole talk."""
    turns = list_field(row, "content")
    first = text_field(turns[0], "agent").lower() if turns else "agent_1"
    other = "agent_1" if first == "agent_2" else "agent_2"
    pairs = joined(pairs_of(turns, "agent", "message", {first: "user", other: "assistant"}))
    yield conversation_from_pairs(id_of(row, "id", pairs), pairs)


def convert_abcd(row: Mapping[str, Any]) -> Iterator[Conversation]:
    """One whole talk with customer service."""
    turns = row.get("original")
    if not isinstance(turns, list) or not all(isinstance(turn, list) and len(turn) == 2 for turn in turns):
        raise BadRow("field 'original' is no list of [speaker, text]")
    said = [{"speaker": speaker, "text": text} for speaker, text in turns if speaker != "action"]
    pairs, meta = without_greeting(joined(pairs_of(said, "speaker", "text", _CUSTOMER)))
    yield conversation_from_pairs(id_of(row, "convo_id", pairs), pairs, meta=meta)
