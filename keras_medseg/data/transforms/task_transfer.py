"""OM-Net's data transfer: samples of a coarser task that also train a finer one.

Zhou, Ding, Wang, Lu, Tao 2020 (arXiv 1906.01796), as in the loss layers of their repository
(C3D/core_softmax_loss_layer.cpp, enh_softmax_loss_layer.cpp). A batch has samples of three tasks,
the network an output for each. Task 1 learns from its own samples, task 2 from those of tasks 1 and
2, task 3 from all; a sample of another task counts only if it shows enough of the region.

Labels are those of the repository: 1, 2 and 3 are tumor, 1 and 3 its core, 3 is enhancing; the
labels of task 3 are 0 and 1.
"""

import numpy as np

TUMOR, CORE, ENHANCING = (1, 2, 3), (1, 3), 3
# Of a patch of 16 x 32 x 32 voxels, 6553 and 8192.
SHARES = {2: (TUMOR, 0.4), 3: (CORE, 0.5)}


def transferred(labels: np.ndarray, tasks: np.ndarray) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """What each output of OM-Net learns from a batch.

    Args:
        labels: (N, D, H, W), each sample with the labels of its own task.
        tasks: (N,), 1, 2 or 3: the task that a sample was drawn for.

    Returns:
        {task: (targets, weights)}: the classes (N, D, H, W), and for each sample (N,) how often it
        counts. Weights are 0 or equal, and their mean is 1, so that the mean of the weighted cross
        entropies of a batch is that over the samples that count. If none does, all are 0.

    Raises:
        ValueError: a task or a label that is none.
    """
    for what, found, most in (
        ("tasks", tasks, (1, 3)),
        ("labels of tasks 1 and 2", labels[tasks < 3], (0, 4)),
        ("labels of task 3", labels[tasks == 3], (0, 1)),
    ):
        if not np.isin(found, range(most[0], most[1] + 1)).all():
            values = np.unique(found).tolist()
            raise ValueError(f"{what}: found {values}, expected {most[0]} to {most[1]}.")
    enhancing = np.where((tasks < 3)[:, None, None, None], labels == ENHANCING, labels)
    targets = {1: labels, 2: labels, 3: enhancing.astype(labels.dtype)}
    return {task: (targets[task], _weights(labels, tasks, task)) for task in targets}


def _weights(labels: np.ndarray, tasks: np.ndarray, task: int) -> np.ndarray:
    counts = tasks == task
    if task in SHARES:
        region, share = SHARES[task]
        voxels = np.isin(labels, region).sum(axis=(1, 2, 3))
        counts |= (tasks < task) & (voxels >= int(share * labels[0].size))
    return (counts / max(counts.mean(), 1 / len(counts))).astype(np.float32)
