"""TRL's SFTTrainer, fed with ready token rows.

Two things differ from stock: batches come from `LengthBatches`, and on a CPU the head is applied to supervised
positions only (TRL's fused head scores every position there and adds entropies; its compact path needs Triton).
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import SFTTrainer

from selfplay.errors import SelfplayError
from selfplay.train.examples import IGNORED, LengthBatches, collate


class RoleTrainer(SFTTrainer):  # type: ignore[misc]
    """Trains whatever the labels mark; which role that is was decided when they were made."""

    def __init__(self, *, batch_tokens: int, **kwargs: Any) -> None:
        self._batch_tokens = batch_tokens
        super().__init__(data_collator=partial(collate, pad_id=kwargs["processing_class"].pad_token_id), **kwargs)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Rows grouped by length; the shuffle follows the epoch."""
        return self._loader(self.train_dataset, self.args.seed)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """The same grouping with a fixed order."""
        return self._loader(eval_dataset if eval_dataset is not None else self.eval_dataset, 0)

    def _loader(self, dataset: Any, seed: int) -> DataLoader[Any]:
        lengths = [len(row) for row in dataset["input_ids"]]
        batches = LengthBatches(lengths, self._batch_tokens, seed)
        loader: DataLoader[Any] = DataLoader(dataset, batch_sampler=batches, collate_fn=self.data_collator)
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean negative log-likelihood (nats per supervised token) over the whole optimiser step."""
        if inputs["input_ids"].device.type != "cpu" or return_outputs:
            inputs.setdefault("attention_mask", torch.ones_like(inputs["input_ids"]))
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss, supervised = supervised_nll(model, inputs, self.accelerator.unwrap_model(model), self.accelerator)
        return loss / (supervised if num_items_in_batch is None else num_items_in_batch)

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> Any:
        """Nats per supervised token over the whole set; stock averages over batches, whatever their size."""
        training = self.model.training
        self.model.eval()
        total, tokens = 0.0, 0
        with torch.no_grad():
            for inputs in self.get_eval_dataloader(eval_dataset):
                loss, supervised = supervised_nll(
                    self.model, inputs, self.accelerator.unwrap_model(self.model), self.accelerator
                )
                total, tokens = total + float(loss), tokens + supervised
        metrics = {f"{metric_key_prefix}_loss": total / tokens}
        self.log(dict(metrics))
        self.control: TrainerControl = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        self.model.train(training)
        return metrics


def supervised_nll(model: Any, inputs: Any, head_owner: Any, accelerator: Any) -> tuple[torch.Tensor, int]:
    """Summed negative log-likelihood of the labelled tokens, and their number.

    Args:
        model: called for its last hidden state (B, T, D); may be a DDP or DeepSpeed wrapper.
        head_owner: the unwrapped model, whose output embedding is applied to the (N, D) supervised positions.
    """
    outputs = model(input_ids=inputs["input_ids"], use_cache=False, output_hidden_states=True, logits_to_keep=1)
    targets = inputs["labels"][:, 1:]
    keep = targets != IGNORED
    hidden = outputs.hidden_states[-1][:, :-1][keep]
    with accelerator.autocast():
        logits = head_owner.get_output_embeddings()(hidden)
    return F.cross_entropy(logits.float(), targets[keep], reduction="sum"), int(keep.sum())


class StopOnNan(TrainerCallback):  # type: ignore[misc]
    """Stops with step and last checkpoint instead of training on with a broken model."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Look at every logged loss."""
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(loss):
            raise SelfplayError(
                f"loss is {loss} at step {state.global_step}: it broke at most {args.logging_steps} steps before. "
                f"Lower optim.learning_rate, or delete the checkpoints of those steps in {args.output_dir} and go on "
                "with --resume"
            )
