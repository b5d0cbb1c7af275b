"""Strict reading and writing of files: NIfTI, raster images, masks and manifests."""
