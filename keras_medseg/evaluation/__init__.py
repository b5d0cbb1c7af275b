"""Metrics, scores of cases, and statistics over cases."""
