"""Engines built on this machine: compiled, proven, recorded, and kept where only their user writes.

    bundle's ONNX -> builder -> inspector (precision proof) -> parity -> latency -> store

An engine is executable code that fits one TensorRT on one GPU, so it never travels: `store` hands
out only what this user built here, and `plan` refuses foreign bytes before TensorRT sees them.
"""
