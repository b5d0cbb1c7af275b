"""The documentation against the code: examples run, what is named exists, tables are current."""

import ast
import configparser
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from experiments import tables
from keras_medseg import cli
from keras_medseg.runs import papers

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "keras_medseg"
START = ROOT / "docs" / "start.md"
PAPERS = sorted(path.parent for path in (ROOT / "experiments").glob("*/recipe.py"))
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *(ROOT / "docs").glob("**/*.md"),
    *(paper / "README.md" for paper in PAPERS),
    ROOT / "benchmarks" / "README.md",
]
PYTHON = [*(ROOT / "keras_medseg").glob("**/*.py"), *(ROOT / "experiments").glob("**/*.py")]
SOURCE = "".join(path.read_text() for path in PYTHON)
# In backticks; with a slash at its end, or one of these suffixes.
PATH = r"`([\w./-]+(?:/|\.(?:py|toml|csv|md|cff|cfg|json|html|png|npy)))`"


def page_name(page):
    return str(page.relative_to(ROOT))


@pytest.fixture(params=PAGES, ids=page_name)
def page(request):
    return request.param


def blocks(page, *languages):
    """[(language, content)] of the fenced blocks of a page, in order."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [block for block in found if block[0] in languages]


def shown_files(page):
    """Paths that stand alone above a fenced block: the page shows the whole file."""
    return set(re.findall(r"^`([\w/.]+)`\n\n```", page.read_text(), re.MULTILINE))


def commands(page, program):
    """Argument lists of the commands of a page's shell blocks that start with `program`."""
    lines = [line for _, text in blocks(page, "bash") for line in text.splitlines()]
    split = [shlex.split(line, comments=True) for line in lines]
    return [words[1:] for words in split if words[:1] == [program]]


def run_python(*arguments, cwd):
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_python_of_the_readme_runs(tmp_path):
    readme = ROOT / "README.md"
    before = ("phantom", "prepare")  # the other commands need a run
    prepared = [words for words in commands(readme, "keras-medseg") if words[0] in before]
    assert tuple(words[0] for words in prepared) == before
    for words in prepared:
        run_python("-m", "keras_medseg.cli", *words, cwd=tmp_path)
    [(_, code)] = blocks(readme, "python")
    printed = run_python("-c", code, cwd=tmp_path)
    losses = [float(text) for text in re.findall(r"epoch \d: loss ([\d.]+)", printed)]
    assert len(losses) == 2
    assert "options" in printed


@pytest.mark.slow
def test_quick_start_with_shipped_weights_runs(tmp_path, monkeypatch):
    """In an empty folder; the label maps on disk are what the predictor gives."""
    monkeypatch.setenv("KERAS_MEDSEG_HOME", str(tmp_path / "home"))
    page = ROOT / "docs" / "sharing.md"
    for words in commands(page, "keras-medseg")[:2]:
        run_python("-m", "keras_medseg.cli", *words, cwd=tmp_path)
    [(_, code)] = blocks(page, "python")
    compare = (
        "written = nibabel.load('label_maps/BraTS2021_00000.nii.gz')\n"
        "np.testing.assert_array_equal(found.labels, np.asarray(written.dataobj), strict=True)\n"
        "print('tumor', int((found.labels > 0).sum()))\n"
    )
    printed = run_python("-c", code + compare, cwd=tmp_path)
    assert "(48, 48, 32) uint8" in printed
    assert int(printed.split("tumor")[1]) > 50


@pytest.mark.slow
def test_network_of_contributing_is_what_its_card_says(tmp_path):
    shown = blocks(ROOT / "CONTRIBUTING.md", "python")
    [code] = [code for _, code in shown if "def two_layers" in code]
    asked = (
        "from keras_medseg import registry\n"
        "model, card = registry.build('two_layers'), registry.card('two_layers')\n"
        "trainable = sum(weight.numpy().size for weight in model.trainable_weights)\n"
        "print(model.count_params(), card.parameters, trainable, card.trainable)"
    )
    *_, built, stated, train, claimed = run_python("-c", f"{code}\n{asked}", cwd=tmp_path).split()
    assert (built, train) == (stated, claimed)


def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)#\s]+)", text)
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_named_files_exist(page):
    """A path in backticks lies in the repository, the package or beside the page, or is the name
    of a file that the code writes or the page shows."""
    roots = (ROOT, PACKAGE, page.parent, ROOT / "experiments" / "dcabes2020")
    words = re.findall(PATH, page.read_text())
    missing = [
        word
        for word in set(words) - shown_files(page)
        if not any((root / word).exists() for root in roots)
        and f'"{word.rstrip("/")}"' not in SOURCE
    ]
    assert missing == []


def test_no_figure_is_left_to_be_filled_in(page):
    assert re.findall(r"<!-- measured:.*?-->", page.read_text()) == []


def test_no_path_of_one_machine(page):
    assert re.findall(r"(?<![\w.])/(?:home|Users|root|tmp|work|mnt)/\S*", page.read_text()) == []


def test_commands_and_options_exist(page, capsys):
    inline = re.findall(r"`keras-medseg ([a-z][^`]*)`", page.read_text())
    named = [*commands(page, "keras-medseg"), *(words.split() for words in inline)]
    for words in named:
        with pytest.raises(SystemExit) as stopped:
            cli.main([words[0], "--help"])
        assert stopped.value.code == 0, words[0]
        printed = capsys.readouterr().out
        assert all(word in printed for word in words if word.startswith("--")), words


