"""What the CPU kernels are built on: threads, compilation, vectors, BLAS, memory, random numbers."""
