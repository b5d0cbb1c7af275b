"""`train.init`: networks that start from trained weights, and the record of what they took."""

import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import keras

from keras_medseg.files import read_bytes, write_json
from keras_medseg.recipe import Recipe
from keras_medseg.runs.predictor import open_members
from keras_medseg.runs.run_folder import INITIAL
from keras_medseg.tasks import task_of
from keras_medseg.training import fit
from keras_medseg.training.initial import Taken, take_weights


class _Source(NamedTuple):
    """A trained network to start from.

    Attributes:
        network: with all its outputs.
        regions: that it predicts, such as "WT".
        weights_sha256: of its file.
        facts: run.json of its training.
    """

    network: keras.Model
    regions: str
    weights_sha256: str
    facts: dict[str, Any]


def check_initial(chosen: Recipe, channels: int) -> None:
    """Open the weights of `train.init`, if there are any, for every network of a recipe.

    Args:
        chosen: the recipe.
        channels: image channels of the cases.

    Raises:
        DataError: they are damaged.
        ValueError: there are no such weights, or nothing of them fits.
    """
    if not chosen.train.init:
        return
    task = task_of(chosen)
    for targets in chosen.model.targets:
        network, _ = fit.compile_network(
            chosen, targets, channels=task.channels(channels), wrap=task.wrap
        )
        with _opened(chosen.train.init, targets) as source:
            _take(chosen.train.init, network, source)
        keras.utils.clear_session()


def start(
    chosen: Recipe, targets: tuple[str, ...], scored: Sequence[str], folder: Path
) -> Callable[[keras.Model], None] | None:
    """What gives a new network of a recipe its first weights; None if they are drawn at random.

    Args:
        chosen: the recipe.
        targets: the regions that the network predicts.
        scored: cases on which it will be scored.
        folder: of the network, for init.json, which says what was taken.
    """
    text = chosen.train.init
    if not text:
        return None

    def begin(network: keras.Model) -> None:
        with _opened(text, targets) as source:
            taken = _take(text, network, source)
        seen = sorted({*source.facts.get("training", ())} & {*scored})
        record = {
            "weights": text,
            "network": source.regions,
            "weights_sha256": source.weights_sha256,
            "trained_on": source.facts.get("data", ""),
            "scored_cases_among_its_training": seen,
            **asdict(taken),
        }
        write_json(folder / INITIAL, record)
        print(f"  starts from {text}, network of {source.regions}: {taken}", flush=True)
        if seen:
            warnings.warn(
                f"train.init: {text} was trained on cases called as {len(seen)} of the "
                f"{len(scored)} that are scored here, such as {seen[0]}. If they are the same, the "
                "scores are too good.",
                stacklevel=2,
            )

    return begin


def _take(text: str, network: keras.Model, source: _Source) -> Taken:
    with _named(f"train.init: {text}"):
        return take_weights(network, source.network)


@contextmanager
def _opened(text: str, targets: tuple[str, ...]) -> Iterator[_Source]:
    """The network of installed weights, an archive or a run that is nearest to these targets.

    That is the one with the same regions, otherwise the first of those that share most of them.
    """
    with ExitStack() as opened:
        with _named("train.init"):
            found = open_members(text, opened)
        if len(found) > 1:
            first = found[0].run.path
            raise ValueError(
                f"train.init: found {text}, a run of {len(found)} trainings, expected one, such as "
                f"{first}."
            )
        member = found[0]
        known = member.chosen.recipe.model.targets
        nearest = max(known, key=lambda other: (other == targets, len({*other} & {*targets})))
        network = member.run.network(member.variant, nearest, auxiliary=True)
        file = member.run.training(member.chosen.trained_as, nearest) / "model.keras"
        digest = hashlib.sha256(read_bytes(file, remedy="Train first.")).hexdigest()
        yield _Source(network, "+".join(nearest), digest, dict(member.run.run))


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Errors of values begin with this."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error
