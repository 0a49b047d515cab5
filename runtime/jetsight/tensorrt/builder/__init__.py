"""Build TensorRT engines on this machine and verify them before they are kept."""
