"""Transformations of voxels and pixels: windows, normalization, resizing, augmentation."""
