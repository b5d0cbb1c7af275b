"""What a full run of each paper takes on one GPU: arithmetic, nothing of it is measured.

    python benchmarks/full_runs.py [--share 0.3]

For the first variant of the profile `paper`, and for all its variants: a training step costs three
times the multiply-adds of an inference (the gradients of inputs and of weights are two more), and
after every epoch the validation samples are predicted once. Divided by a share of the GPU's peak at
the recipe's precision, that is hours. The share is an assumption: norms, activations and reading
are not counted, and depthwise convolutions reach much less of a peak than dense ones.
"""

import argparse
import math
import os
from dataclasses import dataclass
from functools import cache

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from keras_medseg import recipe
from keras_medseg.recipe import Images, Patches, Recipe, Slices
from keras_medseg.runs import papers
from keras_medseg.runs.experiment import Experiment
from keras_medseg.runs.run_folder import trained_as

FORWARDS = 3  # of a training step: the output, the gradients of the inputs, those of the weights
# Dense peaks in 10^12 floating-point operations a second, a multiply-add being two: of FP32 without
# tensor cores, and of FP16 in tensor cores that add in FP32. From NVIDIA's data sheet of the A100
# (2021, 80 GB SXM) and its white paper on GA102 (version 2, 2021, appendix A).
PEAKS = {
    "RTX 3090": {"float32": 35.6, "mixed_float16": 71.0},
    "A100": {"float32": 19.5, "mixed_float16": 312.0},
}
LABELLED = {"mtds2021": 369}  # of its 494 cases, 125 have no public annotation


@dataclass(frozen=True)
class Cost:
    """Of one or more trainings.

    Attributes:
        trainings: their number.
        steps: of the optimizer.
        multiply_adds: of everything.
        hours: GPU -> hours.
    """

    trainings: int
    steps: int
    multiply_adds: float
    hours: dict[str, float]

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.trainings + other.trainings,
            self.steps + other.steps,
            self.multiply_adds + other.multiply_adds,
            {gpu: hours + other.hours[gpu] for gpu, hours in self.hours.items()},
        )


def samples(chosen: Recipe, cases: int) -> int:
    """Samples of so many cases in one epoch: slices, crops or images."""
    data = chosen.data
    if isinstance(data, Slices):
        return cases * len(range(0, data.window[2], data.slice_step))
    if isinstance(data, Patches) and data.slices:
        return cases * data.patch[2]
    assert isinstance(data, Patches | Images)
    return cases


def channels(chosen: Recipe) -> int:
    """Of the network's input."""
    from keras_medseg import registry

    modalities = getattr(chosen.data, "modalities", ())
    return len(modalities) or registry.card(chosen.model.name).input_shape[-1]


def inference(chosen: Recipe, targets: tuple[str, ...]) -> int:
    """Multiply-adds of a recipe's network on one sample."""
    shape = (*chosen.data.input_size, channels(chosen))
    options = tuple(sorted(chosen.model.options.items()))
    return _inference(chosen.model.name, shape, len(targets), options)


@cache
def _inference(name: str, shape: tuple[int, ...], classes: int, options: tuple) -> int:
    import keras

    from keras_medseg import registry
    from keras_medseg.inference import complexity

    keras.utils.clear_session()
    network = registry.build(name, input_shape=shape, classes=classes, **dict(options))
    return complexity.multiply_adds(network)


def cost(chosen: Recipe, cases: int, share: float) -> Cost:
    """Of all networks of one variant.

    Args:
        chosen: the variant's recipe.
        cases: for training, validation and test together.
        share: of the peak that is assumed.
    """
    validation = round(chosen.data.validation * cases)
    training = cases - validation - round(chosen.data.test * cases)
    train = chosen.train
    learned, checked = (train.epochs * samples(chosen, side) for side in (training, validation))
    steps = train.epochs * math.ceil(samples(chosen, training) / train.batch_size)
    once = sum(inference(chosen, targets) for targets in chosen.model.targets)
    operations = once * (FORWARDS * learned + checked)
    hours = {
        gpu: 2 * operations / (share * peaks[train.precision] * 1e12) / 3600
        for gpu, peaks in PEAKS.items()
    }
    networks = len(chosen.model.targets)
    return Cost(networks, networks * steps, operations, hours)


def costs(paper: str, experiment: Experiment, share: float) -> tuple[str, Cost, Cost]:
    """The name of the first variant of the profile `paper`, its cost, and the cost of all.

    Of one seed each. A variant that changes nothing but the prediction has another one's networks.
    """
    profile = experiment.profiles["paper"]
    base = recipe.override(experiment.recipe, profile.changes)
    cases = LABELLED.get(paper, experiment.reference.cases)
    variants = {name: recipe.override(base, v) for name, v in profile.variants.items()}
    trained = [name for name, source in trained_as(variants).items() if name == source]
    each = [cost(variants[name], cases, share) for name in trained]
    return trained[0], each[0], sum(each[1:], each[0])


def line(name: str, found: Cost) -> str:
    """A row of the table."""
    hours = (f"{found.hours[gpu]:,.1f}" for gpu in PEAKS)
    cells = (
        *(name, f"{found.trainings}", f"{found.steps:,}", f"{found.multiply_adds / 1e15:,.1f}"),
        *hours,
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--share", type=float, default=0.3, help="of a GPU's peak, assumed")
    arguments = parser.parse_args()
    print("| | networks | steps | multiply-adds, 10^15 |", *(f"{gpu}, h |" for gpu in PEAKS))
    print("|---|--:|--:|--:|" + "--:|" * len(PEAKS))
    for paper in papers.names():
        for dataset, experiment in papers.recipe_module(paper).EXPERIMENTS.items():
            first, own, everything = costs(paper, experiment, arguments.share)
            print(line(f"{paper} on {dataset}: {first}", own), flush=True)
            if everything != own:
                print(line(f"{paper} on {dataset}: all variants", everything), flush=True)


if __name__ == "__main__":
    main()
