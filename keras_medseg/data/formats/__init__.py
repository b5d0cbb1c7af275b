"""Single files, strictly checked when read and atomically written: NIfTI, images, masks, CSV."""
