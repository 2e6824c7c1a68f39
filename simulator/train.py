"""Description of the user simulator for the trainer: the loss covers the human turns, and the end of conversations.

The assistant's system prompt is hidden from it, as it is from human users. Source: PlatoLM, arXiv:2308.11534.
"""

from __future__ import annotations

from selfplay.train.roles import TrainedSide

SIMULATOR = TrainedSide(
    name="simulator",
    role="user",
    sees_system_prompt=False,
    ends_conversations=True,
    opens="user",
    tag="user-simulator",
    summary="A user simulator (UserGPT): it speaks as the user and ends conversations with `<|endconversation|>`.",
)
