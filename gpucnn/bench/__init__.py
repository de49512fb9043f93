"""gpucnn beside PyTorch, and where the time of a step goes."""
