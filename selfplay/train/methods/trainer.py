"""Trainer for prepared token rows, a subclass of TRL's SFTTrainer.

Three things differ from the stock trainer: batches come from `selfplay.train.batches`, the loss is computed in the
model's forward (`selfplay.train.methods.loss`), and evaluation is the mean over tokens, whatever the batch sizes.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import SFTTrainer

from selfplay.train.batches import Batches, Composition
from selfplay.train.examples import IGNORED, collate
from selfplay.train.methods.callbacks import Watch
from selfplay.train.methods.loss import patch_loss_forward


class RoleTrainer(SFTTrainer):  # type: ignore[misc]
    """Trainer of the tokens that the labels mark; the role was chosen when the labels were built."""

    def __init__(self, *, batches: Batches, evaluation: Composition, watch: Watch | None = None, **kwargs: Any) -> None:
        """Create the trainer and patch the model's forward.

        Args:
            batches: batch sampler of the training rows.
            evaluation: batch settings of the held-out rows.
            watch: callback that gets every loss.
        """
        self._batches = batches
        self._evaluation = evaluation
        self._watch = watch or Watch()
        collator = partial(collate, pad_id=kwargs["processing_class"].pad_token_id, packed=evaluation.packed)
        super().__init__(data_collator=collator, callbacks=[self._watch, *kwargs.pop("callbacks", [])], **kwargs)
        self.remove_callback(PrinterCallback)  # it prints bare dictionaries; `Watch` prints the same as text
        self.add_callback(_Epochs(batches))
        patch_loss_forward(causal_model(self.model))

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The training rows, in new batches each epoch."""
        return self._loader(self.train_dataset, self._batches)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """The held-out rows, in the same kind of batches with a fixed order."""
        dataset = eval_dataset if eval_dataset is not None else self.eval_dataset
        return self._loader(dataset, Batches(lengths_of(dataset), self._evaluation))

    def _loader(self, dataset: Any, batches: Batches) -> DataLoader[Any]:
        """A data loader whose batches are distributed over the processes."""
        loader: DataLoader[Any] = DataLoader(dataset, batch_sampler=batches, collate_fn=self.data_collator)
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean negative log-likelihood (nats per supervised token) over the whole optimiser step and all devices."""
        ids, tokens = inputs.pop("ids"), inputs.pop("tokens")
        loss, supervised = self._nll(model, inputs)
        self._watch.saw(self.state.global_step + 1, ids, tokens, loss.detach())
        # num_items_in_batch counts the tokens of all processes, and gradients are averaged over processes afterwards:
        # the factor turns that average back into a sum.
        return (
            loss * self.accelerator.num_processes / (supervised if num_items_in_batch is None else num_items_in_batch)
        )

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> Any:
        """Evaluate nats per supervised token over the whole set; the stock trainer averages over unequal batches."""
        training = self.model.training
        self.model.eval()
        # float64: float32 counts tokens exactly only up to 2**24.
        sums = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        with torch.no_grad():
            for inputs in self.get_eval_dataloader(eval_dataset):
                del inputs["ids"], inputs["tokens"]
                loss, supervised = self._nll(self.model_wrapped, inputs)
                sums += torch.tensor([float(loss), float(supervised)], dtype=torch.float64, device=sums.device)
        total, tokens = self.accelerator.reduce(sums, reduction="sum").tolist()
        metrics = {f"{metric_key_prefix}_loss": total / tokens}
        self.log(dict(metrics))
        self.control: TrainerControl = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        self.model.train(training)
        return metrics

    def _nll(self, model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, int]:
        """The summed negative log-likelihood of the supervised tokens, and their number."""
        return model(**inputs).loss, int((inputs["labels"][:, 1:] != IGNORED).sum())


class _Epochs(TrainerCallback):  # type: ignore[misc]
    """Callback that sets the epoch of the batch sampler.

    Accelerate sets it too, but on resuming within an epoch its call does not reach the sampler.
    """

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Set the epoch, which determines the shuffle."""
        # state.epoch is a fraction; the small term keeps 0.9999999 from counting as the epoch before.
        self._batches.set_epoch(int((state.epoch or 0) + 1e-6))


def lengths_of(dataset: Any) -> list[int]:
    """Number of tokens of each row, from the Arrow offsets, without reading the rows."""
    import pyarrow.compute

    lengths: list[int] = pyarrow.compute.list_value_length(dataset.data.column("input_ids")).to_pylist()
    return lengths


def causal_model(model: Any) -> Any:
    """The language model, without the adapters around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
