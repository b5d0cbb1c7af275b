"""A slice viewer for a self-contained page: cases and label maps as data, bounded in size.

`encode` makes the data, `templates/viewer.html` shows them (with viewer.css and viewer.js). What is
shown is for looking at, not for measuring: cropped, thinned out where it is large, in JPEG.
"""

import base64
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from keras_medseg.evaluation.metrics import METRICS, metric_label
from keras_medseg.reporting.figures.style import label_colors

MAX_BYTES = 8_000_000
"""All cases together; the first one is shown whatever its size."""

MARGIN = 8
"""Voxels around the box of all objects."""

SLICES, SIDE, IMAGE_SIDE = 96, 160, 512
"""Most slices of a volume, and most elements along the side of a slice of a volume or an image."""

_QUALITY = 70
_BLOCK = 8  # of JPEG


@dataclass(frozen=True)
class ViewerCase:
    """One case, on one grid.

    Attributes:
        id: of the case.
        why: why it is shown, such as "worst of A".
        image: (X, Y, Z) or (X, Y, Z, 3) intensities in LPS, or None: label maps alone. An image is
            a volume of one slice, whose x are rows.
        truth: (X, Y, Z) uint8 label codes.
        maps: name of a method -> its (X, Y, Z) uint8 label codes.
        scores: name of a method -> its scores of this case, as text.
        spacing: size of an element along x, y and z.
    """

    id: str
    why: str
    image: np.ndarray | None
    truth: np.ndarray
    maps: Mapping[str, np.ndarray]
    scores: Mapping[str, str] = field(default_factory=dict)
    spacing: Sequence[float] = (1.0, 1.0, 1.0)


def encode(
    cases: Iterable[ViewerCase],
    *,
    labels: Mapping[int, str],
    regions: Mapping[str, Sequence[int]],
    max_bytes: int = MAX_BYTES,
) -> dict[str, Any]:
    """The data of the viewer, for JSON; no more cases than fit into `max_bytes` are taken.

    Args:
        cases: the most important first; read one after the other.
        labels: code -> name, as in `Dataset.labels`.
        regions: name -> codes, as in `Dataset.regions`.
        max_bytes: of all cases together.

    Returns:
        labels, regions, maps (names of the methods), cases, bytes (of the cases) and left_out (ids
        of the cases that did not fit).
    """
    colors = label_colors(labels)
    shown: list[dict[str, Any]] = []
    left_out: list[str] = []
    total = 0
    for case in cases:
        encoded = _case(case)
        size = len(json.dumps(encoded))
        if shown and total + size > max_bytes:
            left_out.append(case.id)
            continue
        shown.append(encoded)
        total += size
    names = [name for case in shown[:1] for name in case["maps"]]
    return {
        "labels": [{"code": c, "name": name, "color": colors[c]} for c, name in labels.items()],
        "regions": [{"name": name, "codes": list(codes)} for name, codes in regions.items()],
        "maps": names,
        "cases": shown,
        "bytes": total,
        "left_out": left_out,
    }


def in_words(reasons: Mapping[str, Sequence[str]]) -> str:
    """Why a case is shown, from `comparison.cases_to_show`: "worst of A, B; best of C"."""
    return "; ".join(f"{what} of {', '.join(names)}" for what, names in reasons.items())


def score_texts(scores: pd.DataFrame, case: str, metrics: Sequence[str]) -> dict[str, str]:
    """Name of a method -> its scores of a case, region by region.

    Args:
        scores: scores.csv: the columns variant, case, region and `metrics`.
        case: one of the cases.
        metrics: in the order of the text.
    """
    texts: dict[str, list[str]] = {}
    for row in scores[scores["case"] == case].to_dict("records"):
        values = [f"{metric_label(name)} {number(row[name], name)}" for name in metrics]
        texts.setdefault(row["variant"], []).append(f"{row['region']}: {', '.join(values)}")
    return {name: "; ".join(lines) for name, lines in texts.items()}


def number(value: float, metric: str, sign: str = "") -> str:
    """A score as text: two decimals of what has a unit, four of fractions; with "+" a sign."""
    unit = METRICS[metric].unit if metric in METRICS else ""
    decimals = 2 if unit or abs(value) >= 100 else 4
    return "–" if pd.isna(value) else f"{value:{sign}.{decimals}f}"


def run_lengths(codes: np.ndarray) -> str:
    """uint8 codes of any shape, in C order -> base64 of (code, length) pairs.

    A length has seven bits per byte, the lowest first; the eighth says that more follow (LEB128).
    """
    flat = codes.ravel()
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    lengths = np.diff([*starts, flat.size])
    coded = bytearray()
    for code, length in zip(flat[starts].tolist(), lengths.tolist()):
        coded.append(code)
        while length > 127:
            coded.append(length & 127 | 128)
            length >>= 7
        coded.append(length)
    return base64.b64encode(coded).decode()


