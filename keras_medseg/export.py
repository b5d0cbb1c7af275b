"""A trained network for use without this package, checked on the spot against the original."""

from pathlib import Path

import numpy as np

TOLERANCE = 1e-4


def export(model: Path, out: Path, format: str = "savedmodel") -> str:
    """Export `model.keras` and run the result once beside it.

    The exported network takes normalised slices (N, H, W, C), as `data/transforms.py` makes them.
    Auxiliary outputs are left out.

    Args:
        out: folder of the SavedModel, or the .onnx file.
        format: "savedmodel", or "onnx" (needs `pip install keras_medseg[export]`).

    Returns:
        One line with the largest difference on a batch of noise.

    Raises:
        ValueError: for an unknown format, or when the exported network computes something else.
        ImportError: for ONNX without its packages.
    """
    import keras

    from keras_medseg import inference, registry

    registry.import_layers()
    runners = {"savedmodel": _run_savedmodel, "onnx": _run_onnx}
    if format not in runners:
        raise ValueError(f"format: found {format!r}, expected one of {list(runners)}.")
    network = inference.main_output(keras.saving.load_model(model, compile=False))
    shape = [1 if size is None else size for size in network.input_shape]
    batch = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    expected = keras.ops.convert_to_numpy(network(batch, training=False))
    network.export(str(out), format={"savedmodel": "tf_saved_model"}.get(format, format))
    difference = float(np.abs(runners[format](out, batch) - expected).max())
    if not difference <= TOLERANCE:
        raise ValueError(f"{out}: found a difference of {difference:.3g}, expected {TOLERANCE}.")
    return f"{out}: {format}, largest difference {difference:.2g} on a batch of noise"


def _run_savedmodel(out: Path, batch: np.ndarray) -> np.ndarray:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(out))
    return loaded.serve(batch).numpy()


def _run_onnx(out: Path, batch: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: batch})[0]
