"""The networks, one file each, to be read beside the paper's figure.

Shared skeletons begin with an underscore. Files are found by `keras_medseg.registry`, not listed.
"""
