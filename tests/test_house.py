"""House rules that no linter has."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import keras_medseg
from experiments.publish import without_folders
from keras_medseg.runs import papers

PACKAGE = Path(keras_medseg.__file__).parent
SOURCES = [*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "experiments").rglob("*.py")]
LONGEST_FUNCTION = 60
MOST_MODULES = 12


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE.parent)))
def test_no_function_is_longer_than_a_screen(path):
    functions = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    lengths = {node.name: node.end_lineno - node.lineno + 1 for node in functions}
    assert {name for name, length in lengths.items() if length > LONGEST_FUNCTION} == set()


def test_the_top_level_shows_the_architecture():
    """What is general stands at the top; everything else has a package that says what it is for."""
    assert (
        len([path for path in PACKAGE.glob("*.py") if path.name != "__init__.py"]) <= MOST_MODULES
    )
    for path in PACKAGE.rglob("__init__.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), path


@pytest.mark.parametrize("paper", papers.names())
def test_every_json_of_a_published_run_can_be_read(paper):
    """And has no path of the machine that it was made on."""
    for path in (PACKAGE.parent / "experiments" / paper).rglob("*.json"):
        content = json.loads(path.read_text())
        assert without_folders(content) == content, path


def test_benchmarks_run_as_scripts():
    """`python benchmarks/NAME.py` does not look for `experiments` in the working folder."""
    for path in (PACKAGE.parent / "benchmarks").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "experiments" for name in names), path


def test_no_layer_takes_a_name_of_torchs_module():
    """On the backend torch a Keras layer is a torch.nn.Module, whose parts have these names."""
    taken = {"_parameters", "_buffers", "_modules", "_apply", "_version", "parameters", "buffers"}
    taken |= {"modules", "children", "apply", "forward", "register_buffer", "half", "float"}
    for path in (PACKAGE / "layers").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                methods = {x.name for x in node.body if isinstance(x, ast.FunctionDef)}
                assert not methods & taken, (path, node.name)


def test_nothing_is_imported_that_one_system_alone_has():
    """Without a guard; Windows has none of them."""
    posix = {"fcntl", "resource", "pwd", "grp", "termios", "pty", "syslog"}
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        names = [a.name for node in tree.body if isinstance(node, ast.Import) for a in node.names]
        names += [str(node.module) for node in tree.body if isinstance(node, ast.ImportFrom)]
        assert posix.isdisjoint(names), path
        assert "os.uname" not in path.read_text(), path


def test_every_module_says_what_it_is_for():
    for path in SOURCES:
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_scoring_loads_the_slow_parts_of_scipy_when_it_uses_them():
    """`predict` and `train` import all of these before they can refuse a wrong argument."""
    names = "statistics, ranking, lesion_matching, surface_elements, scores"
    code = (
        f"import sys\nfrom keras_medseg.evaluation import {names}\n"
        "print(*({'scipy.stats', 'scipy.optimize', 'scipy.spatial'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    assert done.stdout == "\n"
