"""The table of notebooks/README.md, with links that open them in Colab once there is an address.

python -m notebooks.table [https://github.com/OWNER/NAME]
"""

import re
import sys
from pathlib import Path

from keras_medseg.files import write_between

FOLDER = Path(__file__).parent
MARKS = ("<!-- notebooks begin: python -m notebooks.table -->", "<!-- notebooks end -->")
COLAB = "https://colab.research.google.com/github"


def table(repository: str = "") -> str:
    """All notebooks as a Markdown table.

    Args:
        repository: where they are published, https://github.com/OWNER/NAME; empty if nowhere yet.

    Raises:
        ValueError: an address from which Colab opens nothing.
    """
    found = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)/?", repository)
    if repository and not found:
        raise ValueError(f"{repository}: found no https://github.com/OWNER/NAME, expected one.")
    lines = ["| notebook | |", "|---|---|"]
    for path in sorted(FOLDER.glob("*.ipynb")):
        source = path.with_suffix(".py").read_text(encoding="utf-8")
        [title, *_] = re.findall("^# # (.+)$", source, re.MULTILINE)
        link = f"[{path.stem}]({path.name})"
        if found:
            link += f" ([Colab]({COLAB}/{found[1]}/blob/main/notebooks/{path.name}))"
        lines.append(f"| {link} | {title} |")
    return "\n".join(lines)


def main(repository: str = "") -> None:
    """Write the table into README.md."""
    write_between(FOLDER / "README.md", MARKS, table(repository))


if __name__ == "__main__":
    main(*sys.argv[1:])
