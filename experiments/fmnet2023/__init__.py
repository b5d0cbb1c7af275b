"""The experiment of fmnet2023."""
