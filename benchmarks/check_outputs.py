"""Write what `check` says of a phantom in each layout into docs/datasets/*.md.

    python benchmarks/check_outputs.py

The phantoms are small; the lines are those of `keras-medseg check`, with DIR for the
folder.
"""

import re
import sys
import tempfile
from pathlib import Path

from keras_medseg import phantoms
from keras_medseg.data import datasets
from keras_medseg.files import write_between
from keras_medseg.phantoms import brats

PAGES = Path(__file__).parents[1] / "docs" / "datasets"
PIXELS, VOXELS = (64, 80), (40, 40, 26)


def layouts_of(page: Path) -> list[str]:
    """The layouts whose output a page shows."""
    return re.findall(r"<!-- check (\S+) -->", page.read_text(encoding="utf-8"))


def marks(layout: str) -> tuple[str, str]:
    return f"<!-- check {layout} -->", f"<!-- end of check {layout} -->"


def output(layout: str) -> str:
    """The report of `check`, as a fenced block."""
    volumes = layout in brats.LAYOUTS
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place).resolve() / "DIR"
        cases, size = (3, VOXELS) if volumes else (9, PIXELS)
        phantoms.write(folder, layout=layout, cases=cases, size=size)
        text = datasets.of_folder(folder).check(folder).text.replace(str(folder), "DIR")
    return f"```text\n{text}\n```"


def main() -> int:
    for page in sorted(PAGES.glob("*.md")):
        for layout in layouts_of(page):
            write_between(page, marks(layout), output(layout))
    return 0


if __name__ == "__main__":
    sys.exit(main())
