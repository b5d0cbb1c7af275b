"""Training of one network: precision, optimizer, learning-rate rule, exact resume.

A run that was killed and resumed ends with the same bits as an uninterrupted one, because an epoch
depends on the past only through the checkpoint: the order of the data and the augmentations are
functions of (seed, epoch, step), and every Dropout generator is reseeded from (seed, epoch).
"""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_medseg import losses, recipe, registry
from keras_medseg.data.batches.base import CaseBatches
from keras_medseg.errors import DataError, require_choice
from keras_medseg.files import write_atomic
from keras_medseg.optimizers import OPTIMIZERS
from keras_medseg.training import checkpoint
from keras_medseg.training.callbacks import (
    Checkpoint,
    Progress,
    RefuseDivergence,
    ReseedDropout,
    best_epoch,
    interrupted_between_steps,
    tensorboard,
    write_log,
)
from keras_medseg.training.devices import ONE, Devices, spread
from keras_medseg.training.events import STARTED, Event, Listener, epoch_of, nobody
from keras_medseg.training.logits import logits_of
from keras_medseg.training.metrics import MainAccuracy, MainDice, RegionDice
from keras_medseg.training.schedules import check_schedule, schedule_callbacks

Wrap = Callable[[keras.Model], keras.Model]
Begin = Callable[[keras.Model], None]


def fit(
    chosen: recipe.Recipe,
    targets: tuple[str, ...],
    training: CaseBatches,
    validation: CaseBatches,
    folder: Path,
    *,
    channels: int,
    wrap: Wrap | None = None,
    fitted: Mapping[str, Any] | None = None,
    begin: Begin | None = None,
    listener: Listener = nobody,
    devices: Devices = ONE,
) -> None:
    """Train one network of a recipe, or resume from its checkpoint.

    Writes into `folder`: `checkpoint/`, `best/` (if the best weights are kept), `log.csv`,
    `tensorboard/` (if TensorFlow is installed) and, at the end, `model.keras`.

    Args:
        chosen: the recipe.
        targets: the regions that the network predicts.
        training: batches of the training cases.
        validation: batches of the validation cases.
        folder: for this network only.
        channels: image channels that the network sees.
        wrap: as `tasks.Task.wrap`.
        fitted: numbers besides the recipe on which the batches depend, see `tasks.Task.fit`.
        begin: sets the first weights of the network; by default they are those of the seed.
        listener: is told when the training starts and after every epoch.
        devices: that share every batch; a training may be resumed on others.

    Raises:
        DataError: `folder` has a training with another recipe or data, or only damaged checkpoints.
    """
    identity = _identity(chosen, targets, fitted or {}, training, validation)
    arrays, log = _find_checkpoint(folder / "checkpoint", identity)
    path = folder / "model.keras"
    devices.agree(folder, f"{len(log)} epochs, {path.name}: {path.exists()}")
    if len(log) == chosen.train.epochs and path.exists():
        return
    with devices.scope():
        options: dict[str, Any] = dict(channels=channels, wrap=wrap, devices=devices.count)
        network, model = compile_network(chosen, targets, **options)
        if arrays:
            _restore(model, arrays)
        elif begin is not None:
            begin(network)
        _tell_start(listener, chosen, folder, log)
        if len(log) < chosen.train.epochs:
            _teach_loss(model.loss, training)
            kept = {"best": chosen.train.keep == "best", "writes": devices.first}
            saving = Checkpoint(folder, identity, log, **kept, listener=listener)
            progress = Progress("+".join(targets), chosen.train.epochs)
            _fit_epochs(model, chosen.train, (training, validation), saving, progress, devices)
        if devices.first and chosen.train.keep == "best":
            best, _ = checkpoint.load(folder / "best", best_epoch(log))
            _assign("weights", model.weights, best)
    if devices.first:
        _finish(network, log, path)


def _identity(
    chosen: recipe.Recipe,
    targets: tuple[str, ...],
    fitted: Mapping[str, Any],
    training: CaseBatches,
    validation: CaseBatches,
) -> dict[str, Any]:
    """Everything that a training depends on; the devices do not belong to it."""
    return {
        "recipe": recipe.to_tree(chosen),
        "fitted": dict(fitted),
        "targets": list(targets),
        "data": training.store.fingerprint,
        "cases": [list(training.case_ids), list(validation.case_ids)],
    }


def _tell_start(
    listener: Listener, chosen: recipe.Recipe, folder: Path, log: Sequence[dict]
) -> None:
    epochs = chosen.train.epochs
    listener(Event(STARTED, folder, len(log), epochs, recipe.fields(chosen)))
    if log:  # a process that died may not have told its last epoch
        listener(epoch_of(folder, log, epochs))


