"""A run from data to report: its steps, its folder, its provenance."""
