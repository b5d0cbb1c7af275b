"""What a training tells to functions of the user: parameters, the numbers of epochs, files."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STARTED, EPOCH, FINISHED = "started", "epoch", "finished"


@dataclass(frozen=True)
class Event:
    """Something that has happened and is on disk.

    A network tells STARTED, then EPOCH after the checkpoint of every epoch; a resumed one tells its
    last epoch again, because the process may have died before that was heard. The run tells
    FINISHED when its report is written.

    Attributes:
        kind: STARTED, EPOCH or FINISHED.
        folder: of the network, `<run>/training/<variant>-<regions>` (of a run with folds or seeds
            `<run>/<part>/training/...`); of FINISHED the run folder.
        epoch: finished epochs.
        epochs: of the whole training.
        parameters: of STARTED, every field of the recipe, such as {"train.epochs": 20}.
        metrics: of EPOCH, the row of log.csv without the epoch; of FINISHED, the mean of every
            metric over the cases, such as {"main/WT/dice": 0.91}.
        artifacts: of FINISHED, path in the run folder -> file.
    """

    kind: str
    folder: Path
    epoch: int = 0
    epochs: int = 0
    parameters: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    artifacts: Mapping[str, Path] = field(default_factory=dict)


Listener = Callable[[Event], None]
"""A function of the user. It gets numbers and paths, and nothing of the training itself, so that
no listener changes a bit of a run."""


def nobody(event: Event) -> None:
    """The listener that does nothing."""


def epoch_of(folder: Path, log: Sequence[Mapping[str, float]], epochs: int) -> Event:
    """The event of the last epoch of a log.

    Args:
        folder: of the network.
        log: a row for every finished epoch, at least one.
        epochs: of the whole training.
    """
    row = {name: value for name, value in log[-1].items() if name != "epoch"}
    return Event(EPOCH, folder, len(log), epochs, metrics=row)


def to_all(listeners: Sequence[Listener]) -> Listener:
    """One listener that tells all of these."""

    def tell(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return tell
