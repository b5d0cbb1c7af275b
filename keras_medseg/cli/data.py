"""Commands about folders of cases: check, prepare, phantom."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_medseg.cli.arguments import add_dataset, add_scheduler, add_workers, parse_classes
from keras_medseg.cli.output import Answer, add_output

if TYPE_CHECKING:
    from keras_medseg.data.datasets.base import Dataset


def check(arguments: argparse.Namespace) -> Answer:
    """List all problems of a folder of cases; exit code 1 if there are any."""
    from keras_medseg.progress import progress_bar

    dataset = _dataset(arguments)
    with progress_bar("checking") as progress:
        report = dataset.check(arguments.data, progress=progress)
    print(report.text)
    problems = [
        {"severity": problem.severity, "case": problem.case_id, "message": problem.message}
        for problem in report.problems
    ]
    cases = [case.id for case in report.cases]
    facts = {"folder": str(report.folder), "cases": cases, "ok": report.ok, "problems": problems}
    return Answer(lambda: facts, 0 if report.ok else 1)


def add_check_arguments(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `check`."""
    sub.add_argument("data", type=Path)
    add_dataset(sub)
    add_output(sub)


def prepare(arguments: argparse.Namespace) -> Answer:
    """Decode a folder of cases once into a verified store."""
    from keras_medseg import cluster
    from keras_medseg.data import store
    from keras_medseg.progress import progress_bar

    if arguments.store.resolve() == arguments.data.resolve():
        raise ValueError(
            f"{arguments.store}: found the folder of the cases, expected one of its own for the "
            "store. Choose another one."
        )
    dataset = _dataset(arguments)
    cases = dataset.find(arguments.data, labelled=not arguments.unlabelled).cases
    if arguments.estimate:
        told = store.estimate(cases, dataset.read)
        print(f"{arguments.store}: {told}")
        return Answer(lambda: {"store": str(arguments.store), **asdict(told)})
    with (
        cluster.connected(arguments.scheduler) as tasks,
        progress_bar("decoding cases") as progress,
    ):
        made = store.prepare(
            cases,
            dataset.read,
            arguments.store,
            workers=tasks or arguments.workers,
            progress=progress,
        )
    print(f"{arguments.store}: {len(made.cases)} cases, fingerprint {made.fingerprint[:12]}")
    facts = {"store": str(arguments.store), "cases": list(made.cases)}
    return Answer(lambda: {**facts, "fingerprint": made.fingerprint})


def add_prepare_arguments(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `prepare`."""
    sub.add_argument("data", type=Path)
    sub.add_argument("store", type=Path)
    add_dataset(sub)
    sub.add_argument(
        "--spacing",
        type=float,
        nargs=3,
        metavar="MM",
        help="voxel size X Y Z to which volumes are resampled (default: as they lie)",
    )
    add_workers(sub)
    sub.add_argument("--unlabelled", action="store_true", help="cases have no annotation")
    add_output(sub)
    sub.add_argument(
        "--estimate", action="store_true", help="say how large the store will be; write nothing"
    )
    add_scheduler(sub)


def phantom(arguments: argparse.Namespace) -> None:
    """Write a synthetic data set in a real layout."""
    from keras_medseg import phantoms
    from keras_medseg.progress import progress_bar

    with progress_bar("synthetic cases") as progress:
        phantoms.write(
            arguments.folder,
            layout=arguments.layout,
            cases=arguments.cases,
            seed=arguments.seed,
            size=arguments.size and tuple(arguments.size),
            progress=progress,
        )
    print(f"{arguments.folder}: {arguments.cases} synthetic cases, layout {arguments.layout}")


def add_phantom_arguments(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `phantom`."""
    sub.add_argument("folder", type=Path)
    sub.add_argument("--cases", type=int, default=8)
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument(
        "--layout",
        default="BraTS2021",
        metavar="NAME",
        help="BraTS2017 to BraTS2025-MET, Decathlon, nnUNet, cases.csv, CVC-ClinicDB, ISIC2018, "
        "knee and others; an unknown name lists all (default: BraTS2021)",
    )
    sub.add_argument(
        "--size",
        "--shape",
        type=int,
        nargs="+",
        metavar="N",
        help="voxels X Y Z, or pixels ROWS COLUMNS (default: that of the real data)",
    )


def _dataset(arguments: argparse.Namespace) -> "Dataset":
    """The data set named by --dataset, otherwise the kind recognized in the folder DATA.

    Raises:
        ValueError: --classes in another form, or as `datasets.of_folder`.
    """
    from keras_medseg.data import datasets

    options: dict[str, Any] = {}
    if arguments.classes:
        options["classes"] = parse_classes(arguments.classes)
    if getattr(arguments, "spacing", None):
        options["spacing_mm"] = tuple(arguments.spacing)
    return datasets.of_folder(arguments.data, arguments.dataset or "", **options)
