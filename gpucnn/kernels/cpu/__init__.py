"""Kernels for the CPU, in Numba and BLAS: arrays in, arrays out.  ``devices/cpu.py`` says which op uses which."""
