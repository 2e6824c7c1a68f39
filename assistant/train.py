"""Training of the answering side: the assistant learns its own turns and their end tokens."""

from __future__ import annotations

from selfplay.train.roles import TrainedSide

ASSISTANT = TrainedSide(
    name="assistant",
    role="assistant",
    sees_system_prompt=True,
    ends_conversations=False,
    opens="assistant",
    tag="assistant",
    summary="An assistant.",
)
