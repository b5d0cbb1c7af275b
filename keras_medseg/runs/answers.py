"""What is told to programs (`--json`, listeners): what was written where, and its numbers."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from keras_medseg.evaluation.statistics import summarize
from keras_medseg.files import json_rows, read_file
from keras_medseg.runs.predict_folder import RECORD
from keras_medseg.runs.run_folder import RunFolder
from keras_medseg.training.events import FINISHED, Event

_TOLD = {".html", ".csv", ".json", ".md"}
_AGAIN = "Give the command again."


def of_run(out: Path) -> dict[str, Any]:
    """A finished run: its folder, data, files, and the scores of every variant and region.

    Args:
        out: the run folder.

    Raises:
        DataError: the run is not finished.
    """
    run = RunFolder(out)
    return {
        "run": str(out),
        **{name: run.run[name] for name in ("profile", "data", "variants")},
        "trainings": [str(part.path) for part in run.parts],
        "report": str(run.report_file),
        "scores": _means(run),
    }


def finished_event(run: RunFolder) -> Event:
    """What listeners are told of a finished run: mean scores, networks, and the files beside them.

    Raises:
        DataError: the run is not finished.
    """
    metrics = {
        f"{row['variant']}/{row['region']}/{row['metric']}": row["mean"] for row in _means(run)
    }
    files = [path for path in run.path.iterdir() if path.suffix in _TOLD]
    files += [file for part in run.parts for file in part.path.glob("training/*/model.keras")]
    artifacts = {path.relative_to(run.path).as_posix(): path for path in sorted(files)}
    return Event(FINISHED, run.path, metrics=metrics, artifacts=artifacts)


def _means(run: RunFolder) -> list[dict[str, Any]]:
    """Mean and interval of every metric that is a number for all cases, as the report has them."""
    scores = run.scores()
    known = run.variant(run.run["variants"][0]).task.dataset.metrics
    whole = [name for name in known if name in scores and np.isfinite(scores[name]).all()]
    return json_rows(summarize(scores, whole)) if whole and len(scores) else []


def of_predictions(out: Path) -> dict[str, Any]:
    """The label maps of a folder, beside what its predictions.json says of them.

    Raises:
        DataError: the folder has no predictions.
    """
    facts = read_file(out / RECORD, json.loads, _AGAIN)
    cases = facts.pop("cases")
    there = [name for name in cases if (out / name).exists()]
    return {"out": str(out), "label_maps": there, "cases": len(cases), **facts}


def of_evaluation(out: Path, page: Path) -> dict[str, Any]:
    """An evaluation on other data sets: its page, and what its evaluation.json says.

    Raises:
        DataError: the folder has no evaluation.
    """
    return {"page": str(page), **read_file(out / "evaluation.json", json.loads, _AGAIN)}
