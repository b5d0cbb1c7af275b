"""Batches as pure functions of (seed, epoch, step), and what feeds them to Keras."""
