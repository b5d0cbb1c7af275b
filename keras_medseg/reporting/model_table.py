"""The table of all networks, for the command line and the README."""

from pathlib import Path

from keras_medseg import registry
from keras_medseg.files import write_between

TABLE_MARKS = ("<!-- networks: keras-medseg models --write README.md -->", "<!-- networks end -->")


def table() -> str:
    """All networks as a Markdown table.

    Returns:
        The table, followed by a paragraph for each file that cannot be imported.

    Raises:
        ImportError: Keras or TensorFlow is too old.
    """
    registry.check_versions()
    rows: list[tuple[str, ...]] = [
        ("network", "paper", "input", "trainable", "parameters", "parity", "compared in")
    ]
    broken = []
    for name in registry.list_models():
        try:
            facts = registry.card(name)
        except ImportError as error:
            broken.append(str(error))
            continue
        size = f"{'x'.join(map(str, facts.input_shape))} ({facts.dimensions}-D)"
        counts = f"{facts.trainable:,}", f"{facts.parameters:,}"
        papers = ", ".join(facts.compared_in) or "-"
        rows.append((name, facts.paper, size, *counts, facts.parity, papers))
    widths = [max(map(len, column)) for column in zip(*rows)]
    rows.insert(1, tuple("-" * width for width in widths))
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in rows]
    return "\n\n".join(["\n".join(f"| {line} |" for line in lines), *broken])


def write_table(page: Path) -> None:
    """Put the table between the two marks of a Markdown page.

    Args:
        page: contains the two lines of TABLE_MARKS.

    Raises:
        ValueError: the page does not contain both marks in this order.
        OSError: the page cannot be read or written.
    """
    write_between(page, TABLE_MARKS, table())
