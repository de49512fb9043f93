"""Kernels for the GPU, in CUDA C++: arrays in, arrays out.  ``devices/gpu.py`` says which op uses which.

Importing them needs no CuPy and no GPU; the first launch does.
"""
