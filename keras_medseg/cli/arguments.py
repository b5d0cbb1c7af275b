"""Arguments that commands in several of these modules have."""

import argparse
from collections.abc import Sequence


def add_dataset(sub: argparse.ArgumentParser) -> None:
    """Add --dataset and --classes."""
    sub.add_argument(
        "--dataset",
        metavar="NAME",
        help="kind of data, such as brats, image_folders or volume_folders, or a release such as "
        "BraTS2024-GLI (default: as the folder is recognized)",
    )
    sub.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME=CODE,CODE",
        help="gray values of each class in masks of several, or colors (#ff0000); those that do "
        "not matter: background=51,102 (default: as classes.json in the folder says)",
    )


def parse_classes(assignments: Sequence[str]) -> dict[str, tuple[int | str, ...]]:
    """{"bone": (51, 102)} of ["bone=51,102"]; codes may be colors such as #ff0000.

    Raises:
        ValueError: another form.
    """
    classes: dict[str, tuple[int | str, ...]] = {}
    for assignment in assignments:
        name, _, codes = assignment.partition("=")
        try:
            listed = codes.split(",")
            classes[name] = tuple(code if code[:1] == "#" else int(code) for code in listed)
        except ValueError as error:
            expected = "NAME=CODE,CODE with gray values or colors"
            raise ValueError(f"--classes: found {assignment!r}, expected {expected}.") from error
    return classes


def add_scheduler(sub: argparse.ArgumentParser) -> None:
    """Add --scheduler, for `cluster.connected`."""
    sub.add_argument(
        "--scheduler",
        metavar="ADDRESS|local:N",
        help="of a Dask cluster (tcp://host:8786), each of whose tasks is one case or training; "
        "local:N: N processes of this machine",
    )


def add_workers(sub: argparse.ArgumentParser) -> None:
    """Add --workers."""
    sub.add_argument("--workers", type=_at_least_one, help="processes (default: one per core)")


def _at_least_one(text: str) -> int:
    """A number of processes."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected 1 or more")
    return int(text)
