"""Convolutions and matrix products on cuDNN."""
