"""Experiment trackers as listeners of a run: MLflow and Weights & Biases, imported when asked for.

Every network is a run of the tracker, and the finished run folder is one more, with the scores and
the files. tracking.json in the run folder keeps their ids, so that a resumed run goes on in them.
"""

import importlib
import json
import os
import re
import secrets
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from keras_medseg.errors import require_choice
from keras_medseg.files import locked, read_file, write_json
from keras_medseg.training.events import EPOCH, FINISHED, STARTED, Event, Listener

RECORD = "tracking.json"
PROJECT = "keras_medseg"
"""Experiment (MLflow) or project (Weights & Biases) unless their own variables name another."""


def tracker(name: str, out: Path) -> Listener:
    """The listener that passes a run on to a tracker, which its own variables configure.

    What fails later than here, such as a server that cannot be reached, is a warning: log.csv has
    every epoch, and the training goes on.

    Args:
        name: "mlflow" or "wandb".
        out: the run folder.

    Raises:
        ValueError: an unknown tracker, or one that is not installed or refuses its configuration.
    """
    require_choice("--tracking", name, _TRACKERS)
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"--tracking: found no package {name} ({error}), expected it beside this one. Run: "
            f"python -m pip install {name}"
        ) from error
    try:
        passed_on = _TRACKERS[name](module, out)
    except Exception as error:  # each tracker has its own
        raise ValueError(f"--tracking {name}: {_brief(error)}") from error

    def tell(event: Event) -> None:
        try:
            passed_on(event)
        except Exception as error:
            text = f"--tracking {name}: {_brief(error)} The training goes on without it."
            warnings.warn(text, stacklevel=2)

    return tell


def _mlflow(module: Any, out: Path) -> Listener:
    client = module.MlflowClient()
    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)

    def begin(name: str) -> str:
        found = client.get_experiment_by_name(experiment)
        place = found.experiment_id if found else client.create_experiment(experiment)
        return client.create_run(place, run_name=name).info.run_id

    def tell(event: Event) -> None:
        run = _id(out, "mlflow", event, begin)
        if event.kind == STARTED:
            client.update_run(run, status="RUNNING")
        for name, value in event.parameters.items():
            client.log_param(run, name, value)
        for name, number in event.metrics.items():
            client.log_metric(run, _key(name), number, step=event.epoch)
        for name, path in event.artifacts.items():
            folder = name.rpartition("/")[0]
            client.log_artifact(run, str(path), folder or None)
        if _is_last(event):
            client.set_terminated(run)

    return tell


def _wandb(module: Any, out: Path) -> Listener:
    opened: dict[str, Any] = {}

    def tell(event: Event) -> None:
        run_id = _id(out, "wandb", event, lambda _: secrets.token_hex(8))
        if run_id not in opened:
            opened[run_id] = module.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                id=run_id,
                name=_name(out, event),
                group=out.name,
                resume="allow",
                reinit="create_new",
                config=dict(event.parameters),
                settings=module.Settings(console="off"),  # the terminal is ours
            )
        run = opened[run_id]
        if event.kind == EPOCH:
            run.log({"epoch": event.epoch, **event.metrics})
        elif event.kind == FINISHED:
            run.summary.update(dict(event.metrics))
            files = module.Artifact(_key(out.name).replace(" ", "-"), type="run")
            for name, path in event.artifacts.items():
                files.add_file(str(path), name=name)
            run.log_artifact(files)
        if _is_last(event):
            opened.pop(run_id).finish()

    return tell


_TRACKERS: Mapping[str, Callable[[Any, Path], Listener]] = {"mlflow": _mlflow, "wandb": _wandb}
NAMES = tuple(_TRACKERS)


def _brief(error: Exception) -> str:
    """What a tracker says, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def _is_last(event: Event) -> bool:
    return event.kind == FINISHED or (event.kind == EPOCH and event.epoch == event.epochs)


def _name(out: Path, event: Event) -> str:
    """The name in the tracker: "run", "run/main-WT" or "run/fold0/main-WT"."""
    inner = event.folder.resolve().relative_to(out.resolve()).parts
    return "/".join([out.resolve().name, *(part for part in inner if part != "training")])


def _id(out: Path, tracked_by: str, event: Event, begin: Callable[[str], str]) -> str:
    """The tracker's id of the run of an event, from tracking.json; a new one by `begin`."""
    path, name = out / RECORD, _name(out, event)
    # Folds may be trained side by side, each by a process that holds the lock of its own fold.
    with locked(out / ".tracking", f"writes {RECORD}"):
        known: dict[str, dict[str, str]] = {}
        if path.exists():
            remedy = "Delete it; the tracker then shows the rest as new runs."
            known = read_file(path, _parse, remedy)
        ids = known.setdefault(tracked_by, {})
        if name not in ids:
            ids[name] = begin(name)
            write_json(path, known)
        return ids[name]


def _parse(text: str) -> dict[str, dict[str, str]]:
    content = json.loads(text)
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise ValueError(f"{type(content).__name__}, not names and ids")
    return content


def _key(text: str) -> str:
    """A name that MLflow takes: letters, digits and _ - . space / alone."""
    return re.sub(r"[^\w\-. /]", "_", text, flags=re.ASCII)
