"""The official BraTS scores in tests/goldens/lesionwise, and the label maps they are of."""

import gzip
import hashlib
import json
import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).parents[1] / "goldens" / "lesionwise" / "scores.json.gz"
ARTEFACTS = {"legacy_hd95", "sensitivity", "specificity"}
"""Computed on numbers of lesions by the originals of 2024 and 2025, where they filter."""


@cache
def cases() -> dict[str, dict[str, Any]]:
    return {case["name"]: case for case in json.loads(gzip.decompress(FILE.read_bytes()))["cases"]}


def names() -> list[str]:
    return list(cases())


@cache
def label_maps(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Truth and prediction of a case; one generator draws both, the truth first."""
    case = cases()[name]
    generator = np.random.RandomState(case["seed"])
    shape = tuple(case["shape"])
    truth = _drawn(case["truth"], np.zeros(shape, np.uint8), generator)
    prediction = _drawn(case["pred"], truth, generator)
    for side, labels in (("truth", truth), ("pred", prediction)):
        digest = hashlib.sha256(np.ascontiguousarray(labels).tobytes()).hexdigest()
        assert digest[:16] == case["sha256_16"][side], (name, side)
    return truth, prediction


def _drawn(steps, start, generator):
    labels = np.zeros_like(start)
    for step in steps:
        match step:
            case {"op": "copy"}:
                labels = start.copy()
            case {"op": "ball", "c": center, "r2": square, "label": code}:
                labels[_ball(labels.shape, center, square)] = code
            case {"op": "box", "lo": low, "hi": high, "label": code}:
                labels[tuple(map(slice, low, high))] = code
            case {"op": "shift", "by": by}:
                labels = np.roll(labels, by, (0, 1, 2))
            case {"op": "relabel", "from": old, "to": new}:
                labels[labels == old] = new
            case {"op": "balls", "n": n, "margin": margin, "r2": squares, "labels": codes}:
                for _ in range(n):
                    center = [generator.randint(margin, size - margin) for size in labels.shape]
                    ball = _ball(labels.shape, center, generator.randint(*squares))
                    labels[ball] = codes[generator.randint(len(codes))]
            case {"op": "drop", "p": share}:
                labels[generator.rand(*labels.shape) < share] = 0
            case {"op": "speckle", "n": n, "label": code}:
                labels[tuple(generator.randint(0, size, n) for size in labels.shape)] = code
            case _:
                raise ValueError(step)
    return labels


def _ball(shape, center, square):
    return sum((axis - c) ** 2 for axis, c in zip(np.indices(shape), center)) <= square


def expected(name: str, year: int) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Challenge, region and scores."""
    for challenge, regions in cases()[name][str(year)].items():
        for region, scores in regions.items():
            yield challenge, region, scores


def differences(found: dict[str, Any], golden: dict[str, Any], without=()) -> dict[str, tuple]:
    """Key -> found and golden value, where these differ by more than 1e-9."""
    assert set(found) == set(golden)
    keys = set(golden) - set(without)
    return {key: (found[key], golden[key]) for key in keys if not _same(found[key], golden[key])}


def _same(found, golden) -> bool:
    match golden:
        case list():
            return len(found) == len(golden) and all(map(_same, found, golden))
        case dict():
            return not differences(found, golden)
        case None:
            return math.isnan(found)
        case "inf":
            return found == math.inf
    return abs(found - golden) <= 1e-9
