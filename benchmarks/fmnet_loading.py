"""Table I of fmnet2023: what half precision and loading on the accelerator save.

    python -m benchmarks.fmnet_loading [--data STORE] [--patch 128] [--filters 32] [--batch 4]

Seconds per epoch of the paper's sample U-Net (four modalities, three dimensions) four times: with
neither, with mixed precision ("AMP"), with the augmentation inside the training step ("DALI", whose
counterpart it is), and with both; beside the paper's seconds on an RTX 3090. Ratios are to the
first of the same run. Without --data synthetic cases are decoded first. On a CPU the default is a
small patch and few filters, and the table says so.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

SIZES = {"gpu": (128, 32), "cpu": (32, 4)}  # patch along every axis, filters of the first level
PAPER = {"none": 1051, "AMP": 640, "DALI": 148, "DALI and AMP": 95}  # Table I, seconds
CONFIGURATIONS = {  # precision, and whether the training step does the augmentation
    "none": ("float32", False),
    "AMP": ("mixed_float16", False),
    "DALI": ("float32", True),
    "DALI and AMP": ("mixed_float16", True),
}


def main() -> None:
    arguments = _parser().parse_args()
    import keras

    from keras_medseg.data import store
    from keras_medseg.data.datasets import brats
    from keras_medseg.phantoms import brats as phantom

    on_cpu = all(name.startswith("cpu") for name in keras.distribution.list_devices())
    patch, filters = SIZES["cpu" if on_cpu else "gpu"]
    arguments.patch = arguments.patch or patch
    arguments.filters = arguments.filters or filters
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.data:
            decoded = store.open_store(arguments.data)
        else:
            folder = Path(scratch) / "cases"
            size = (120, 120, 80)
            phantom.write_brats(folder, cases=arguments.cases, layout="BraTS2021", shape=size)
            found = brats.Brats().find(folder).cases
            decoded = store.prepare(found, brats.Brats().read, Path(scratch) / "store")
        print_table(measure(decoded, arguments), arguments, len(decoded.cases))
    if on_cpu:
        print(
            "On a CPU, of a small size unless --patch and --filters say otherwise: float16 is "
            "emulated, and what is done within the training step runs on the same cores."
        )


def measure(decoded, arguments: argparse.Namespace) -> dict[str, float]:
    """Seconds per epoch of each configuration: the least of some epochs after a first one."""
    size = {"patch": arguments.patch, "filters": arguments.filters, "batch": arguments.batch}
    epochs = {name: one_epoch(decoded, configuration(name, **size)) for name in CONFIGURATIONS}
    for run in epochs.values():
        run()  # compiles
    seconds = {name: [] for name in epochs}
    for _ in range(arguments.repeat):  # in turn, so that a busy machine is busy for all
        for name, run in epochs.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return {name: min(values) for name, values in seconds.items()}


def configuration(name: str, *, patch: int, filters: int, batch: int):
    """The recipe of one of CONFIGURATIONS: the sample U-Net with FM-Net's data and optimizer.

    Args:
        name: of the configuration, as in Table I.
        patch: voxels of a crop along every axis.
        filters: of the first level.
        batch: crops in a batch.
    """
    from keras_medseg import recipe
    from keras_medseg.runs import papers

    paper = papers.recipe_module("fmnet2023")
    precision, on_device = CONFIGURATIONS[name]
    return recipe.override(
        paper.RECIPE,
        {
            **paper.UNET,
            "model.options.filters": filters,
            "data.patch": (patch,) * 3,
            "data.augment_on_device": on_device,
            "train.batch_size": batch,
            "train.precision": precision,
        },
    )


def one_epoch(decoded, chosen) -> Callable[[], None]:
    """A function that trains one epoch of a recipe on all cases."""
    import keras

    from keras_medseg.data.batches import feeding
    from keras_medseg.tasks import task_of
    from keras_medseg.training import fit

    task, (targets,) = task_of(chosen), chosen.model.targets
    feed = task.batches(decoded, sorted(decoded.cases), targets, training=True)
    _, model = fit.compile_network(chosen, targets, channels=4, wrap=task.wrap)
    if keras.backend.backend() == "tensorflow":
        data = feeding.tf_dataset(feed)
        return lambda: model.fit(data, epochs=1, shuffle=False, verbose=0)
    return lambda: model.fit(feeding.py_dataset(feed), epochs=1, shuffle=False, verbose=0)


def print_table(seconds: dict[str, float], arguments: argparse.Namespace, cases: int) -> None:
    """The paper's seconds and ratios beside ours."""
    import keras

    size = f"{arguments.patch}^3, {arguments.filters} filters, batches of {arguments.batch}"
    print(f"{keras.backend.backend()}, {cases} cases, {size}")
    print(f"{'':14}{'paper, s':>10}{'ratio':>8}{'measured, s':>14}{'ratio':>8}")
    for name, value in seconds.items():
        paper = PAPER[name]
        ratios = paper / PAPER["none"], value / seconds["none"]
        print(f"{name:14}{paper:>10}{ratios[0]:>8.2f}{value:>14.2f}{ratios[1]:>8.2f}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a prepared store (keras-medseg prepare)")
    parser.add_argument("--cases", type=int, default=8, help="synthetic cases without --data")
    parser.add_argument("--patch", type=int, help="along every axis; 128, on a CPU 32")
    parser.add_argument("--filters", type=int, help="of the first level; 32, on a CPU 4")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=3)
    return parser


if __name__ == "__main__":
    main()
