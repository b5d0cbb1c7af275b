"""Use of trained networks: prediction, postprocessing, export, complexity, attention maps."""
