"""The tables of README.md that follow from the code: `python -m experiments.tables`."""

import sys
from pathlib import Path

from keras_medseg.files import write_between
from keras_medseg.reporting import model_table
from keras_medseg.runs import papers

from .metafiles import results_table

README = Path(__file__).parents[1] / "README.md"
MARKS = ("<!-- papers: make tables -->", "<!-- papers end -->")
RESULTS = ("<!-- results: make tables -->", "<!-- results end -->")


def papers_table() -> str:
    """The reproduced papers as a Markdown table, from what their recipes declare."""
    lines = ["| paper | network | data | page |", "|---|---|---|---|"]
    for paper in papers.names():
        experiments = papers.recipe_module(paper).EXPERIMENTS.values()
        references = [experiment.reference for experiment in experiments]
        data = ", ".join(dict.fromkeys(reference.data for reference in references))
        names = [experiment.recipe.model.name for experiment in experiments]
        network = ", ".join(f"`{name}`" for name in dict.fromkeys(names))
        page = f"[{_heading(paper)}](experiments/{paper}/README.md)"
        lines.append(f"| `{paper}` | {network} | {data} | {page} |")
    return "\n".join(lines)


def _heading(paper: str) -> str:
    """What the page of a paper calls it: "# paper: these words"."""
    first = (Path(__file__).parent / paper / "README.md").read_text().partition("\n")[0]
    return first.partition(": ")[2]


def main() -> int:
    """Write the tables into README.md."""
    write_between(README, MARKS, papers_table())
    write_between(README, RESULTS, results_table(papers.names()))
    model_table.write_table(README)
    return 0


if __name__ == "__main__":
    sys.exit(main())
