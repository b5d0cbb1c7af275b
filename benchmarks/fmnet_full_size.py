"""What FM-Net takes at full size: seconds and peak memory of training steps and of a whole case.

    python -m benchmarks.fmnet_full_size BRATS --out FOLDER [--steps 4] [--set FIELD=VALUE ...]

The recipe of fmnet2023 (crops of 128x128x128, 32 filters), one crop at a time, in float32, with
gradient checkpointing. A first process takes some training steps on the training
cases; a second one predicts a validation case on its full grid by windows, writes the label map and
scores it. Peaks are those of the two processes, framework and all.
"""

import argparse
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

CHANGES = {
    "data.validation": 0.2,
    "data.test": 0.0,
    "train.batch_size": 1,
    "train.precision": "float32",
    "model.options.checkpointing": True,
}
GIB = 2**30 if sys.platform == "darwin" else 2**20  # of what getrusage counts in


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="a folder of BraTS cases, two or more patients")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--set", action="append", default=[])
    arguments = parser.parse_args()
    for phase in (train, predict):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            process.submit(measured, phase, arguments).result()


def measured(phase, arguments: argparse.Namespace) -> None:
    """Run a phase and print what this process has held at most."""
    from keras_medseg import recipe
    from keras_medseg.runs import papers, steps
    from keras_medseg.tasks import task_of

    changes = CHANGES | recipe.parse_assignments(arguments.set)
    chosen = recipe.override(papers.recipe_module("fmnet2023").RECIPE, changes)
    task = task_of(chosen)
    phase(task, steps.load_cohort(arguments.data, arguments.out / "store", task), arguments)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / GIB
    print(f"{phase.__name__}: peak {peak:.1f} GiB", flush=True)


def train(task, cohort, arguments: argparse.Namespace) -> None:
    """Some steps, each timed; the network as it then is goes to model.keras."""
    from keras_medseg.training import fit

    (targets,) = task.recipe.model.targets
    channels = task.channels(cohort.channels)
    network, model = fit.compile_network(task.recipe, targets, channels=channels, wrap=task.wrap)
    batches = task.batches(cohort.store, cohort.training, targets, training=True)
    for number in range(arguments.steps):
        epoch, step = divmod(number, batches.steps_per_epoch)
        started = time.perf_counter()
        loss = model.train_on_batch(*batches.batch(epoch, step), return_dict=True)["loss"]
        seconds = time.perf_counter() - started
        print(f"step {number + 1}: loss {float(loss):.3f}, {seconds:.1f} s", flush=True)
    network.save(arguments.out / "model.keras")


def predict(task, cohort, arguments: argparse.Namespace) -> None:
    """One validation case: label map, seconds, Dice."""
    import keras

    from keras_medseg.inference.outputs import main_output

    network = keras.saving.load_model(arguments.out / "model.keras", compile=False)
    networks = {task.recipe.model.targets[0]: main_output(network)}
    case = cohort.store.cases[cohort.validation[0]]
    started = time.perf_counter()
    labels = task.predict(networks, case)
    seconds = time.perf_counter() - started
    task.write(arguments.out / f"{case.id}.nii.gz", labels, case)
    dice = ", ".join(f"{row['region']} {row['dice']:.2f}" for row in task.score(labels, case))
    size = "x".join(map(str, labels.shape))
    print(f"{case.id}, {size} voxels: {seconds:.0f} s; Dice {dice}", flush=True)


if __name__ == "__main__":
    main()