def _fit_epochs(
    model: keras.Model,
    train: recipe.Train,
    sides: tuple[CaseBatches, CaseBatches],
    saving: Checkpoint,
    progress: Progress,
    devices: Devices,
) -> None:
    """Train the epochs that are left, each of which adds a row to the log of `saving`."""
    done = len(saving.log)
    training, validation = sides
    callbacks = [
        ReseedDropout(train.seed),
        *schedule_callbacks(train, saving.log),
        saving,
        *([*tensorboard(saving.folder), progress] if devices.first else []),
        RefuseDivergence(),
    ]
    if devices.count > 1:
        _build_metrics(model, training)
    display = progress.display if devices.first else nullcontext()
    with display, interrupted_between_steps() as interruption:
        model.fit(
            devices.feed(training, range(done, train.epochs)),
            steps_per_epoch=training.steps_per_epoch,
            validation_data=devices.feed(validation, [0] * (train.epochs - done)),
            validation_steps=validation.steps_per_epoch,
            initial_epoch=done,
            epochs=train.epochs,
            callbacks=[*callbacks, interruption],
            shuffle=False,
            verbose=0,
        )


def _build_metrics(model: keras.Model, training: CaseBatches) -> None:
    """Let loss and metrics see a sample, so that Keras need not build them.

    On TensorFlow it would build them from the mean of the devices' parts of the first batch, which
    fails where these differ in size.
    """
    model.test_on_batch(*keras.tree.map_structure(lambda array: array[:1], training.batch(0, 0)))
    model._maybe_symbolic_build = lambda **_: None


def compile_network(
    chosen: recipe.Recipe,
    targets: tuple[str, ...],
    *,
    channels: int,
    wrap: Wrap | None = None,
    devices: int = 1,
) -> tuple[keras.Model, keras.Model]:
    """The network of a recipe with the weights that its seed gives, and the model to fit.

    The model shares all layers with the network. With auxiliary outputs it concatenates all outputs
    along the channel axis, to match the targets of a batch. If the loss is computed from logits
    (`train.loss_options.from_logits`) it puts these out, and the accuracy is still that of the
    probabilities. Otherwise, with a single output, both are the same object.

    Args:
        chosen: the recipe.
        targets: the regions that the network predicts.
        channels: image channels that the network sees.
        wrap: turns the model into the one that is compiled, see `tasks.Task.wrap`.
        devices: among which batches are divided, in whose scope this is called.

    Raises:
        ValueError: an optimizer, loss or precision does not exist, or the network lacks the
            auxiliary outputs.
    """
    train = chosen.train
    require_choice("train.optimizer", train.optimizer, OPTIMIZERS)
    check_schedule(train)
    make_deterministic(train.seed)
    with precision(train.precision):
        with _naming("model"):
            network = registry.build(
                chosen.model.name,
                input_shape=(*chosen.data.input_size, channels),
                classes=len(targets),
                **chosen.model.options,
            )
        with _naming("train.loss"):
            loss = losses.get(train.loss, **train.loss_options)
        model, activation = _model_to_fit(
            network, (*targets, *chosen.model.auxiliary), losses.takes_logits(loss)
        )
        with _naming("train.precision"):
            _refuse_undefined_gradients(network)
        model = spread(model, devices)
        if wrap is not None:
            model = wrap(model)
        with _naming("train.optimizer_options"):
            optimizer = OPTIMIZERS[train.optimizer](train.learning_rate, **train.optimizer_options)
        if train.precision == "mixed_float16":
            # Keras would add it by the policy of the model; that of AugmentedModel is float32.
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        model.compile(optimizer, loss, metrics=_metrics(train, targets, activation))
        # Before the first step: TensorFlow traces a step that creates variables twice.
        model.optimizer.build(model.trainable_variables)
    return network, model


def _metrics(
    train: recipe.Train, targets: tuple[str, ...], activation: str
) -> list[keras.metrics.Metric]:
    metrics: list[keras.metrics.Metric] = [MainAccuracy(len(targets), activation)]
    if "dice" in train.schedule_options.get("monitor", ""):
        metrics.append(MainDice(len(targets), activation))
    for channel, name in enumerate(targets):
        metrics.append(RegionDice(channel, len(targets), activation, name=f"dice_{name}"))
    return metrics