def limits(view: Mapping[str, Any]) -> str:
    """What the viewer leaves out, in words, for the page."""
    text = (
        f"Cases shown: {len(view['cases'])}, {view['bytes'] / 1e6:.1f} MB of at most "
        f"{MAX_BYTES / 1e6:.0f} MB. Volumes are cropped to the box of all objects with {MARGIN} "
        f"voxels around it; of more than {SLICES} slices, or {SIDE} voxels along a side (images: "
        f"{IMAGE_SIDE} pixels), only every second, third, ... is kept. Intensities are JPEG. So "
        "the pictures are for looking; all scores are of the whole label maps."
    )
    if bare := [case["id"] for case in view["cases"] if case["image"] is None]:
        text += f" Without an image: {', '.join(bare)}."
    thinned = [case["id"] for case in view["cases"] if max(case["step"], case["thinned"]) > 1]
    if thinned:
        text += f" Thinned out: {', '.join(thinned)}."
    if view["left_out"]:
        text += f" Left out, because the page would be too large: {', '.join(view['left_out'])}."
    return text


def _case(case: ViewerCase) -> dict[str, Any]:
    flat = case.truth.shape[2] == 1
    frames = {name: _frames(codes, flat) for name, codes in case.maps.items()}
    truth = _frames(case.truth, flat)
    image = None if case.image is None else _frames(case.image, flat)
    window = _window([truth, *frames.values()], image, flat)
    steps = [slices.step for slices in window]
    rows_mm, columns_mm = case.spacing[:2] if flat else case.spacing[1::-1]
    count, rows, columns = truth[window].shape
    return {
        "id": case.id,
        "why": case.why,
        "size": [count, rows, columns],
        "first": window[0].start,
        "step": steps[0],
        "thinned": steps[1],
        "aspect": round(float(rows_mm / columns_mm), 4),
        "image": None if image is None else _mosaic(_gray(image, flat)[window]),
        "truth": run_lengths(truth[window]),
        "maps": {name: run_lengths(codes[window]) for name, codes in frames.items()},
        "scores": dict(case.scores),
    }


def _frames(array: np.ndarray, flat: bool) -> np.ndarray:
    """(X, Y, Z, ...) -> (slices, rows, columns, ...) as on the screen, anterior on top."""
    return np.moveaxis(array, 2, 0) if flat else array.swapaxes(0, 2)


def _window(
    maps: Sequence[np.ndarray], image: np.ndarray | None, flat: bool
) -> tuple[slice, slice, slice]:
    """What is shown: all objects with a margin, thinned out to the largest sizes."""
    shape = maps[0].shape
    content = np.any([codes != 0 for codes in maps], axis=0)
    if not content.any() and image is not None:
        content = image.reshape(*shape, -1).any(axis=-1)
    spans = []
    for axis, (size, most) in enumerate(zip(shape, (SLICES, *[IMAGE_SIDE if flat else SIDE] * 2))):
        others = tuple(other for other in range(3) if other != axis)
        filled = np.flatnonzero(content.any(axis=others))
        if flat or not filled.size:
            spans.append((0, size, most))
        else:
            spans.append((max(filled[0] - MARGIN, 0), min(filled[-1] + MARGIN + 1, size), most))
    steps = [-(-(stop - start) // most) for start, stop, most in spans]
    steps[1:] = [max(steps[1:])] * 2
    first, second, third = (
        slice(int(start), int(stop), int(step)) for (start, stop, _), step in zip(spans, steps)
    )
    return first, second, third


def _gray(image: np.ndarray, flat: bool) -> np.ndarray:
    """Intensities as uint8: a few bright voxels do not darken the rest, and CT has a dark end."""
    if flat and image.dtype == np.uint8:
        return image
    inside, below = image[image > 0], image[image < 0]
    high = float(np.percentile(inside, 99.5)) if inside.size else 1.0
    low = float(np.percentile(below, 0.5)) if below.size else 0.0
    scaled = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
    return (255 * scaled).astype(np.uint8)


def _mosaic(frames: np.ndarray) -> dict[str, Any]:
    """(slices, rows, columns[, 3]) uint8 as one JPEG with all slices side by side."""
    count, rows, columns = frames.shape[:3]
    across = int(np.ceil(np.sqrt(count)))
    height, width = (-(-size // _BLOCK) * _BLOCK for size in (rows, columns))
    sheet = np.zeros((-(-count // across) * height, across * width, *frames.shape[3:]), np.uint8)
    # Filled up with their last rows and columns, so that a block of JPEG has no border in it.
    borders = [(0, 0), (0, height - rows), (0, width - columns), (0, 0)][: frames.ndim]
    for number, frame in enumerate(np.pad(frames, borders, mode="edge")):
        top, left = number // across * height, number % across * width
        sheet[top : top + height, left : left + width] = frame
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, format="JPEG", quality=_QUALITY)
    data = base64.b64encode(buffer.getvalue()).decode()
    return {
        "url": f"data:image/jpeg;base64,{data}",
        "across": across,
        "height": height,
        "width": width,
    }
