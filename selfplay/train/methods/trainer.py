"""TRL's SFTTrainer, fed with ready token rows.

Three things differ from stock: batches come from `selfplay.train.batches`, the loss comes out of the model's forward
(`selfplay.train.loss`), and evaluation is the mean over tokens, whatever the size of the batches.
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
    """Trains whatever the labels mark; which role that is was decided when they were made."""

    def __init__(self, *, batches: Batches, evaluation: Composition, watch: Watch | None = None, **kwargs: Any) -> None:
        """Bind the trainer.

        Args:
            batches: of the training rows.
            evaluation: how the held-out rows are batched.
            watch: told of every loss.
        """
        self._batches = batches
        self._evaluation = evaluation
        self._watch = watch or Watch()
        collator = partial(collate, pad_id=kwargs["processing_class"].pad_token_id, packed=evaluation.packed)
        super().__init__(data_collator=collator, callbacks=[self._watch, *kwargs.pop("callbacks", [])], **kwargs)
        self.remove_callback(PrinterCallback)  # bare dictionaries; `Watch` says the same in words
        self.add_callback(_Epochs(batches))
        patch_loss_forward(causal_model(self.model))

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Rows batched anew each epoch."""
        return self._loader(self.train_dataset, self._batches)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """The same way of batching with a fixed order."""
        dataset = eval_dataset if eval_dataset is not None else self.eval_dataset
        return self._loader(dataset, Batches(lengths_of(dataset), self._evaluation))

    def _loader(self, dataset: Any, batches: Batches) -> DataLoader[Any]:
        loader: DataLoader[Any] = DataLoader(dataset, batch_sampler=batches, collate_fn=self.data_collator)
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean negative log-likelihood (nats per supervised token) over the whole optimiser step, all devices."""
        ids, tokens = inputs.pop("ids"), inputs.pop("tokens")
        loss, supervised = self._nll(model, inputs)
        self._watch.saw(self.state.global_step + 1, ids, tokens, loss.detach())
        # Gradients are averaged over processes, and the count is that of all of them.
        return (
            loss * self.accelerator.num_processes / (supervised if num_items_in_batch is None else num_items_in_batch)
        )

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> Any:
        """Nats per supervised token over the whole set; stock averages over batches, whatever their size."""
        training = self.model.training
        self.model.eval()
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
        """Summed negative log-likelihood of the labelled tokens, and their number."""
        return model(**inputs).loss, int((inputs["labels"][:, 1:] != IGNORED).sum())


class _Epochs(TrainerCallback):  # type: ignore[misc]
    """Tells the batches which epoch it is; on resuming in one, accelerate's own way does not get through to them."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Choose the epoch's shuffle."""
        self._batches.set_epoch(int((state.epoch or 0) + 1e-6))


def lengths_of(dataset: Any) -> list[int]:
    """Tokens of each row, without reading the rows."""
    import pyarrow.compute

    found: list[int] = pyarrow.compute.list_value_length(dataset.data.column("input_ids")).to_pylist()
    return found


def causal_model(model: Any) -> Any:
    """The language model inside adapters."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
