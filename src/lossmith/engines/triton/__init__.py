"""Kernels for GPUs; imported only where they run, since Triton is optional."""
