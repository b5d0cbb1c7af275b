"""The command predict: label maps of new cases, by the networks of runs."""

import argparse
from pathlib import Path

from keras_medseg.cli.arguments import add_scheduler
from keras_medseg.cli.output import Answer, add_output

_OPTIONS = "flips", "threshold", "overlap", "probabilities", "uncertainty", "precision"
"""Arguments that are fields of `predict_folder.Options`, which says what they do."""


def predict(arguments: argparse.Namespace) -> Answer:
    """Write label maps (NIfTI or PNG) for a folder of cases with the networks of runs."""
    from keras_medseg import cluster
    from keras_medseg.runs import answers, installed
    from keras_medseg.runs.members import members
    from keras_medseg.runs.predict_folder import WHOLE, Options, Part, predict_with

    options = {
        name: getattr(arguments, name) for name in _OPTIONS if getattr(arguments, name) is not None
    }
    with cluster.connected(arguments.scheduler) as tasks:
        told = predict_with(
            members([*map(installed.checked, arguments.run)], arguments.variant),
            arguments.data,
            arguments.out,
            Options(**options),
            part=Part.parse(arguments.part) if arguments.part else WHOLE,
            overwrite=arguments.overwrite,
            cluster=tasks,
        )
    print(told)
    return Answer(lambda: answers.of_predictions(arguments.out))


def add_predict_arguments(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `predict`."""
    sub.add_argument(
        "run",
        nargs="+",
        help="run folder, or RUN:VARIANT; the probabilities of several are averaged",
    )
    sub.add_argument("data", type=Path, help="folder of the cases")
    sub.add_argument("out", type=Path, help="folder of the label maps")
    sub.add_argument("--variant", help="which of a run's variants (default: the first)")
    sub.add_argument(
        "--flips",
        metavar="AXES",
        help="average over inputs mirrored along all sets of these axes: x, xy, xyz, ... (images: "
        "x are rows, y columns; default: as the recipe says)",
    )
    sub.add_argument(
        "--threshold", type=float, metavar="P", help="belongs to a region above it (default: 0.5)"
    )
    sub.add_argument(
        "--overlap", type=float, metavar="SHARE", help="of the sliding window (default: recipe)"
    )
    sub.add_argument(
        "--probabilities", action="store_true", help="write them to OUT/probabilities/REGION/"
    )
    sub.add_argument(
        "--uncertainty",
        action="store_true",
        help="write OUT/entropy/REGION/ and, of several runs, OUT/disagreement/REGION/",
    )
    sub.add_argument(
        "--precision",
        metavar="POLICY",
        help="mixed_bfloat16 or mixed_float16 is faster where the processor has it (default: as "
        "trained)",
    )
    sub.add_argument(
        "--part", metavar="K/N", help="the K-th of N parts of the cases, for jobs side by side"
    )
    sub.add_argument("--overwrite", action="store_true", help="predict again what is there")
    add_output(sub)
    add_scheduler(sub)
