"""What is done to a predicted label map before it is written and scored."""

import numpy as np
from scipy import ndimage


def drop_small_components(labels: np.ndarray, smallest: float) -> np.ndarray:
    """Remove connected components that are small beside the largest one; mtds2021, section 3.4.

    A component is everything predicted that hangs together through faces, edges or corners (26
    neighbours), whatever its labels.

    Args:
        labels: (X, Y, Z) label map, 0 is background.
        smallest: share of the largest component's voxels; what is below it becomes background. The
            paper's is 0.1; 0 keeps all.

    Returns:
        A new (X, Y, Z) map of the same dtype, or `labels` itself where nothing is removed.

    Raises:
        ValueError: for a share outside of 0 to 1.
    """
    if not 0 <= smallest <= 1:
        raise ValueError(f"smallest: found {smallest}, expected a share of 0 to 1.")
    if not smallest or not labels.any():
        return labels
    components, _ = ndimage.label(labels, structure=np.ones((3,) * labels.ndim))
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    kept = sizes >= smallest * sizes.max()
    return np.where(kept[components], labels, 0).astype(labels.dtype)
