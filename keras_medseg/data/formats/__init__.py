"""Single files, read strictly and written whole or not at all: NIfTI, images, masks, manifests."""