@contextmanager
def precision(policy: str) -> Iterator[None]:
    """Layers created in this context have this dtype policy, such as "mixed_bfloat16"."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def make_deterministic(seed: int) -> None:
    """Seed Python, NumPy and the backend; on TensorFlow also choose deterministic kernels."""
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf  # noqa: PLC0415 - not installed beside other backends

        tf.config.experimental.enable_op_determinism()


def _refuse_undefined_gradients(network: keras.Model) -> None:
    """Refuse 3-D convolutions in bfloat16 whose weight gradients some CPUs leave undefined.

    oneDNN 3.7.3, the CPU library of TensorFlow 2.21, does not write all of them on processors with
    AVX-512 but no AMX if a map is smaller than the kernel: what is left there is whatever memory
    had. `python benchmarks/bfloat16_gradients.py` shows for which sizes. Whether this processor is
    one of them is not asked, so that a recipe runs on every CPU or on none.
    """
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf  # noqa: PLC0415 - not installed beside other backends

    if tf.config.list_physical_devices("GPU"):
        return
    # Those of Rematerialized too. The larger map of a transposed one, with stride 2, has at least
    # two voxels, which is enough for the 3x3x3 kernels here.
    for layer in network._flatten_layers():
        if not isinstance(layer, keras.layers.Conv3D) or layer.compute_dtype != "bfloat16":
            continue
        if max(layer.dilation_rate) > 1:  # TensorFlow pads the maps, and convolves without dilation
            continue
        size = layer.input.shape[1:-1]
        if any(found < kernel for found, kernel in zip(size, layer.kernel_size)):
            kernel = "x".join(map(str, layer.kernel_size))
            raise ValueError(
                f"found mixed_bfloat16 and maps of {'x'.join(map(str, size))} voxels under the "
                f"{kernel} kernel of {layer.name}, expected maps as large as the kernel: on "
                f"some CPUs its gradient would be undefined. Use float32, or larger patches."
            )


def check_loss(chosen: recipe.Recipe, network: keras.Model, model: keras.Model) -> None:
    """Check that the compiled loss accepts the network's output, on small maps of zeros.

    Raises:
        ValueError: naming the field.
    """
    size = [min(length, 16) for length in chosen.data.input_size]
    outputs = sum(output.shape[-1] for output in network.outputs)
    targets = network.outputs[0].shape[-1] + len(chosen.model.auxiliary)
    y_true, y_pred = (np.zeros((1, *size, channels), np.float32) for channels in (targets, outputs))
    loss = model.loss.trial() if hasattr(model.loss, "trial") else model.loss
    try:
        loss(y_true, y_pred)
    except Exception as error:  # each backend raises its own errors for shapes that do not fit
        raise ValueError(f"train.loss {chosen.train.loss}: {error}") from error


def _teach_loss(loss: keras.losses.Loss, training: CaseBatches) -> None:
    """Let a loss learn from the label maps of the training cases, if it is one that learns."""
    if not isinstance(loss, losses.CrossEntropyAndLearnedEdge):
        return
    dice = loss.learn(_label_maps(training, epochs=loss.options["steps"]))
    text = f"  edge network: learned from label maps, Dice of their edges {dice:.4f}"
    print(text, flush=True)


def _label_maps(training: CaseBatches, epochs: int) -> Iterator[np.ndarray]:
    """The labels of one epoch after the other, until one has no object at all."""
    for epoch in range(epochs):
        objects = False
        for step in range(training.steps_per_epoch):
            labels = training.batch(epoch, step)[1]
            objects = objects or bool(labels.any())
            yield labels
        if not objects:
            return


@contextmanager
def _naming(field: str) -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ValueError(f"{field}: {error}") from error


def _model_to_fit(
    network: keras.Model, targets: tuple[str, ...], from_logits: bool
) -> tuple[keras.Model, str]:
    """The model of `compile_network`, and the activation that makes probabilities of its output."""
    found = sum(output.shape[-1] for output in network.outputs)
    if found % len(targets):
        raise ValueError(
            f"model.auxiliary: found the targets {', '.join(targets)}, expected {found}, or a "
            f"number that divides it: {network.name} has {found} output channels."
        )
    outputs, activation = logits_of(network) if from_logits else (network.outputs, "linear")
    if len(outputs) > 1:
        outputs = [keras.layers.Concatenate(dtype="float32", name="outputs")(outputs)]
    elif not from_logits:
        return network, activation
    return keras.Model(network.input, outputs[0], name=network.name), activation


def _find_checkpoint(folder: Path, identity: dict) -> tuple[dict[str, np.ndarray], list[dict]]:
    """Arrays and log of the newest intact checkpoint; both empty if there is none."""
    found = checkpoint.load_latest(folder)
    if found is None:
        return {}, []
    arrays, record = found
    if difference := _difference(record["identity"], identity):
        raise DataError(
            folder,
            found=f"a training with {difference}",
            expected="one of the same recipe and data",
            remedy="Choose another run folder (OUT=, --out), or delete the whole run.",
        )
    return arrays, record["log"]


def _restore(model: keras.Model, arrays: dict[str, np.ndarray]) -> None:
    _assign("weights", model.weights, arrays)
    _assign("optimizer", model.optimizer.variables, arrays)


def _assign(kind: str, variables: list, arrays: dict[str, np.ndarray]) -> None:
    for index, variable in enumerate(variables):
        variable.assign(arrays[f"{kind}/{index:04d}"])


def _difference(found: dict, expected: dict) -> str:
    # Compared as recipes: a field that is newer than the checkpoint has its default there.
    ours, theirs = (recipe.from_json(json.dumps(r["recipe"])) for r in (expected, found))
    if changed := recipe.differences(ours, theirs):
        field, (now, then) = next(iter(changed.items()))
        return f"{field} = {then!r} (now {now!r})"
    if found["data"] != expected["data"]:
        return f"data {found['data'][:12]} (now {expected['data'][:12]})"
    same = all(found.get(key) == expected[key] for key in ("targets", "cases", "fitted"))
    return "" if same else "other targets or another split of the cases"


def _finish(model: keras.Model, log: list[dict], path: Path) -> None:
    """Write the model, after the log, whose last row a process that died may not have written."""
    write_log(path.parent, log)
    with tempfile.TemporaryDirectory() as scratch:
        model.save(Path(scratch) / path.name)
        write_atomic(path, (Path(scratch) / path.name).read_bytes())
