"""The tables of README.md that follow from the code: `python -m experiments.tables`."""

import sys
from pathlib import Path

from keras_medseg import registry
from keras_medseg.files import write_between
from keras_medseg.reporting import model_table
from keras_medseg.runs import papers

from .metafiles import read_state, results_table

README = Path(__file__).parents[1] / "README.md"
MARKS = ("<!-- papers: make tables -->", "<!-- papers end -->")
COMPARED = {
    "golden": "same output for the same weights",
    "count": "same number of parameters",
    "rebuilt": "no code or count to compare with",
}
RESULTS = ("<!-- results: make tables -->", "<!-- results end -->")


def papers_table() -> str:
    """The reproduced papers as a Markdown table, from what their recipes declare."""
    lines = [
        "| paper | our text of it | network | compared with the original | its data | "
        "trained on real data so far |",
        "|---|---|---|---|---|---|",
    ]
    for paper in papers.names():
        experiments = papers.recipe_module(paper).EXPERIMENTS.values()
        references = [experiment.reference for experiment in experiments]
        data = ", ".join(dict.fromkeys(reference.data for reference in references))
        names = dict.fromkeys(experiment.recipe.model.name for experiment in experiments)
        networks = ", ".join(f"`{name}`" for name in names)
        compared = ", ".join(COMPARED[registry.card(name).parity] for name in names)
        page = f"[{paper}](experiments/{paper}/README.md): {_heading(paper)}"
        text, real_data = read_state(paper)
        cells = (page, text, networks, compared, data, real_data)
        lines.append(f"| {' | '.join(cells)} |")
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
