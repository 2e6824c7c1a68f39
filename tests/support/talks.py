"""Short conversations for tests."""

from selfplay.chat.conversation import Conversation, Turn


def talk(*texts, id="c0", ended="user_ended"):
    roles = ["user", "assistant"] * len(texts)
    return Conversation(id, tuple(Turn(role, text) for role, text in zip(roles, texts, strict=False)), ended=ended)
