"""Description of the assistant for the trainer: the loss covers its own turns and their end tokens."""

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
