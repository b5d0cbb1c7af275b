"""Metrics, scores of cases, and statistics over cases."""

from keras_medseg.evaluation.lesions import lesion_wise

__all__ = ("lesion_wise",)
