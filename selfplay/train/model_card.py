"""Model card (README.md) of a trained model folder, rendered from its training record; it reads no other file."""

from __future__ import annotations

from typing import Any

import yaml


def model_card(record: dict[str, Any], merged: bool = False) -> str:
    """Render the model card as Markdown.

    Args:
        record: the content of `training.json`.
        merged: the adapters of the record have been merged into the weights.
    """
    recipe = record["recipe"]
    side = record["side"]
    front: dict[str, Any] = {"library_name": "peft" if recipe["lora"] and not merged else "transformers"}
    front["pipeline_tag"] = "text-generation"
    front["tags"] = ["selfplay", side["tag"]]
    if recipe["base"]:
        front["base_model"] = recipe["base"]
    rows = {
        "role": recipe["role"],
        "template": f"{record['template']}; its generation prompt opens a turn of the {side['opens']}",
        "data": ", ".join(recipe["data"]["datasets"]),
        "data fingerprint": f"`{record['data_fingerprint']}`",
        "conversations": f"{record['conversations']:,}, {record['supervised_tokens']:,} supervised tokens",
        "steps": f"{record['steps']:,}",
        "held-out loss": f"{record['eval_loss']:.4f} nats per supervised token",
        "learning rate": f"{recipe['optim']['learning_rate']:g}, {recipe['optim']['schedule']}",
    }
    # get: records of earlier versions lack this setting.
    share = recipe["optim"].get("average_with_base")
    if share:
        rows["averaged"] = f"{share:g} of the weights are the base's ([WiSE-FT](https://arxiv.org/abs/2109.01903))"
    if recipe["lora"]:
        where = "merged into the base" if merged else "`selfplay train merge` puts them into the base"
        rows["adapters"] = f"LoRA, rank {recipe['lora']['rank']}; {where}"
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    title = recipe["output_dir"].rstrip("/").rsplit("/", 1)[-1]
    return (
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n# {title}\n\n"
        f"{recipe['description'] or side['summary']}\n\n{side['summary']}\n\n| | |\n| --- | --- |\n{table}\n\n"
        f"![loss](loss.png)\n\n## Lineage\n\n{_lineage(record)}\n\n"
        "The whole recipe and the losses are in `training.json`.\n"
    )


def _identity(parent: dict[str, Any]) -> str:
    """The content hash or hub revision of a parent model."""
    if "content_hash" in parent:
        return f" (content hash `{parent['content_hash']}`)"
    return f" (revision `{parent['revision']}`)" if parent.get("revision") else ""


def _lineage(record: dict[str, Any]) -> str:
    """The parent models as a numbered list, the nearest first."""
    parents = record["lineage"]
    if not parents:
        return "Trained from random weights."
    return "\n".join(f"{n}. `{parent['model']}`{_identity(parent)}" for n, parent in enumerate(parents, 1))
