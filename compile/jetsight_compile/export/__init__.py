"""Export: PyTorch modules to static ONNX graphs."""
