"""gpucnn: a convolutional-network trainer that reads like a lecture, on NumPy and CuPy."""

__version__ = "0.1.0"
