"""CUDA through PyCUDA: memory, copies, streams and graphs."""
