"""What commands answer to programs (`--json`): what was written where, and the numbers in it."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from keras_medseg.evaluation.statistics import summarize
from keras_medseg.files import read_file
from keras_medseg.runs.predict_folder import RECORD
from keras_medseg.runs.run_folder import RunFolder

_AGAIN = "Give the command again."


def of_run(out: Path) -> dict[str, Any]:
    """A finished run: its folder, data, files, and the scores of every variant and region.

    Args:
        out: the run folder.

    Raises:
        DataError: the run is not finished.
    """
    run = RunFolder(out)
    scores = run.scores()
    metrics = run.variant(run.run["variants"][0]).task.dataset.metrics
    return {
        "run": str(out),
        **{name: run.run[name] for name in ("profile", "data", "variants")},
        "trainings": [str(part.path) for part in run.parts],
        "report": str(run.report_file),
        "scores": records(summarize(scores, [name for name in metrics if name in scores])),
    }


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


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows for JSON; NaN becomes null."""
    return json.loads(table.to_json(orient="records", double_precision=15))
