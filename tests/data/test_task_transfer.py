"""OM-Net's data transfer against the loss layers of its authors, and by hand."""

import json

import numpy as np
import pytest

from keras_medseg import losses
from keras_medseg.data.transforms.task_transfer import transferred

from ..conftest import GOLDENS


@pytest.fixture(scope="module")
def golden():
    """The authors' C++ layers, compiled and run in double on standard normal logits."""
    facts = json.loads((GOLDENS / "omnet_transfer_losses.json").read_text())
    with np.load(GOLDENS / "omnet_transfer_losses.npz") as stored:
        facts["labels"] = [stored[f"label{task}"] for task in (1, 2, 3)]
    return facts


def logits_of(golden: dict, task: int) -> np.ndarray:
    drawn = np.random.RandomState(golden["logit_seeds"][task - 1])
    x = np.float32(drawn.standard_normal(golden["logit_shapes"][task - 1]))
    return np.moveaxis(x, 1, -1)


def batch_of(golden: dict, task: int) -> tuple[np.ndarray, np.ndarray]:
    """Targets and weights of an output, which the original gives the samples up to its task."""
    labels = np.concatenate(golden["labels"][:task])
    return transferred(labels, np.repeat([1, 2, 3][:task], 3))[task]


@pytest.mark.parametrize("task", [2, 3])
def test_samples_that_count(golden, task):
    _, weights = batch_of(golden, task)
    assert (weights > 0).tolist() == golden[f"samples_used_by_task{task}"]
    assert weights.mean() == pytest.approx(1)
    assert len(set(weights[weights > 0])) == 1


@pytest.mark.parametrize("task", [1, 2, 3])
def test_losses_are_those_of_the_authors(golden, task):
    targets, weights = batch_of(golden, task)
    logits = logits_of(golden, task)
    shares = np.eye(logits.shape[-1], dtype="float32")[targets]
    loss = losses.get("categorical_cross_entropy", from_logits=True)
    found = float(loss(shares, logits, sample_weight=weights[:, None, None, None]))
    assert found == pytest.approx(golden["loss"][task - 1], rel=1e-6)


def test_the_loss_of_all_tasks_is_the_sum_of_the_authors_layers(golden):
    labels = np.concatenate(golden["labels"])
    tasks, count = np.repeat([1, 2, 3], 3), len(labels)
    shares, logits = [], []
    for task, (targets, weights) in transferred(labels, tasks).items():
        drawn = logits_of(golden, task)
        one_hot = np.eye(drawn.shape[-1], dtype="float32")[targets]
        shares.append(one_hot * (weights > 0)[:, None, None, None, None])
        # The original computes no logits of an output for samples of a later task.
        padded = np.full((count, *drawn.shape[1:]), 7, "float32")
        padded[: len(drawn)] = drawn
        logits.append(padded)
    loss = losses.get("cross_entropy_by_task", classes=(5, 5, 2), from_logits=True)
    found = float(loss(np.concatenate(shares, axis=-1), np.concatenate(logits, axis=-1)))
    assert found == pytest.approx(sum(golden["loss"]), rel=1e-6)


@pytest.mark.parametrize("task", [2, 3])
def test_gradients_are_those_of_the_authors(golden, task):
    targets, weights = batch_of(golden, task)
    logits = np.float64(logits_of(golden, task))
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    # Of a mean over all voxels of the batch, of which the weights leave those that count.
    gradient = (
        weights[:, None, None, None, None] * (p - np.eye(p.shape[-1])[targets]) / targets.size
    )
    norms = np.sqrt((gradient**2).sum(axis=(1, 2, 3, 4)))
    np.testing.assert_allclose(norms, golden[f"gradient_norms_task{task}"], rtol=1e-5)


def test_a_batch_by_hand():
    """Patches of 10 voxels: 4 of tumor are enough for task 2, 5 of its core for task 3."""
    rows = {
        1: [[1, 2, 3, 3, 0, 0, 0, 4, 4, 4], [1, 2, 3, 0, 0, 0, 0, 4, 4, 4]],
        2: [[1, 1, 3, 3, 3, 0, 2, 4, 2, 2], [1, 1, 3, 3, 2, 2, 2, 2, 2, 2]],
        3: [[1, 0, 0, 0, 0, 0, 0, 0, 0, 0]],
    }
    labels = np.array([row for task in rows.values() for row in task]).reshape(5, 1, 2, 5)
    found = transferred(labels, np.array([1, 1, 2, 2, 3]))
    assert found[1][1].tolist() == [2.5, 2.5, 0, 0, 0]
    np.testing.assert_allclose(found[2][1], [5 / 3, 0, 5 / 3, 5 / 3, 0], rtol=1e-6)
    assert found[3][1].tolist() == [0, 0, 2.5, 0, 2.5]
    assert found[3][0][2].ravel().tolist() == [0, 0, 1, 1, 1, 0, 0, 0, 0, 0]
    assert found[3][0][4].ravel().tolist() == rows[3][0]
    assert found[2][0] is labels


def test_nothing_counts():
    found = transferred(np.zeros((2, 1, 2, 5), int), np.array([1, 1]))
    assert found[2][1].tolist() == found[3][1].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("label", "task", "message"),
    [
        (5, 1, r"labels of tasks 1 and 2: found \[5\], expected 0 to 4"),
        (2, 3, r"labels of task 3: found \[2\], expected 0 to 1"),
        (0, 4, r"tasks: found \[4\], expected 1 to 3"),
    ],
)
def test_what_is_no_label_is_refused(label, task, message):
    with pytest.raises(ValueError, match=message):
        transferred(np.full((1, 1, 2, 2), label), np.array([task]))
