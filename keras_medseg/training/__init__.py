"""Recipe -> fitted network, with exact resume."""
