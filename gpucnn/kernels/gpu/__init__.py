"""Kernels for the GPU: arrays in, arrays out.  ``backends/gpu.py`` says which op uses which.

CuPy and cuDNN are imported when they are first needed, so these modules can be read and tested without them.
"""
