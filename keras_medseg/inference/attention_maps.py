"""The maps of the attention modules of a network for one image."""

import re

import keras
import numpy as np

# Names of layers that output a weight for each pixel: CSAM, CBAM, gates on skips, APR.
WEIGHTS = r"(.+CSAM|CBAM\d+)_spatial_sigmoid|(Gate\d+)_sigmoid|(APR\d+)_gate_sigmoid"
# Modules of iacnn without such weights. SA and CA are layers that add a residual to a map.
SUMS = r"[SC]A\d+"
OUTPUTS = r"SFA\d*"


def attention_maps(model: keras.Model, image: np.ndarray) -> dict[str, np.ndarray]:
    """{place: (H, W)}: one map of each attention module for one image.

    For a module that weights pixels, the map shows its weights, in [0, 1]; if it weights each
    channel separately, their mean over the channels. For SA and CA (iacnn) the map is the mean
    absolute value over the channels of the residual that they add, x alpha or x beta; for SFA, of
    its output. Each value of a map of lower resolution is repeated; the finest maps come first.

    Args:
        model: built by `keras_medseg.build`.
        image: (H, W, C), normalized as in training; a volume (X, Y, Z, C) for a 3-D network.

    Raises:
        ValueError: the network has no attention module.
    """
    found = filter(None, map(_shown, model.layers))
    shown = dict(sorted(found, key=lambda item: -(item[1].shape[1] or 0)))
    if not shown:
        raise ValueError(
            f"model: found no attention module in {model.name}, expected a network with CSAM, "
            "CBAM, gates, APR, SFA, SA or CA. Build one that has them."
        )
    outputs = keras.Model(model.input, list(shown.values()))(image[None], training=False)
    maps = [keras.ops.convert_to_numpy(keras.ops.cast(y[0], "float32")) for y in outputs]
    return {
        place: _enlarged(np.abs(values).mean(axis=-1), image.shape[:-1])
        for place, values in zip(shown, maps)
    }


def _shown(layer: keras.Layer) -> tuple[str, keras.KerasTensor] | None:
    if found := re.fullmatch(WEIGHTS, layer.name):
        return next(filter(None, found.groups())), layer.output
    if re.fullmatch(SUMS, layer.name):
        return layer.name, layer.input[-1]
    return (layer.name, layer.output) if re.fullmatch(OUTPUTS, layer.name) else None


def _enlarged(values: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    for axis, length in enumerate(size):
        values = values.repeat(length // values.shape[axis], axis=axis)
    return values
