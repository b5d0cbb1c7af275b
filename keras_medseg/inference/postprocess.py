"""Postprocessing of a predicted label map before it is written and scored."""

import numpy as np
from skimage import measure


def drop_small_components(labels: np.ndarray, smallest: float) -> np.ndarray:
    """Remove connected components that are small relative to the largest; mtds2021, section 3.4.

    A component consists of predicted voxels that are connected through faces, edges or corners (26
    neighbors), whatever their labels.

    Args:
        labels: (X, Y, Z) label map, 0 is background.
        smallest: fraction of the voxels of the largest component; components with fewer become
            background. 0.1 in the paper; 0 keeps all.

    Returns:
        A new (X, Y, Z) map of the same dtype, or `labels` itself if nothing is removed.

    Raises:
        ValueError: the fraction is not 0 to 1.
    """
    if not 0 <= smallest <= 1:
        raise ValueError(f"smallest: found {smallest}, expected a share of 0 to 1.")
    if not smallest or not labels.any():
        return labels
    components = measure.label(labels > 0)  # by default through faces, edges and corners
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    kept = sizes >= smallest * sizes.max()
    return np.where(kept[components], labels, 0).astype(labels.dtype)
