"""What a parsed TensorRT network asks for, read before it is compiled: what is really quantized.

Quantizers have been seen to insert nothing, and parsers to drop what they did not understand; both
are silent. The network is the last place where a graph's promise can be read without a device.
"""

from __future__ import annotations

from typing import Any

_PRODUCTS = ("MATRIX_MULTIPLY", "CONVOLUTION")
# What may stand between a DequantizeLinear and the product it was meant for.
_MOVING = ("SHUFFLE", "IDENTITY", "CAST", "SLICE")


def quantized_products(network: Any) -> tuple[int, int]:
    """Products and convolutions with both inputs dequantized, and with the weight alone.

    The second kind is weight-only quantization.
    """
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    makers = {layer.get_output(i).name: layer for layer in layers for i in range(layer.num_outputs)}
    both = weight_only = 0
    for layer in layers:
        if layer.type.name not in _PRODUCTS or layer.num_inputs < 2:
            continue
        first, second = (_is_dequantized(layer.get_input(i), makers) for i in range(2))
        both += first and second
        weight_only += second and not first
    return both, weight_only


def _is_dequantized(tensor: Any, makers: dict[str, Any]) -> bool:
    """Whether a tensor comes out of a DequantizeLinear, by whatever only moves numbers."""
    while (maker := makers.get(tensor.name)) is not None:
        if maker.type.name == "DEQUANTIZE":
            return True
        if maker.type.name not in _MOVING:
            return False
        tensor = maker.get_input(0)
    return False
