"""Gray codes of a mask -> label codes.

| mask | verdict |
|---|---|
| no classes named: 0 and one other value | what is not 0 is the object |
| no classes named: gray edges (at most 3 % of it between 32 and 223) | object over 127, a remark |
| no classes named: 0, 255 and values within 5 of them, one of them next to 255 | the same |
| no classes named: anything else | error |
| classes named: at most 5 % of the pixels have other values | see below, with a remark |
| classes named: more pixels with other values | error |

Predicted masks are read by the same rule. Gray edges come from drawing tools and from scaling;
values next to 0 and 255 come from JPEG at its best quality. Between two classes edges may pass
through the codes of a third class that is not there. So a pixel with an unknown code takes the
class of the nearest pixel with a known code, not the class with the nearest code.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

from keras_medseg.errors import DataError

BACKGROUND = "background"
"""The class whose codes become label 0."""

_GRAY_EDGES, _FEWEST_GRAYS = 0.03, 5
_NOISE = 5
_OFF_GRID = 0.05
_UNKNOWN = 255


def code_table(classes: Mapping[str, Sequence[int]]) -> np.ndarray:
    """(256,) uint8: label of every gray code; the first class is 1, and so on, 0 background.

    Raises:
        ValueError: a class without codes, a code that occurs twice, or one that is not 0 to 255.
    """
    names = [name for name in classes if name != BACKGROUND]
    codes = [code for name in classes for code in classes[name]]
    wrong = [code for code in codes if code not in range(256)]
    if wrong or not names or not all(classes.values()) or len(set(codes)) < len(codes):
        raise ValueError(
            f"classes: found {dict(classes)}, expected name -> codes of 0 to 255, none twice."
        )
    table = np.full(256, _UNKNOWN, np.uint8)
    table[0] = 0
    for label, name in enumerate(names, 1):
        table[list(classes[name])] = label
    table[list(classes.get(BACKGROUND, ()))] = 0
    return table


def labels_of_classes(codes: np.ndarray, table: np.ndarray, path: Path) -> tuple[np.ndarray, str]:
    """(H, W) uint8 codes -> (H, W) uint8 labels, and a remark if the mask is unusual.

    Args:
        codes: pixels of the mask.
        table: from `code_table`.
        path: of the mask, for the messages.

    Raises:
        DataError: too many pixels have a code of no class.
    """
    labels = table[codes]
    unknown = labels == _UNKNOWN
    if not unknown.any():
        return labels, ""
    found = f"gray codes {_listed(codes[unknown])}"
    known = ", ".join(map(str, np.flatnonzero(table != _UNKNOWN)))
    if unknown.mean() > _OFF_GRID:
        remedy = f"Name all classes; those that do not matter as {BACKGROUND!r}."
        raise DataError(path, found=found, expected=f"{known}", remedy=remedy)
    rows, columns = ndimage.distance_transform_edt(
        unknown, return_distances=False, return_indices=True
    )
    remark = f"{path}: found {found}, expected {known}. Such pixels take the nearest one's class."
    return labels[rows, columns], remark


def labels_of_object(
    codes: np.ndarray, path: Path, *, fewest_grays: int = _FEWEST_GRAYS
) -> tuple[np.ndarray, str]:
    """As `labels_of_classes` for a mask of one object: labels 0 and 1.

    Args:
        codes: pixels of the mask.
        path: of the mask, for the messages.
        fewest_grays: fewer gray values than this, 0 and 255 included, are taken for classes rather
            than for gray edges.

    Raises:
        DataError: the mask is not binary.
    """
    values, counts = np.unique(codes, return_counts=True)
    constant = len(values) == 1 and values[0] in (0, 1, 255)
    if constant or (len(values) == 2 and values[0] == 0):
        return (codes != 0).astype(np.uint8), ""
    between = counts[(values >= 32) & (values <= 223)].sum() / codes.size
    both_ends = values[0] < 32 and values[-1] > 223
    # A code such as 1 beside 0 and 255 may be a class; nobody numbers classes down from 255.
    noise = values[(values > 0) & (values < 255)]
    noisy = noise.size and ((noise <= _NOISE) | (noise >= 255 - _NOISE)).all() and noise[-1] > 127
    few = len(values) < fewest_grays and not noisy
    if not both_ends or between > _GRAY_EDGES or few:
        remedy = (
            "Name the classes and their gray codes (--classes, or data.classes in a recipe), "
            "or save a binary mask."
        )
        found, expected = f"gray values {_listed(codes)}", "0 and one other"
        raise DataError(path, found=found, expected=expected, remedy=remedy)
    remark = f"{path}: found {len(values)} gray values, expected 0 and one other. "
    return (codes > 127).astype(np.uint8), f"{remark}Those over 127 count as object."


def _listed(values: np.ndarray) -> str:
    values, counts = np.unique(values, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:4]
    listed = ", ".join(f"{values[i]} ({counts[i]} pixels)" for i in order)
    return listed + (", ..." if len(values) > 4 else "")
