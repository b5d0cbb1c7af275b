"""A slice of the fuzzing of docs/fuzzing.md, and the fuzzer itself on readers that are at fault."""

import gzip
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from .fuzz import kinds, mutate, run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs signals and pipes")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="measures memory by /proc")
@pytest.mark.parametrize("kind", run.SHARES)
def test_damaged_files_are_read_rightly_or_refused_in_one_line(kind):
    (result,) = run.run({kind: 60}, seed=20)
    assert result.failures == []
    assert result.files == 60
    assert result.outcomes["refused"] > 5


def _fails(monkeypatch, read, outcome, sound=lambda *_: "") -> None:
    changed = replace(kinds.KINDS["bmp"], read=read, sound=sound, seconds=0.3)
    monkeypatch.setitem(kinds.KINDS, "bmp", changed)
    assert run.one_case("bmp", 0, 0).startswith(outcome)


def test_the_fuzzer_finds_what_is_wrong(monkeypatch):
    def traceback(folder, victim):
        raise KeyError("x")

    def no_words(folder, victim):
        raise ValueError("bad file")

    def many_lines(folder, victim):
        raise ValueError("x: found a,\nexpected b")

    def hang(folder, victim):
        time.sleep(5)

    _fails(monkeypatch, traceback, "FAILURE: KeyError")
    _fails(monkeypatch, no_words, "FAILURE: ValueError without what was found")
    _fails(monkeypatch, many_lines, "FAILURE: ValueError without what was found")
    _fails(monkeypatch, hang, "FAILURE: more than 0.3 s")
    _fails(monkeypatch, lambda *_: 1, "FAILURE: read other pixels", lambda *_: "other pixels")
    _fails(monkeypatch, lambda *_: 1, "read")


def test_a_case_is_always_the_same(tmp_path):
    for name in ("a", "b"):
        run.one_case("png", 3, 8, tmp_path / name)
    assert (tmp_path / "a/x.png").read_bytes() == (tmp_path / "b/x.png").read_bytes()
    run.one_case("png", 3, 9, tmp_path / "c")
    assert (tmp_path / "a/x.png").read_bytes() != (tmp_path / "c/x.png").read_bytes()


def test_a_process_that_dies_is_a_failure_of_the_file_it_was_at(monkeypatch):
    code = "import os; print('[0, \"read\", 0.1]', flush=True); os._exit(9)"
    monkeypatch.setattr(run.subprocess, "Popen", _popen_of(code, run.subprocess.Popen))
    result = run.Result("bmp")
    assert run._run_process(result, 0, 0, 5) == 2
    assert result.outcomes == {"read": 1}
    (failure,) = result.failures
    assert failure.startswith("1: the process died or hung")


def _popen_of(code, popen):
    return lambda command, **options: popen([sys.executable, "-c", code], **options)


def test_resealed_png_has_right_checksums():
    (tree, *_) = kinds.KINDS["png"].trees()
    (content,) = tree.values()
    assert mutate.resealed_png(content) == content
    broken = content[:20] + bytes([content[20] ^ 1]) + content[21:]
    sealed = mutate.resealed_png(broken)
    assert sealed[:29] == broken[:29]  # the header's chunk
    assert sealed[29:33] != broken[29:33]  # its checksum


def test_damage_to_what_gzip_contains_is_whole_gzip():
    tree = next(tree for tree in kinds.KINDS["nifti"].trees() if "x.nii.gz" in tree)
    content = tree["x.nii.gz"]
    made = mutate.inside_gzip(np.random.default_rng(1), content, [content])
    assert gzip.decompress(made) != gzip.decompress(content)


def test_what_is_no_file_any_more(tmp_path):
    found = set()
    for seed in range(300):
        folder = tmp_path / str(seed)
        rng = np.random.default_rng(seed)
        found.add(mutate.write_tree(rng, {"a": b"x"}, folder, "a"))
    assert found == {
        "changed", "missing", "a folder", "a link to nowhere", "a link to itself", "a pipe",
    }  # fmt: skip
