"""The training loop, and how a step is computed."""
