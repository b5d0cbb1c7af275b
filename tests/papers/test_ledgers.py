"""Every paper's ledger: each entry proves something, and each recipe field has an entry."""

import ast
import functools
import importlib
import os
import re
import tomllib
from pathlib import Path

import pytest

from experiments import mutations
from keras_medseg import recipe as recipes

ROOT = Path(__file__).parents[2]
PAPERS = sorted(path.parent.name for path in (ROOT / "experiments").glob("*/ledger.toml"))
TEXTS = Path(os.environ.get("KERAS_MEDSEG_SHARED", ROOT.parent / "shared")) / "papers"
STATUSES = {"exact", "equivalent", "departs", "chosen"}
# The name, and how often a recipe is trained.
FIELDS_OF_ALL = {"name", "data.folds", "data.split_seed", "train.init"}


def entries(paper):
    return tomllib.loads((ROOT / "experiments" / paper / "ledger.toml").read_text())["entry"]


def plain(value):
    """Tuples of a recipe are arrays in TOML."""
    return [plain(inner) for inner in value] if isinstance(value, tuple) else value


@pytest.fixture(params=PAPERS)
def paper(request):
    return request.param


@pytest.fixture
def fields(paper):
    module = importlib.import_module(f"experiments.{paper}.recipe")
    return {k: plain(v) for k, v in recipes.fields(module.RECIPE).items()}


def test_every_paper_with_a_recipe_has_a_ledger():
    assert {path.parent.name for path in (ROOT / "experiments").glob("*/recipe.py")} == {*PAPERS}


def test_entries_are_complete_and_have_ids_of_their_own(paper):
    found = entries(paper)
    ids = [entry["id"] for entry in found]
    assert len(ids) == len(set(ids))
    for entry in found:
        assert {"id", "where", "says", "ours", "status", "reason"} <= entry.keys(), entry["id"]
        assert entry.keys() <= {
            *("id", "where", "says", "ours", "status", "reason", "fields", "tests")
        }, entry["id"]
        assert entry["status"] in STATUSES, entry["id"]
        assert entry["reason"], f"{entry['id']}: say why"


def test_every_entry_is_proved_by_a_field_or_a_test(paper, fields):
    for entry in entries(paper):
        assert entry.get("fields") or entry.get("tests"), f"{entry['id']} proves nothing"
        for name, value in entry.get("fields", {}).items():
            assert name in fields, f"{entry['id']}: the recipe has no field {name}"
            assert fields[name] == value, f"{entry['id']}: {name} is {fields[name]!r}"


def test_every_recipe_field_has_an_entry(paper, fields):
    covered = {name for entry in entries(paper) for name in entry.get("fields", {})}
    assert fields.keys() - covered - FIELDS_OF_ALL == set()


@functools.cache
def _functions(path):
    nodes = ast.walk(ast.parse(path.read_text()))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef)}


def test_every_named_test_exists(paper):
    for entry in entries(paper):
        for test in entry.get("tests", []):
            file, _, name = test.partition("::")
            assert (ROOT / file).is_file(), f"{entry['id']}: no file {file}"
            assert name in _functions(ROOT / file), f"{entry['id']}: {file} has no {name}"


def test_every_claim_of_fidelity_has_a_mutation_and_every_mutation_an_entry(paper):
    """What each of them does to the tests is test_mutations.py's."""
    known = mutations.mutations(paper)
    claims = {e["id"] for e in entries(paper) if e["status"] in ("exact", "equivalent")}
    assert claims - known.keys() == set()
    assert known.keys() - {e["id"] for e in entries(paper)} == set()
    for mutation in known.values():
        assert mutation.__doc__, f"{mutation.__name__}: say which wrong reading it is"


def test_quoted_words_stand_in_the_paper(paper):
    """Words in double quotes are the paper's own, line breaks aside."""
    texts = [" ".join(path.read_text().split()) for path in TEXTS.glob("*.txt")]
    if not texts:
        pytest.skip("the papers' texts are not part of the repository")
    quotes = {
        (entry["id"], " ".join(quote.split()))
        for entry in entries(paper)
        for quote in re.findall(r'"([^"]+)"?', entry["says"])
    }
    missing = [sorted(q for q in quotes if q[1] not in text) for text in texts]
    assert min(missing, key=len) == []
