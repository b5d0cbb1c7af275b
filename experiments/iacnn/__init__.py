"""The experiment of iacnn."""
