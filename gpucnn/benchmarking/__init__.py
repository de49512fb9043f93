"""Whole training steps side by side with PyTorch: each contender in its own process, rounds in turn."""
