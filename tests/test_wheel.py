"""The wheel and the source distribution: what is in them, and a user's first day with them."""

import ast
import email
import json
import os
import re
import runpy
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path, PurePosixPath

import pytest

import keras_medseg
from keras_medseg.runs import papers

ROOT = Path(__file__).parents[1]
SETUP = runpy.run_path(str(ROOT / "setup.py"), run_name="setup")
REPOSITORY = "https://example.org/owner/keras_medseg"
OF_A_PAPER = ("__init__.py", "ledger.toml", "metafile.toml", "published.csv")
TINY = (
    "data.window=(48,48,24)",
    "data.slice_step=8",
    "model.options.filters=4",
    "model.options.attention=False",
    "train.epochs=1",
)


def imported(path: Path) -> set[Path]:
    """The modules of experiments/ that one of them imports, and so on from there."""
    found = {path}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = path.parents[node.level - 1]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            found = found.union(*(imported(base / f"{name}.py") for name in names))
    return found


def needed() -> set[str]:
    """The modules of experiments/ that recipes import, relative to it."""
    return {
        module.relative_to(papers.FOLDER).as_posix()
        for paper in papers.names()
        for module in imported(papers.FOLDER / paper / "recipe.py")
    }


def run(*words, cwd, expected=0, **environment):
    """A command as a user gives it, who knows no checkout."""
    own = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "KERAS_BACKEND")}
    done = subprocess.run(
        list(map(str, words)),
        cwd=cwd,
        env={**own, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == expected, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(wheel, source distribution), the wheel made of the latter, without a network."""
    folder = tmp_path_factory.mktemp("built")
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    for name in filter(lambda name: (ROOT / name).exists(), listed.splitlines()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((ROOT / name).read_bytes())
    code = "import setuptools.build_meta as backend; backend.build_sdist('dist')"
    run(sys.executable, "-c", code, cwd=folder, REPOSITORY=REPOSITORY)
    [source] = (folder / "dist").iterdir()
    options = ("--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", "dist")
    run(sys.executable, "-m", "pip", "wheel", *options, source, cwd=folder, REPOSITORY=REPOSITORY)
    [wheel] = (folder / "dist").glob("*.whl")
    return wheel, source


def test_tools_of_the_checkout_are_no_part_of_a_recipe():
    assert {PurePosixPath(name).stem for name in needed()}.isdisjoint(SETUP["TOOLS"])
    # And the list names every other module: none that is gone, none that would enter a wheel.
    modules = {path.relative_to(papers.FOLDER).as_posix() for path in papers.FOLDER.rglob("*.py")}
    others = {PurePosixPath(name).stem for name in modules - needed()} - {"__init__"}
    assert others == SETUP["TOOLS"]


def test_papers_import_each_other_by_relative_names_alone():
    """A wheel has them under another name."""
    for path in papers.FOLDER.rglob("*.py"):
        names = [
            name
            for node in ast.walk(ast.parse(path.read_text()))
            for name in (
                [node.module or ""]
                if isinstance(node, ast.ImportFrom) and not node.level
                else [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else []
            )
        ]
        assert [name for name in names if name.partition(".")[0] == "experiments"] == [], path


def test_links_of_the_page_lead_somewhere_from_outside():
    page = "![a](docs/images/a.png) [b](docs/b.md#c) [d](#e) [f](https://g.org/) [`h`](i.py)"
    version = keras_medseg.__version__
    assert SETUP["for_registry"](page, REPOSITORY) == (
        f"![a]({REPOSITORY}/raw/v{version}/docs/images/a.png) "
        f"[b]({REPOSITORY}/blob/v{version}/docs/b.md#c) [d](#e) [f](https://g.org/) "
        f"[`h`]({REPOSITORY}/blob/v{version}/i.py)"
    )
    # Nowhere published: no link is better than one that leads nowhere.
    assert SETUP["for_registry"](page, "") == " b [d](#e) [f](https://g.org/) `h`"


@pytest.mark.slow
def test_a_wheel_has_what_it_needs_and_nothing_else(built):
    wheel, source = built
    names = set(zipfile.ZipFile(wheel).namelist())
    package = {
        path.relative_to(ROOT).as_posix()
        for pattern in ("*.py", "py.typed", "polyp_benchmark.csv", "templates/*", "weights/**/*")
        for path in (ROOT / "keras_medseg").rglob(pattern)
        if path.is_file()
    }
    of_papers = {f"{paper}/{name}" for paper in papers.names() for name in OF_A_PAPER}
    of_papers = {f"keras_medseg/papers/{name}" for name in {"__init__.py", *needed(), *of_papers}}
    inside = {name for name in names if ".dist-info/" not in name}
    assert inside - package - of_papers == set()
    assert package | of_papers == inside
    assert wheel.stat().st_size < 2e6
    with tarfile.open(source) as archive:
        parts = [PurePosixPath(name).parts[1:] for name in archive.getnames()]
    tops = {part[0] for part in parts if part}
    assert {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "setup.py"} <= tops
    assert tops.isdisjoint({"tests", "notebooks", "docs", "benchmarks", "website"})


@pytest.mark.slow
def test_metadata_is_complete_and_its_page_leads_somewhere(built):
    """What `twine check` looks at, and that nothing is relative to a checkout."""
    archive = zipfile.ZipFile(built[0])
    [name] = [name for name in archive.namelist() if name.endswith("dist-info/METADATA")]
    metadata = email.message_from_bytes(archive.read(name))
    assert metadata["Version"] == keras_medseg.__version__
    assert metadata["Author"] in (ROOT / "CITATION.cff").read_text()
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata["Requires-Python"] == ">=3.11"
    addresses = dict(text.split(", ") for text in metadata.get_all("Project-URL"))
    assert addresses["Homepage"] == REPOSITORY
    assert {"Source", "Issues", "Changelog"} <= set(addresses)
    assert len(metadata.get_all("Classifier")) >= 10
    page = metadata.get_payload()
    assert "# keras_medseg" in page
    links = re.findall(r"\]\(([^)\s]+)\)", page)
    assert [link for link in links if not link.startswith(("https://", "#"))] == []
    inner = [link for link in links if link.startswith(REPOSITORY)]
    assert inner
    for link in inner:
        path = link.removeprefix(REPOSITORY).split("/", 3)[3].partition("#")[0]
        assert (ROOT / path).exists(), link


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """bin/ of a new environment with the wheel and the packages of this one."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, symlinks=True)
    python = home / "bin" / "python"
    run(
        sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index",
        built[0], cwd=home,
    )  # fmt: skip
    [site] = home.glob("lib/*/site-packages")
    # A folder in a .pth file is searched, but its own .pth files (a checkout's) are not read.
    others = [path for path in sys.path if path.endswith("site-packages")]
    (site / "others.pth").write_text("\n".join(others))
    where = run(python, "-c", "import keras_medseg; print(keras_medseg.__file__)", cwd=home)
    assert Path(where.strip()).is_relative_to(site)
    return home / "bin"


@pytest.mark.slow
def test_a_wheel_reproduces_trains_shares_and_predicts_in_an_empty_folder(installed, tmp_path):
    """Outside of any checkout; the commands of README and of the pages."""
    command = installed / "keras-medseg"
    assert "dcabes2020" in run(command, "recipes", cwd=tmp_path)
    assert "train.epochs" in run(command, "recipes", "iacnn", cwd=tmp_path)
    size = ("--size", "48", "48", "31")
    run(command, "phantom", "small", "--layout", "BraTS2021", "--cases", "3", *size, cwd=tmp_path)

    words = ["dcabes2020", "--data", "small", "--profile", "quick", "--out", "run"]
    words += [token for setting in TINY for token in ("--set", setting)]
    printed = run(command, "reproduce", *words, cwd=tmp_path)
    assert "| Ours, with edge network | 90.59 |" in printed
    assert (tmp_path / "run" / "report.html").exists()
    provenance = json.loads((tmp_path / "run" / "provenance.json").read_text())
    [given] = {entry["command"] for entry in provenance["commands"]}
    assert given.startswith("keras-medseg reproduce dcabes2020 --data small --profile quick")
    assert not (tmp_path / "experiments").exists()
    assert run(command, "report", "run", cwd=tmp_path) == "report: run/report.html\n"

    tiny = [token for setting in TINY for token in ("--set", setting)]
    tiny += ["--set", "model.targets=[['WT','TC','ET']]"]
    run(command, "train", "small", "--recipe", "dcabes2020", "--out", "own", *tiny, cwd=tmp_path)
    name = "own/phantom-small"
    run(command, "pack", "own", "own.zip", "--name", name, cwd=tmp_path)
    home = {"KERAS_MEDSEG_HOME": str(tmp_path / "home")}
    run(command, "install", "own.zip", cwd=tmp_path, **home)
    code = (
        "import numpy, keras_medseg\n"
        f"found = keras_medseg.load({name!r})(numpy.ones((48, 48, 31, 4)), spacing_mm=(1, 1, 1))\n"
        "print(found.labels.shape)"
    )
    shape = run(installed / "python", "-c", code, cwd=tmp_path, **home)
    assert shape == "(48, 48, 31)\n"
