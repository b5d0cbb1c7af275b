"""Building blocks of the networks: plain functions tensor -> tensor, on keras.ops alone."""
