"""Training of the networks of a recipe, with exact resume."""
