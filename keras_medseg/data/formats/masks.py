"""Gray codes or colors of a mask -> label codes.

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

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from keras_medseg.errors import DataError

BACKGROUND = "background"
"""The class whose codes become label 0."""

Codes = tuple[int | str, ...]
"""Gray values of 0 to 255, or colors such as "#ff0000"."""

_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_GRAY_EDGES, _FEWEST_GRAYS = 0.03, 5
_NOISE = 5
_OFF_GRID = 0.05


@dataclass(frozen=True)
class CodeTable:
    """The label of every code of a mask.

    Attributes:
        codes: sorted; gray values of 0 to 255, or colors as 65536 red + 256 green + blue.
        labels: (N,) uint8 of each of them.
        colored: whether the codes are colors.
    """

    codes: tuple[int, ...]
    labels: np.ndarray
    colored: bool

    def listed(self) -> str:
        """The codes in words."""
        return ", ".join(self.word(code) for code in self.codes)

    def word(self, code: int) -> str:
        """A code as it is declared."""
        return f"#{code:06x}" if self.colored else str(code)


def code_table(classes: Mapping[str, Codes]) -> CodeTable:
    """The label of every code: the first class is 1, and so on, 0 background, as black always is.

    With one color among them all codes are colors, and a gray value g is the color (g, g, g).

    Raises:
        ValueError: a class without codes, one that occurs twice, or one that is neither 0 to 255
            nor a color such as "#ff0000".
    """
    names = [name for name in classes if name != BACKGROUND]
    given = [code for codes in classes.values() for code in codes]
    colored = any(isinstance(code, str) for code in given)
    if not all(map(_is_code, given)) or not names or not all(classes.values()):
        raise _wrong_classes(classes)
    numbers = [_number(code, colored) for code in given]
    if len({*numbers}) < len(numbers):
        raise _wrong_classes(classes)
    owners = [name for name, codes in classes.items() for _ in codes]
    labels = {0: 0}
    for number, name in zip(numbers, owners):
        labels[number] = 0 if name == BACKGROUND else 1 + names.index(name)
    ordered = tuple(sorted(labels))
    return CodeTable(ordered, np.array([labels[code] for code in ordered], np.uint8), colored)


def _is_code(code: object) -> bool:
    if isinstance(code, str):
        return _COLOR.fullmatch(code) is not None
    return type(code) is int and code in range(256)


def _number(code: int | str, colored: bool) -> int:
    if isinstance(code, str):
        return int(code[1:], 16)
    return code * 0x010101 if colored else code


def _wrong_classes(classes: Mapping[str, Codes]) -> ValueError:
    return ValueError(
        f"classes: found {dict(classes)}, expected name -> codes of 0 to 255, or colors such as "
        "'#ff0000', none twice."
    )


def labels_of_classes(codes: np.ndarray, table: CodeTable, path: Path) -> tuple[np.ndarray, str]:
    """Codes -> (H, W) uint8 labels, and a remark if the mask is unusual.

    Args:
        codes: pixels of the mask, gray values (H, W) or (H, W, 1), or colors (H, W, 3).
        table: from `code_table`.
        path: of the mask, for the messages.

    Raises:
        DataError: too many pixels have a code of no class.
    """
    numbers = _numbers(codes, table.colored)
    places = np.searchsorted(table.codes, numbers).clip(max=len(table.codes) - 1)
    unknown = np.take(table.codes, places) != numbers
    labels = table.labels[places]
    if not unknown.any():
        return labels, ""
    what = "colors" if table.colored else "gray codes"
    found = f"{what} {_listed(numbers[unknown], table.word)}"
    if unknown.mean() > _OFF_GRID:
        remedy = f"Name all classes; those that do not matter as {BACKGROUND!r}."
        raise DataError(path, found=found, expected=table.listed(), remedy=remedy)
    rows, columns = ndimage.distance_transform_edt(
        unknown, return_distances=False, return_indices=True
    )
    remark = f"{path}: found {found}, expected {table.listed()}. Such pixels take the nearest one's"
    return labels[rows, columns], f"{remark} class."


def _numbers(codes: np.ndarray, colored: bool) -> np.ndarray:
    """(H, W) int32 of gray values or colors."""
    wide = codes.astype(np.int32).reshape(*codes.shape[:2], -1)
    if not colored:
        return wide[..., 0]
    red, green, blue = (wide[..., min(channel, wide.shape[2] - 1)] for channel in range(3))
    return (red << 16) + (green << 8) + blue


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


def _listed(values: np.ndarray, word: Callable[[int], str] = str) -> str:
    values, counts = np.unique(values, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:4]
    listed = ", ".join(f"{word(int(values[i]))} ({counts[i]} pixels)" for i in order)
    return listed + (", ..." if len(values) > 4 else "")
