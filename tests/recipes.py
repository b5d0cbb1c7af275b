"""A recipe that trains in seconds, for every test that needs one."""

from collections.abc import Mapping
from typing import Any

from keras_medseg import recipe

BASE = recipe.Recipe(
    name="test",
    data=recipe.Slices(
        dataset="brats",
        window=(48, 48, 24),
        normalization="z_score",
        flips=(),
        validation=0.3,
        slice_step=6,
    ),
    model=recipe.Model(
        name="residual_attention_unet",
        targets=(("WT",), ("TC",), ("ET",)),
        options={"filters": 4, "attention": False, "residual_block": "plain_single"},
    ),
    train=recipe.Train(
        epochs=1,
        batch_size=8,
        optimizer="adam",
        learning_rate=0.01,
        loss="cross_entropy",
        schedule="constant",
        precision="float32",
        seed=0,
    ),
)


def small_recipe(changes: Mapping[str, Any] = {}) -> recipe.Recipe:
    """Slices of small BraTS-like cases, three networks of four filters, one epoch."""
    return recipe.override(BASE, changes)
