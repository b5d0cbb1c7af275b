"""The experiment of mtds2021."""
