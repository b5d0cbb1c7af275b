"""From files on disk to batches: cases, the store of decoded cases, splits.

Nothing here imports a deep-learning framework at module level, so that decoding in many processes
starts none.
"""
