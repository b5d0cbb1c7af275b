"""What is done to voxels and pixels: windows, normalization, resizing, augmentation."""
