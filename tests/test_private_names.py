"""Private names of Keras, TensorFlow and JAX: those of docs/dependencies.md, and still there."""

import ast
import importlib
import pkgutil
import re
from importlib.metadata import version
from pathlib import Path

import pytest

import keras_medseg

PACKAGE = Path(keras_medseg.__file__).parent
PAGE = (PACKAGE.parent / "docs/dependencies.md").read_text()
ROW = re.compile(r"^\| `((?:keras|tensorflow|jax)\.[\w.]+)` \| `([\w./]+)` \|", re.MULTILINE)
TABLE = dict(ROW.findall(PAGE))
# Of named tuples, argparse, multiprocessing and os.
OTHERS = {"_replace", "_asdict", "_actions", "_inheriting", "_exit"}


def private(names):
    return {name for name in names if re.match(r"_[a-z]", name)}


def own_names(node):
    """Names that a node of a file gives to something of this package."""
    match node:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Name(id=name, ctx=ast.Store()):
            return [name]
        case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
            return [name]
    return []


def used_names(node):
    """Names that a node takes from elsewhere: attributes, and the parts of an imported module."""
    match node:
        case ast.Attribute(attr=name):
            return [name]
        case ast.ImportFrom(module=str(module)) if not module.startswith("keras_medseg"):
            return module.split(".")
    return []


def used():
    """Private names that the package uses and does not define."""
    nodes = [n for path in PACKAGE.rglob("*.py") for n in ast.walk(ast.parse(path.read_text()))]
    own = {name for node in nodes for name in own_names(node)}
    return private(name for node in nodes for name in used_names(node)) - own - OTHERS


def overridden():
    """Private methods of Keras' and TensorFlow's classes that classes of this package replace."""
    found = set()
    for info in pkgutil.walk_packages([str(PACKAGE)], "keras_medseg."):
        if info.name.endswith("__main__"):
            continue
        for value in list(vars(importlib.import_module(info.name)).values()):
            if isinstance(value, type) and value.__module__ == info.name:
                theirs = [base for base in value.__mro__ if is_a_frameworks(base)]
                found |= private(vars(value)) & {name for base in theirs for name in vars(base)}
    return found


def is_a_frameworks(kind):
    return kind.__module__.split(".")[0] in ("keras", "tensorflow", "jax")


def test_the_table_has_those_that_are_used_and_no_others():
    listed = private(part for name in TABLE for part in name.split("."))
    assert used() | overridden() == listed
    for name, where in TABLE.items():
        [word] = private(name.split("."))
        assert word in (PACKAGE / where).read_text(), name


@pytest.mark.parametrize("name", TABLE)
def test_the_installed_version_has_it(name):
    package = name.split(".")[0]
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        pytest.fail(
            f"{name}: {package} {version(package)} has it no more; see {TABLE[name]} and "
            "docs/dependencies.md.",
            pytrace=False,
        )
