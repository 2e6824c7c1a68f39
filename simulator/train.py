"""Training of the user's side: UserGPT learns the human turns of conversations, and when people end them.

The assistant's system prompt is hidden from it, as it is from people. Source: PlatoLM, arXiv:2308.11534.
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
