"""CONTRIBUTING's walk-through, done to the letter in a checkout of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAPER = "example2026"
OWN = ("keras_medseg/models/two_layers.py", f"experiments/{PAPER}/")
GENERATED = ("README.md",)
BY_HAND = ("CITATION.cff",)


def blocks() -> dict[str, str]:
    """Path -> content of every file that the page shows."""
    page = (ROOT / "CONTRIBUTING.md").read_text()
    return dict(re.findall(r"^`([\w/.]+)`\n\n```\w+\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """The repository's files as they are, committed, and the toy paper added."""
    folder = tmp_path_factory.mktemp("checkout") / "repository"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    for name in listed:
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "-m", "all")
    for name, content in blocks().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    page = (ROOT / "CONTRIBUTING.md").read_text()
    [citation] = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    with open(folder / "CITATION.cff", "a") as file:
        file.write(citation)
    return folder


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(folder), "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def test_the_page_shows_every_file_of_a_paper():
    assert set(blocks()) == {
        "keras_medseg/models/two_layers.py",
        *(
            f"experiments/{PAPER}/{name}"
            for name in ("__init__.py", "recipe.py", "ledger.toml", "published.csv", "README.md")
        ),
    }


@pytest.mark.slow
def test_a_paper_touches_only_its_own_files(checkout):
    """Tables written, a run made, the tests of all papers and networks passed, nothing changed."""
    tables = python(checkout, "-m", "experiments.tables")
    assert tables.returncode == 0, tables.stderr
    assert "two_layers" in (checkout / "README.md").read_text()
    ran = python(checkout, "-m", "experiments", PAPER, "--work", str(checkout.parent / "work"))
    assert ran.returncode == 0, ran.stderr + ran.stdout
    assert "Table 1" in ran.stdout
    page = checkout.parent / "work" / f"{PAPER}-quick-phantom" / "report.html"
    assert "Two convolutions" in page.read_text()
    tests = (
        "tests/papers/test_ledgers.py",
        "tests/papers/test_all_papers.py",
        "tests/models/test_all_models.py",
        "tests/test_registry.py",
        "tests/test_docs.py",
    )
    tested = python(
        checkout, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *tests,
        "-k", f"{PAPER} or two_layers or citation or table or ledger or paper",
    )  # fmt: skip
    assert tested.returncode == 0, tested.stdout[-5000:]
    lint = python(checkout, "-m", "ruff", "check", "--no-cache", *OWN)
    assert lint.returncode == 0, lint.stdout
    changed = [line[3:] for line in git(checkout, "status", "--porcelain", "-uall").splitlines()]
    stray = [n for n in changed if not n.startswith((*OWN, *GENERATED, *BY_HAND))]
    assert stray == []
