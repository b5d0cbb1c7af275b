"""Goldens of the authors' implementations, and how workers divide the tests."""

import json
import signal
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from xdist.scheduler import LoadScopeScheduling

GOLDENS = Path(__file__).parent / "goldens"

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background job ignores Ctrl-C, and so would the processes that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Golden:
    """`goldens/NAME.json` lists an original's tensors, `NAME.npz` what it put out for the weights
    and the input that follow from their names and shapes."""

    def __init__(self, name: str) -> None:
        facts = json.loads((GOLDENS / f"{name}.json").read_text())
        self.keys: list[tuple[str, list[int]]] = facts["keys"]
        self.input_shapes: list[list[int]] = facts.get("input_shapes", [facts["input_shape"]])
        self.parameters: int = facts["parameters"]
        self.never_called: list[str] = facts["never_called"]
        with np.load(GOLDENS / f"{name}.npz") as stored:
            self.outputs = [stored[f"output{i}"] for i in range(len(facts["outputs"]))]
        self.allowed = [
            1e-5 * max(1, largest) + 10 * error
            for largest, error in zip(facts["max_abs"], facts["float32_error"])
        ]

    def state_dict(self) -> dict[str, np.ndarray]:
        """The original's weights, in PyTorch's layout."""
        return {key: _weight(key, shape) for key, shape in self.keys}

    def image(self) -> np.ndarray:
        """The input, channels last; the first one where there are several."""
        return self.images()[0]

    def images(self) -> list[np.ndarray]:
        """All inputs, channels last; input i is drawn from RandomState(i)."""
        drawn = [
            np.random.RandomState(i).standard_normal(shape)  # channels first
            for i, shape in enumerate(self.input_shapes)
        ]
        return [np.moveaxis(np.float32(x), 1, -1) for x in drawn]

    def errors(self, outputs: list[np.ndarray]) -> list[float]:
        """Largest deviation of each channels-last output, in parts of what is allowed."""
        ours = [np.moveaxis(np.asarray(y), -1, 1) for y in outputs]
        assert [y.shape for y in ours] == [y.shape for y in self.outputs]
        return [
            float(np.abs(y - expected).max() / allowed)
            for y, expected, allowed in zip(ours, self.outputs, self.allowed)
        ]


@pytest.fixture
def read_golden() -> Callable[[str], Golden]:
    return Golden


def _weight(key: str, shape: list[int]) -> np.ndarray:
    normal = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
    if key.endswith("running_var"):
        normal = 1 + 0.1 * np.abs(normal)
    elif len(shape) == 1:
        normal = (1 if key.endswith(".weight") else 0) + 0.1 * normal
    else:
        normal /= np.sqrt(np.prod(shape[1:]))
    return np.float32(normal)


class _ByFixture(LoadScopeScheduling):
    """Tests that share a costly fixture run on one worker: those of a file, or of a network."""

    def _split_scope(self, nodeid: str) -> str:
        file, _, test = nodeid.partition("::")
        if file.endswith("test_all_models.py") and "[" in test:
            return f"{file}::{test.partition('[')[2].rstrip(']').partition('-')[0]}"
        return file


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> _ByFixture:
    return _ByFixture(config, log)
