"""A reward model: one number a conversation, by a sequence classifier with one label, in its own chat template."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selfplay.chat.conversation import Conversation
from selfplay.chat.rendering import ChatRenderer
from selfplay.errors import ModelError


class RewardModel:
    """A model folder ready to score conversations: in float32 on a CPU, in its own precision on a GPU."""

    def __init__(self, folder: Path) -> None:
        """Load the model.

        Raises:
            ModelError: no model that can be read, no chat template, or a head that gives more or less than one number.
        """
        import torch
        from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        on_gpu = torch.cuda.is_available()
        try:
            architectures = AutoConfig.from_pretrained(folder).architectures or []
            if not any("SequenceClassification" in name for name in architectures):
                listed = ", ".join(architectures) or "nothing said"
                raise ModelError(
                    f"{folder}: no reward model ({listed}); expected one of sequence classification with one label"
                )
            model = AutoModelForSequenceClassification.from_pretrained(
                folder, dtype="auto" if on_gpu else torch.float32, use_safetensors=True
            )
            self._renderer = ChatRenderer(AutoTokenizer.from_pretrained(folder))
        except (OSError, ValueError) as error:
            raise ModelError(f"{folder}: no reward model that can be read ({error})") from error
        if model.config.num_labels != 1:
            raise ModelError(f"{folder}: its head has {model.config.num_labels} labels; a reward model has one")
        self._model: Any = model.to("cuda" if on_gpu else "cpu").eval()
        self._limit = int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or 1 << 30)

    def score(self, conversations: Sequence[Conversation]) -> list[float | None]:
        """The reward of each; None: it is longer than the model's context.

        One at a time: padding would need a token that no conversation ends with.
        """
        import torch

        scores: list[float | None] = []
        with torch.inference_mode():
            for conversation in conversations:
                ids = self._renderer.render(conversation).input_ids
                if len(ids) > self._limit:
                    scores.append(None)
                    continue
                row = torch.tensor([ids], device=self._model.device)
                scores.append(float(self._model(input_ids=row).logits[0, 0]))
        return scores
