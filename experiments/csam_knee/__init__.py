"""The experiment of csam_knee."""
