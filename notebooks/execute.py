"""Run the notebooks' py:percent sources and keep the executed .ipynb beside them.

python -m notebooks.execute [NAME ...]
"""

import os
import re
import sys
import tempfile
import time
from pathlib import Path

import jupytext
import nbclient
import nbformat
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager

from keras_medseg.files import write_atomic

FOLDER = Path(__file__).parent
CELL_TIMEOUT_S = 600
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"file_extension": ".py", "name": "python"},
}


def sources() -> dict[str, Path]:
    """The py:percent sources by name: every file here that starts as jupytext's do."""
    found = sorted(FOLDER.glob("*.py"))
    return {path.stem: path for path in found if path.read_text().startswith("# ---\n# jupyter:")}


def read_source(path: Path) -> nbformat.NotebookNode:
    """A source as a notebook without outputs; the same text gives the same bytes."""
    notebook = jupytext.read(path, fmt="py:percent")
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        cell.metadata.pop("lines_to_next_cell", None)
    return notebook


def execute(path: Path, epochs: int | None = None) -> nbformat.NotebookNode:
    """Run a source from top to bottom in the repository root, by this very interpreter.

    Args:
        path: the source.
        epochs: of its training, for a test that has no time for the source's own number.

    Returns:
        The notebook with its outputs, without what TensorFlow says about the machine.

    Raises:
        ValueError: with `epochs`, for a source that does not set "train.epochs" in one place.
        nbclient.exceptions.CellExecutionError: with the traceback of the cell that failed.
        nbclient.exceptions.CellTimeoutError: for a cell that takes longer than CELL_TIMEOUT_S.
    """
    notebook = read_source(path)
    if epochs:
        shorten(notebook, epochs)
    # Without folders of kernels to search, "python3" is the ipykernel of this interpreter.
    native = KernelSpecManager(kernel_dirs=[])
    with tempfile.TemporaryDirectory() as folder:
        manager = AsyncKernelManager(
            kernel_name="python3",
            kernel_spec_manager=native,
            connection_file=str(Path(folder, "kernel.json")),
            transport="ipc",
        )
        client = nbclient.NotebookClient(
            notebook,
            km=manager,
            timeout=CELL_TIMEOUT_S,
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": str(FOLDER.parent)}},
        )
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "IPYTHONDIR": folder, "TMPDIR": folder}
        client.execute(env=os.environ | quiet, cleanup_kc=True)
    _forget_the_machine(notebook)
    return notebook


def shorten(notebook: nbformat.NotebookNode, epochs: int) -> None:
    """Replace the number of epochs that a notebook trains for.

    Raises:
        ValueError: when its code does not set "train.epochs" in exactly one place.
    """
    setting = re.compile(r'("train\.epochs": )\d+')
    found = 0
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source, count = setting.subn(rf"\g<1>{epochs}", cell.source)
            found += count
    if found != 1:
        raise ValueError(f'notebook: found "train.epochs": N {found} times, expected it once.')


def _forget_the_machine(notebook: nbformat.NotebookNode) -> None:
    notebook.metadata.language_info = METADATA["language_info"]
    # TensorFlow writes its devices to stderr, whatever the log level; errors are raised.
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
            cell.metadata.pop("execution", None)


def main(names: list[str]) -> int:
    """Execute the notebooks of these names, or all of them; 2 for an unknown name."""
    known = sources()
    for name in names or known:
        if name not in known:
            print(f"notebook: found {name!r}, expected one of: {', '.join(known)}.")
            return 2
        started = time.monotonic()
        notebook = execute(known[name])
        target = known[name].with_suffix(".ipynb")
        content = (nbformat.writes(notebook) + "\n").encode()
        write_atomic(target, content)
        seconds = time.monotonic() - started
        print(f"{target.name}: {len(content) / 1e6:.2f} MB, executed in {seconds:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
