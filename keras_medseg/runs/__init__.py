"""A run from data to report: its steps, folder, provenance and report."""
