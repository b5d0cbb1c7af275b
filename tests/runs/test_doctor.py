"""The examination of a machine, with parts that are missing on purpose."""

import importlib.util
import json
import os
import re
import stat
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from experiments import metafiles
from keras_medseg import cli
from keras_medseg.runs import doctor

PAPERS = sorted(path.parent.name for path in metafiles.HOME.glob("*/metafile.toml"))


@pytest.fixture
def installed(monkeypatch):
    """Replaces what is installed: requirements of the package, and versions."""

    def replace(requirements, versions):
        def version(name):
            if name not in versions:
                raise PackageNotFoundError(name)
            return versions[name]

        monkeypatch.setattr(doctor, "version", version)
        monkeypatch.setattr(doctor, "requires", lambda name: requirements)

    return replace


def test_packages_that_are_missing_or_old_are_named_with_the_command(installed):
    installed(
        ["numpy<3,>=2.0", "keras<4,>=3.12", "rich", 'onnx>=1.17; extra == "export"',
         'tf2onnx; extra == "export"', 'onnx>=1.17; extra == "test"'],
        {"keras_medseg": "0.2.0", "numpy": "2.4.0", "keras": "3.3.0", "tf2onnx": "1.16"},
    )  # fmt: skip
    missing, optional, versions = doctor._packages()
    assert versions == {"keras_medseg": "0.2.0", "numpy": "2.4.0", "keras": "3.3.0"}
    old, absent = missing
    assert old.startswith("keras: found 3.3.0, expected <4,>=3.12. Run: python -m pip install 'ke")
    assert absent.startswith("rich: found none, expected")
    assert optional == [
        "onnx for keras-medseg export: python -m pip install 'keras_medseg[export]'",
        "onnx for the tests: python -m pip install 'keras_medseg[test]'",
    ]


def test_a_package_that_is_not_installed_itself_is_said(installed):
    installed([], {})
    assert doctor._packages()[0] == [
        "keras_medseg: found no installed package, expected one. Install it."
    ]


def test_a_backend_that_does_not_start_is_a_sentence(monkeypatch, capsys):
    from keras_medseg import registry

    def broken():
        raise ImportError("libcuda.so.1:\ncannot open")

    monkeypatch.setattr(registry, "check_versions", broken)
    monkeypatch.setattr(doctor, "_packages", lambda: ([], [], {"keras_medseg": "0.2.0"}))
    assert cli.main(["doctor"]) == 1
    printed = capsys.readouterr().out
    assert "missing    backend " in printed
    assert "found the error ImportError: libcuda.so.1: cannot open\n" in printed
    assert "Nothing is missing" not in printed


def test_a_machine_without_its_backend_is_examined_too():
    code = (
        "import sys\nsys.modules['tensorflow'] = None\nfrom keras_medseg import cli\n"
        "sys.exit(cli.main(['doctor']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "machine    " in done.stdout
    assert re.search("missing    backend tensorflow: found the error .*tensorflow", done.stdout)


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_a_backend_without_gpus_has_a_processor(backend):
    """In a process of its own, because a backend is chosen when Keras is imported."""
    if not importlib.util.find_spec(backend):
        pytest.skip(f"{backend} is not installed")
    code = "from keras_medseg.runs import provenance; print(provenance.devices())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "KERAS_BACKEND": backend, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "['CPU']", done.stderr


def test_the_measured_runs_of_all_papers_are_compared_with_the_free_memory(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "_container_limit", lambda total, free: (8 * 10**9, 1_550_000_000))
    monkeypatch.setattr(doctor, "_packages", lambda: ([], [], {"keras_medseg": "0.2.0"}))
    assert cli.main(["doctor", "--json"]) == 0
    out, err = capsys.readouterr()
    facts = json.loads(out)
    assert facts["machine"]["memory_free_gb"] == 1.6  # 1.55
    results = [(paper, result) for paper in PAPERS for result in metafiles.read_results(paper)]
    assert [(run["paper"], run["memory_gb"]) for run in facts["papers"]] == [
        (paper, result.memory_gb) for paper, result in results
    ]
    assert {run["fits"] for run in facts["papers"]} == {True, False}
    for run, (paper, result) in zip(facts["papers"], results):
        assert run["fits"] == (result.memory_gb <= 1.6)
        line = (
            f"{paper}, {result.data}: {result.time}, {result.memory_gb:g} GB on {result.device} - "
        )
        assert f"{line}{'enough' if run['fits'] else 'not enough'}\n" in err
    assert {str(Path.cwd())} < {*facts["disk"]}


def test_the_limit_of_a_container_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "_CGROUP", tmp_path)
    assert doctor._container_limit(100, 60) == (100, 60)  # none
    (tmp_path / "memory.current").write_text("30\n")
    for limit, expected in (("max", (100, 60)), ("40", (40, 10)), ("20", (20, 0)),
                            ("1000", (100, 60))):  # fmt: skip
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        assert doctor._container_limit(100, 60) == expected


@pytest.mark.skipif(sys.platform == "win32", reason="a script of a shell")
def test_gpus_that_the_backend_does_not_see_are_named(tmp_path, monkeypatch):
    """40960 MiB are 42.9 GB, 1024 MiB 1.1 GB."""
    script = tmp_path / "nvidia-smi"
    script.write_text("#!/bin/sh\necho 'Big GPU, of 2030, 40960, 1024'\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(doctor, "_backend", lambda: ("tensorflow", ["CPU"], []))
    facts = doctor.examine(tmp_path)
    [gpu] = facts["gpus"]
    assert gpu == {"name": "Big GPU, of 2030", "memory_gb": 42.9, "memory_free_gb": 1.1}
    assert any("found 1 NVIDIA GPU that tensorflow does not see" in s for s in facts["optional"])
    assert "GPU        Big GPU, of 2030, 42.9 GB, 1.1 GB free" in doctor.text(facts)
    monkeypatch.setattr(doctor, "_backend", lambda: ("tensorflow", ["Big GPU"], []))
    assert not any("GPU" in sentence for sentence in doctor.examine(tmp_path)["optional"])
