"""Quantization: ranges, schemes, Q/DQ graphs and mixed precision."""