def test_readme_names_every_command():
    named = set(re.findall(r"`keras-medseg (\w+)", (ROOT / "README.md").read_text()))
    assert named == {command.run.__name__ for command in cli.COMMANDS}


def test_tables_of_the_readme_are_what_the_code_writes(tmp_path, monkeypatch):
    """`make tables` would change nothing."""
    page = tmp_path / "README.md"
    page.write_text((ROOT / "README.md").read_text())
    monkeypatch.setattr(tables, "README", page)
    tables.main()
    assert page.read_text() == (ROOT / "README.md").read_text()


def test_make_targets_and_variables_exist(page):
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    shown = {Path(name).parent.name for name in shown_files(page) if name.endswith("recipe.py")}
    targets |= {f"reproduce-{paper}" for paper in {*papers.names(), *shown}}
    for words in commands(page, "make"):
        assert words[0] in targets
        for variable in words[1:]:
            assert f"$({variable.partition('=')[0]})" in makefile


def test_ledger_entries_that_a_paper_page_points_at_exist():
    for paper in PAPERS:
        entries = tomllib.loads((paper / "ledger.toml").read_text())["entry"]
        named = re.findall(r"\[`([\w-]+)`\]\(ledger\.toml\)", (paper / "README.md").read_text())
        assert named
        assert set(named) - {entry["id"] for entry in entries} == set()


def test_every_dependency_has_its_reason():
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg")
    lines = [setup["options"]["install_requires"], *setup["options.extras_require"].values()]
    required = set(re.findall(r"^([A-Za-z][\w-]*)", "\n".join(lines), re.MULTILINE))
    text = (ROOT / "docs/dependencies.md").read_text()
    explained = re.findall(r"^\| `([\w-]+)` \|", text, re.MULTILINE)
    assert set(explained) == required


def test_citation_lists_every_paper():
    text = (ROOT / "CITATION.cff").read_text()
    top, _, references = text.partition("\nreferences:\n")
    for key in ("cff-version", "title", "message", "authors", "license"):
        assert re.search(rf"^{key}:", top, re.MULTILINE), key
    listed = re.split(r"^  - (?=type:)", references, flags=re.MULTILINE)[1:]
    assert len(listed) == len(papers.names())
    for paper in listed:
        for line in paper.splitlines():
            assert re.fullmatch(r"\s*(- )?[a-z-]+:( .+)?", line), line
        assert {"title", "authors"} <= set(re.findall(r"^ {4}(\w+):", paper, re.MULTILINE))


def test_the_version_stands_in_one_place():
    """And is the newest of the changelog."""
    from keras_medseg import __version__

    versions = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == __version__
    for name in ("setup.cfg", "setup.py", "CITATION.cff", "README.md", "Dockerfile", "Makefile"):
        assert __version__ not in (ROOT / name).read_text(), name


def test_formats_of_the_versions_page_are_those_of_the_code():
    from keras_medseg import recipe
    from keras_medseg.data import store
    from keras_medseg.runs import packages, run_folder, scan_export

    page = (ROOT / "docs/versions.md").read_text()
    shown = dict(re.findall(r"^\| ([a-z ]+) \| (\d+) \|", page, re.MULTILINE))
    assert {name: int(number) for name, number in shown.items()} == {
        "recipe": recipe.FORMAT,
        "store": store.FORMAT,
        "run folder": run_folder.FORMAT,
        "packed weights": packages.FORMAT,
        "exported graph": scan_export.FORMAT,
    }


def test_jax_alone_is_installed_by_the_command_of_the_page():
    """What is always installed without TensorFlow: pip has no extra that removes a package."""
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg")
    required = re.findall(r"^([\w-]+)", setup["options"]["install_requires"], re.MULTILINE)
    [shown] = re.findall(r"^pip install (jax .+)$", START.read_text(), re.MULTILINE)
    packages = re.findall(r"([\w-]+)(?:>=[\d.]+)?", shown.replace("'", ""))
    assert sorted(packages) == sorted({*required, "jax"} - {"tensorflow", "tensorboard"})


IMPORTS = (ast.Import, ast.ImportFrom)


def imported(node):
    prefix = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
    return [prefix + alias.name for alias in node.names]


def imports(path):
    """Full names of all modules and objects that a file imports, inside of functions too."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, IMPORTS)]
    return [name for node in nodes for name in imported(node)]


def test_experiments_use_public_names_only():
    """But for mutations, which break the inside on purpose."""
    for path in (ROOT / "experiments").glob("**/*.py"):
        if path.name == "mutations.py":
            continue
        words = [name.split(".")[-1] for name in imports(path) if name.startswith("keras_medseg")]
        nodes = ast.walk(ast.parse(path.read_text()))
        words += [node.attr for node in nodes if isinstance(node, ast.Attribute)]
        assert [word for word in words if re.match(r"_[a-z]", word)] == [], path.name


def test_data_imports_no_framework_at_module_level():
    for path in PACKAGE.glob("data/**/*.py"):
        top = [node for node in ast.parse(path.read_text()).body if isinstance(node, IMPORTS)]
        names = {name.split(".")[0] for node in top for name in imported(node)}
        assert names & {"tensorflow", "keras", "jax", "torch"} == set(), path.name
