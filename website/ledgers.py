"""The ledger of a paper as a table, and the tests that it names as a page."""

import ast
import json
import re
import textwrap
import tomllib
from collections import Counter
from html import escape
from pathlib import Path
from typing import Any

STATUSES = {
    "exact": "what the paper says, and nothing beyond it",
    "equivalent": "another way to the same result",
    "departs": "the paper says something else",
    "chosen": "the paper is silent or contradicts itself",
}


def ledger_page(folder: Path) -> str:
    """The Markdown page with all entries of a paper's ledger.

    Args:
        folder: that of the paper, with ledger.toml and perhaps mutations.py.
    """
    entries = _entries(folder)
    mutations = _mutations(folder / "mutations.py")
    counts = Counter(entry["status"] for entry in entries)
    meanings = "\n".join(
        f"* **{status}** ({counts[status]}): {meaning}" for status, meaning in STATUSES.items()
    )
    rows = "\n".join(_row(entry, mutations.get(entry["id"], "")) for entry in entries)
    return f"""---
title: Ledger of {folder.name}
---

# The ledger of {folder.name}

{len(entries)} entries: each statement of [the paper](README.md) that matters, and each gap that
had to be filled. Words in quotation marks are the paper's. Proof: fields of the recipe with their
values, tests (a click shows the code), and how the statement is broken on purpose to see these
tests fail.

{meanings}

<table class="ledger">
<thead><tr><th>Statement</th><th>Reading</th><th>Status</th><th>Proof</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>
"""


def tests_page(folder: Path, root: Path) -> str:
    """The Markdown page with the code of all tests that a paper's ledger names.

    Args:
        folder: that of the paper, with ledger.toml.
        root: the repository.
    """
    named = sorted({test for entry in _entries(folder) for test in entry.get("tests", [])})
    parts = [
        f"---\ntitle: Tests of {folder.name}\nsearch:\n  exclude: true\n---\n\n"
        f"# The tests of {folder.name}\n\n"
        f"The {len(named)} tests that [the ledger](ledger.toml) names, as they are in the "
        "repository: `make test` and `make test-slow` run them."
    ]
    file = ""
    for test in named:
        if test.partition("::")[0] != file:
            file = test.partition("::")[0]
            parts.append(f"## {file} {{ #{_slug(file)} }}")
        name = test.rpartition("::")[2]
        code = _function(root / file, name)
        parts.append(f"### {name} {{ #{_slug(test)} }}\n\n````python\n{code}\n````")
    return "\n\n".join(parts) + "\n"


def _entries(folder: Path) -> list[dict[str, Any]]:
    return tomllib.loads((folder / "ledger.toml").read_text())["entry"]


def _row(entry: dict[str, Any], mutation: str) -> str:
    fields = [
        f"<code>{escape(name)} = {escape(json.dumps(value, ensure_ascii=False))}</code>"
        for name, value in entry.get("fields", {}).items()
    ]
    tests = [
        f'<a href="tests.html#{_slug(test)}">{escape(_words(test))}</a>'
        for test in entry.get("tests", [])
    ]
    broken = [f"Broken on purpose: {_inline(mutation)}"] if mutation else []
    proof = "".join(f"<li>{line}</li>" for line in [*fields, *tests, *broken])
    name, status = entry["id"], entry["status"]
    where, says, ours, why = (_inline(entry[key]) for key in ("where", "says", "ours", "reason"))
    return (
        f'<tr id="{name}" data-status="{status}">'
        f'<td><a class="ledger-id" href="#{name}">{name}</a> '
        f'<span class="ledger-where">{where}</span><p>{says}</p></td>'
        f'<td><p>{ours}</p><p class="ledger-why">{why}</p></td>'
        f'<td><span class="ledger-status {status}">{status}</span></td>'
        f"<td><ul>{proof}</ul></td></tr>"
    )


def _inline(text: str) -> str:
    """Text of a ledger as HTML: only code in backticks is marked in it."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text.strip(), quote=False))


def _words(test: str) -> str:
    return test.rpartition("::")[2].removeprefix("test_").replace("_", " ")


def _slug(test: str) -> str:
    return re.sub(r"\W+", "-", test.removeprefix("tests/").replace(".py", ""))


def _function(file: Path, name: str) -> str:
    """The code of a test, with its decorators."""
    text = file.read_text()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            first = min([node.lineno, *(part.lineno for part in node.decorator_list)])
            return textwrap.dedent("\n".join(text.splitlines()[first - 1 : node.end_lineno]))
    raise LookupError(f"{file}: found no {name}, expected the test that a ledger names.")


def _mutations(file: Path) -> dict[str, str]:
    """{id of the entry: first sentence of its mutation}, as `experiments.mutations` files them."""
    nodes = ast.parse(file.read_text()).body if file.is_file() else []
    return {
        node.name.rstrip("_").replace("_", "-"): (ast.get_docstring(node) or "").partition("\n")[0]
        for node in nodes
        if isinstance(node, ast.FunctionDef)
        and any(
            isinstance(mark, ast.Name) and mark.id == "_mutation" for mark in node.decorator_list
        )
    }
