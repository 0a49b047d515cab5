"""TensorRT engines of this machine: compiled, proven, recorded, and kept in a private folder.

    bundle's ONNX -> builder -> inspector (precision proof) -> parity -> latency -> engine_cache

An engine is executable code for one TensorRT on one GPU, so it is never copied between machines:
`engine_cache` returns only engines that this user built here, and `plan_header` refuses foreign
bytes before TensorRT deserializes them.
"""
