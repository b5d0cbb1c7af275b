"""The workflow and the Dockerfile, as far as they can be checked without their hosts."""

import configparser
import fnmatch
import re
import shlex
from pathlib import Path

import pytest

from keras_medseg import cli

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[1]
WORKFLOW = ROOT / ".github/workflows/ci.yml"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
IGNORED = (ROOT / ".dockerignore").read_text().split("\n")
SETUP = configparser.ConfigParser(interpolation=None)
SETUP.read(ROOT / "setup.cfg")


def jobs():
    return yaml.safe_load(WORKFLOW.read_text())["jobs"]


def runs(job):
    """The commands of a job, once for each target of its matrix."""
    targets = job.get("strategy", {}).get("matrix", {}).get("target", [None])
    lines = [step["run"] for step in job["steps"] if "run" in step]
    return [line.replace("${{ matrix.target }}", str(t)) for t in targets for line in lines]


def instructions(word):
    joined = DOCKERFILE.replace("\\\n", " ")
    return re.findall(rf"^{word} (.*)", joined, re.MULTILINE)


def test_workflow_runs_the_targets_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    commands = [shlex.split(line) for job in jobs().values() for line in runs(job)]
    made = [words[1] for words in commands if words[0] == "make"]
    assert sorted(made) == ["docs", "lint", "test", "test-slow", "wheel"]
    assert set(made) <= targets
    ours = re.findall(r"^make ([\w-]+)$", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    assert set(ours) <= set(made)
    wheel = re.search(r"^wheel:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)[1]
    [path] = [
        s["with"]["path"]
        for j in jobs().values()
        for s in j["steps"]
        if "path" in s.get("with", {})
    ]
    assert f"--wheel-dir {Path(path).parent}" in wheel


def test_workflow_tries_the_wheel_by_commands_that_exist():
    """Where no checkout is: what it installs is what the job before it built."""
    job = jobs()["installed"]
    assert not any("checkout" in step.get("uses", "") for step in job["steps"])
    assert job["needs"] == "make"
    given = [shlex.split(line)[1:] for line in runs(job) if line.startswith("keras-medseg ")]
    assert {"reproduce", "predict"} <= {words[0] for words in given}
    for words in given:
        cli.make_parser().parse_args(words)


def test_workflow_has_a_python_that_setup_takes():
    [lowest] = re.findall(r">=(\d+)\.(\d+)", SETUP["options"]["python_requires"])
    steps = [step for job in jobs().values() for step in job["steps"]]
    versions = [s["with"]["python-version"] for s in steps if "python-version" in s.get("with", {})]
    versions += [
        value for line in instructions("ARG") for value in re.findall(r"PYTHON=(.*)", line)
    ]
    assert len(versions) == 3
    for version in versions:
        assert tuple(map(int, version.split("."))) >= tuple(map(int, lowest))


def test_neither_names_a_host():
    steps = [step for job in jobs().values() for step in job["steps"]]
    used = [step["uses"] for step in steps if "uses" in step]
    assert used
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", name) for name in used)
    assert all(re.fullmatch(r"ubuntu-\d\d\.\d\d", job["runs-on"]) for job in jobs().values())
    assert instructions("FROM") == ["python:${PYTHON}-slim"]
    for text in (WORKFLOW.read_text(), DOCKERFILE):
        assert "://" not in text
        assert "secrets" not in text
        assert not re.search(r"\d+\.\d+\.\d+\.\d+", text)


def is_ignored(name):
    """As Docker reads .dockerignore: the last line that fits counts."""
    ignored = False
    for line in IGNORED:
        pattern = line.removeprefix("!")
        if line and line[0] != "#" and fnmatch.fnmatch(name, pattern):
            ignored = line[0] != "!"
    return ignored


def copied():
    return [name for line in instructions("COPY") for name in line.split()[:-1]]


def test_dockerfile_copies_what_exists_and_is_not_ignored():
    assert copied()
    for name in copied():
        assert (ROOT / name).exists(), name
        assert not is_ignored(name), name
    assert is_ignored("runs")
    assert is_ignored(".venv")
    allowed = {line[1:] for line in IGNORED if line.startswith("!")}
    assert allowed == set(copied())


def test_dockerfile_copies_what_the_installation_reads():
    read = re.findall(r"file: ([\w.]+)", (ROOT / "setup.cfg").read_text())
    read += re.findall(r'Path\("(README\.md)"\)', (ROOT / "setup.py").read_text())
    assert {*read, "README.md", "setup.cfg", "setup.py"} <= set(copied())
    assert {"keras_medseg", "experiments"} <= set(copied())


def test_extras_of_the_image_exist():
    [line] = [line for line in instructions("RUN") if "pip install" in line]
    assert '".${EXTRAS:+[$EXTRAS]}"' in line
    page = (ROOT / "docs/start.md").read_text() + DOCKERFILE
    arguments = re.findall(r"--build-arg (\w+)=([\w,]+)", page)
    declared = {line.partition("=")[0] for line in instructions("ARG")}
    assert {name for name, _ in arguments} <= declared
    extras = {extra for name, value in arguments if name == "EXTRAS" for extra in value.split(",")}
    assert "cuda" in extras
    assert extras <= set(SETUP["options.extras_require"])


def test_image_starts_the_console_script_and_reproduces():
    [entry] = instructions("ENTRYPOINT")
    scripts = SETUP["options.entry_points"]["console_scripts"]
    assert f"{yaml.safe_load(entry)[0]} =" in scripts
    _, last = instructions("WORKDIR")
    commands = [line for job in jobs().values() for line in runs(job) if "docker run" in line]
    assert any("keras-medseg recipes" in line for line in commands)
    page = (ROOT / "docs/start.md").read_text()
    assert f':{last}"' in page
