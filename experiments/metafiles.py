"""What each paper published and what was measured here: `experiments/<paper>/metafile.toml`.

`text` says what we had of the paper and `real_data` on which real data it was trained so far, for
README's table of papers. An entry `[[results]]` is one measured training. README's table of results
is made from all of them (`make tables`); tests compare the numbers with the paper's own page and
with published.csv.
"""

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from keras_medseg.errors import DataError, require_choice
from keras_medseg.files import parse_csv, read_file

HOME = Path(__file__).parent
LOST = "lost"
"""In the place of published cells that our text of the paper does not have."""
NOT_SAID = "–"

_REMEDY = "Mend it; experiments/metafiles.py says what the entries mean."


@dataclass(frozen=True)
class Result:
    """One measured training beside the published experiment.

    Attributes:
        data: name of the data.
        score: what the numbers are, for readers.
        metric: the same in published.csv.
        measured: region -> number, as the paper's page prints it; perhaps with its 95 % interval.
        command: that made it.
        configuration: cases, profile, seeds, in a few words.
        time: of what, on `device`.
        memory_gb: the peak.
        device: that it ran on.
        why_other: why published and measured numbers cannot be compared; "" if they can.
        published: table, row and variant in published.csv; empty if nothing there belongs to it.
        weights_sha256: of the archive of `keras-medseg pack`; "" if the weights were not kept.
    """

    data: str
    score: str
    metric: str
    measured: dict[str, str]
    command: str
    configuration: str
    time: str
    memory_gb: float
    device: str
    why_other: str
    published: tuple[str, ...] = ()
    weights_sha256: str = ""


def read_results(paper: str) -> list[Result]:
    """The results of a paper; none if it has no metafile.toml yet.

    Raises:
        DataError: an entry is missing.
        ValueError: an entry is unknown.
    """
    path = HOME / paper / "metafile.toml"
    return [_result(path, entry) for entry in _read(path).get("results", [])]


def read_state(paper: str) -> tuple[str, str]:
    """What we had of the paper's text, and the real data that it was trained on so far."""
    entries = _read(HOME / paper / "metafile.toml")
    return entries.get("text", NOT_SAID), entries.get("real_data", NOT_SAID)


def _read(path: Path) -> dict[str, Any]:
    return read_file(path, tomllib.loads, _REMEDY) if path.exists() else {}


def published_values(paper: str, result: Result) -> dict[str, str]:
    """Region -> published number, as printed, for the regions that were measured.

    Raises:
        DataError: published.csv has no such row.
    """
    if not result.published:
        return {}
    table, row, variant = result.published
    rows = read_file(HOME / paper / "published.csv", parse_csv, _REMEDY)
    rows = rows[(rows["table"] == table) & (rows["row"] == row) & (rows["variant"] == variant)]
    cells = rows[rows["metric"] == result.metric].set_index("region")["value"]
    if missing := sorted(set(result.measured) - set(cells.index)):
        raise DataError(
            HOME / paper / "metafile.toml",
            found=f"no published {result.metric} of {', '.join(missing)} in {result.published}",
            expected="rows of published.csv",
            remedy=_REMEDY,
        )
    return {region: cells[region] or LOST for region in result.measured}


def results_table(papers: list[str]) -> str:
    """All results as a Markdown table."""
    titles = (
        "paper",
        "data",
        "score",
        "published",
        "measured",
        "differs by",
        "run",
        "cost",
        "weights",
    )
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for paper in papers:
        for result in read_results(paper):
            cells = (
                f"[{paper}](experiments/{paper}/README.md)",
                result.data,
                result.score,
                _cell(published_values(paper, result)) or NOT_SAID,
                _cell(result.measured),
                result.why_other or "nothing",
                result.configuration,
                f"{result.time}, {result.memory_gb:g} GB",
                f"`{result.weights_sha256[:12]}`" if result.weights_sha256 else "not kept",
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: dict[str, str]) -> str:
    if set(values.values()) == {LOST}:
        return LOST
    if len(values) == 1:
        return next(iter(values.values()))
    return ", ".join(f"{region} {value}" for region, value in values.items())


def _result(path: Path, entry: dict[str, Any]) -> Result:
    known = [part.name for part in fields(Result)]
    for name in entry:
        require_choice(f"{path}: entry", name, known)
    published = tuple(entry.get("published", ()))
    if len(published) not in (0, 3):
        found = f"published = {list(published)}"
        expected = "[table, row, variant]"
        raise DataError(path, found=found, expected=expected, remedy=_REMEDY)
    try:
        return Result(**{**entry, "published": published})
    except TypeError as error:
        raise DataError(path, found=str(error), expected="all entries", remedy=_REMEDY) from error
