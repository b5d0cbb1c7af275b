"""Statements that are broken on purpose are noticed by the tests that their entries name."""

import os
import subprocess
import sys

import pytest

from experiments import mutations
from experiments.mutations import Entry, Outcome, verdict

ENTRY = Entry("paper", "id", ("tests/a.py::one", "tests/a.py::two"))
CLEAN = Outcome(passed=("tests/a.py::one[x]", "tests/a.py::one[y]", "tests/a.py::two"))


@pytest.mark.slow
def test_a_sample_of_the_mutations_is_killed():
    """KERAS_MEDSEG_SEED draws other ones; `make mutations` runs them all."""
    seed = os.environ.get("KERAS_MEDSEG_SEED", "0")
    command = [sys.executable, "-m", "experiments.mutations", "--sample", "6", "--seed", seed]
    done = subprocess.run(
        command, cwd=mutations.ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("mutated", "clean", "expected"),
    [
        (Outcome(failed={"tests/a.py::two": "1 == 2"}), CLEAN, "killed"),
        (CLEAN, CLEAN, "survived"),
        (Outcome(trouble="ran for too long"), CLEAN, "broken"),
        # One of the tests fails anyway, or is no longer there.
        (
            Outcome(failed={"tests/a.py::two": ""}),
            Outcome(failed={"tests/a.py::one[x]": ""}, passed=CLEAN.passed[1:]),
            "broken",
        ),
        (Outcome(failed={"tests/a.py::two": ""}), Outcome(passed=CLEAN.passed[:2]), "broken"),
    ],
)
def test_verdicts(mutated, clean, expected):
    assert verdict(ENTRY, mutated, clean)[0] == expected


@pytest.mark.slow
def test_each_job_has_its_own_process(tmp_path):
    """A mutation that breaks nothing is seen to survive, and leaves nothing behind."""
    test = tmp_path / "test_here.py"
    test.write_text("import os\n\ndef test_it():\n    assert os.environ.setdefault('X', '1')\n")
    jobs = [([f"{test}::test_it"], "")] * 3 + [([f"{test}::test_lost"], "")]
    *ran, lost = mutations.run_all(jobs)
    assert [len(outcome.passed) for outcome in ran] == [1, 1, 1]
    assert "USAGE_ERROR" in lost.trouble
    assert "X" not in os.environ


def test_collecting_refuses_a_second_mutation_of_an_entry():
    found = {}
    collect = mutations.collector(found)

    def cbam_place(patch):
        """Elsewhere."""

    collect(cbam_place)
    assert found.keys() == {"cbam-place"}
    with pytest.raises(ValueError, match="found cbam-place twice"):
        collect(cbam_place)


def test_substituting_reaches_modules_and_their_tables(monkeypatch):
    from keras_medseg.layers import residual

    original = residual.separable
    mutations.substitute(monkeypatch, original, lambda *arguments, **options: "mutated")
    assert residual.separable(1, name="x") == "mutated"
    assert residual.RESIDUAL_BLOCKS["separable"] is residual.separable
    monkeypatch.undo()
    assert residual.RESIDUAL_BLOCKS["separable"] is residual.separable is original
    with pytest.raises(LookupError, match="found in no module"):
        mutations.substitute(monkeypatch, lambda: None, lambda: None)
