"""Which settings a shipped recipe holds, told from its keys."""

import yaml

from selfplay.curate.config import CurateConfig
from selfplay.data.cleaning.config import CleanConfig
from selfplay.generate.config import GenerateConfig
from selfplay.loop.config import LoopConfig
from selfplay.recipe import recipe_text
from selfplay.train.config import TrainConfig


def recipe_kind(name):
    """Training names a role, curation end reasons, a loop iterations, cleaning its steps."""
    keys = yaml.safe_load(recipe_text(name)).keys()
    if "role" in keys:
        return TrainConfig
    if "end_reasons" in keys:
        return CurateConfig
    if "iterations" in keys:
        return LoopConfig
    return CleanConfig if keys <= CleanConfig.model_fields.keys() else GenerateConfig
