"""Training: the loop, and how a step is computed."""
