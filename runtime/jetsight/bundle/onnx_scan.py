"""Refusal of ONNX bytes whose weights are in other files, without the `onnx` package.

Given bytes and no path, TensorRT, ONNX Runtime and OpenVINO still follow external data, relative to
the working directory (measured: TensorRT-RTX 1.7.1, onnxruntime 1.32, openvino 2026.4), so a graph
could make them read any file. The scan walks the protobuf and skips the weights, which takes
milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator

from jetsight.errors import EngineError

# Field numbers of onnx.proto that can hold tensors, per message.
_GRAPH_OF_MODEL, _TRAINING_OF_MODEL, _FUNCTIONS_OF_MODEL = 7, 20, 25
_GRAPHS_OF_TRAINING = (1, 2)
_NODES_OF_GRAPH, _TENSORS_OF_GRAPH, _SPARSE_OF_GRAPH = 1, 5, 15
_NODES_OF_FUNCTION, _DEFAULTS_OF_FUNCTION = 7, 11
_ATTRIBUTES_OF_NODE = 5
_TENSORS_OF_ATTRIBUTE, _GRAPHS_OF_ATTRIBUTE, _SPARSE_OF_ATTRIBUTE = (5, 10), (6, 11), (22, 23)
_TENSORS_OF_SPARSE = (1, 2)
_NAME_OF_TENSOR, _EXTERNAL_OF_TENSOR, _LOCATION_OF_TENSOR = 8, 13, 14
_MAX_DEPTH = 16  # subgraphs of subgraphs
_Field = tuple[int, memoryview | int]


def refuse_external_data(graph: bytes, what: str) -> None:
    """Raise unless every weight of an ONNX graph is inside `graph`.

    Args:
        graph: ONNX bytes.
        what: name of the graph in messages.

    Raises:
        EngineError: a weight is elsewhere, or the bytes are no protobuf.
    """
    try:
        found = next(_external(memoryview(graph)), None)
    except (IndexError, ValueError):  # IndexError: the bytes end inside a number
        raise EngineError(
            f"{what}: not a readable ONNX graph; compile the bundle again: jetsight compile"
        ) from None
    if found is not None:
        raise EngineError(
            f"{what}: weight {found} is outside the bundle (ONNX external data), which is never "
            "read; compile the bundle again: jetsight compile"
        )


def _external(model: memoryview) -> Iterator[str]:
    for number, value in _messages(model):
        if number == _GRAPH_OF_MODEL:
            yield from _in_graph(value, 0)
        elif number == _TRAINING_OF_MODEL:
            for inner, graph in _messages(value):
                if inner in _GRAPHS_OF_TRAINING:
                    yield from _in_graph(graph, 0)
        elif number == _FUNCTIONS_OF_MODEL:
            for inner, part in _messages(value):
                if inner == _NODES_OF_FUNCTION:
                    yield from _in_node(part, 0)
                elif inner == _DEFAULTS_OF_FUNCTION:
                    # A node's `ref_attr_name` takes its tensor from here (measured: onnxruntime).
                    yield from _in_attribute(part, 0)


def _in_graph(graph: memoryview, depth: int) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deep")
    for number, value in _messages(graph):
        if number == _TENSORS_OF_GRAPH:
            yield from _in_tensor(value)
        elif number == _SPARSE_OF_GRAPH:
            yield from _in_sparse(value)
        elif number == _NODES_OF_GRAPH:
            yield from _in_node(value, depth)


def _in_node(node: memoryview, depth: int) -> Iterator[str]:
    for number, attribute in _messages(node):
        if number == _ATTRIBUTES_OF_NODE:
            yield from _in_attribute(attribute, depth)


def _in_attribute(attribute: memoryview, depth: int) -> Iterator[str]:
    for number, value in _messages(attribute):
        if number in _TENSORS_OF_ATTRIBUTE:
            yield from _in_tensor(value)
        elif number in _GRAPHS_OF_ATTRIBUTE:
            yield from _in_graph(value, depth + 1)
        elif number in _SPARSE_OF_ATTRIBUTE:
            yield from _in_sparse(value)


def _in_sparse(sparse: memoryview) -> Iterator[str]:
    for number, value in _messages(sparse):
        if number in _TENSORS_OF_SPARSE:
            yield from _in_tensor(value)


def _in_tensor(tensor: memoryview) -> Iterator[str]:
    name, outside = "without a name", False
    for number, value in _fields(tensor):
        if number == _NAME_OF_TENSOR and isinstance(value, memoryview):
            name = ascii(bytes(value[:80]).decode(errors="replace"))
        # Either field is enough, since a hostile graph may set only one.
        outside = outside or number == _EXTERNAL_OF_TENSOR
        outside = outside or (number == _LOCATION_OF_TENSOR and value != 0)
    if outside:
        yield name


def _messages(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Iterate over the fields that have a length; numbers are skipped."""
    for number, value in _fields(data):
        if isinstance(value, memoryview):
            yield number, value


def _fields(data: memoryview) -> Iterator[_Field]:
    """Iterate over field numbers and values of one message, without copying."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7  # 0 varint, 1 eight bytes, 2 length-prefixed, 5 four bytes
        if kind == 0:
            number, at = _varint(data, at)
            yield tag >> 3, number
            continue
        size = {1: 8, 5: 4}.get(kind)  # kinds 3 and 4, groups, are not in onnx.proto
        if kind == 2:
            size, at = _varint(data, at)
        if size is None or size > len(data) - at:
            raise ValueError("no protobuf")
        yield tag >> 3, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:  # protobuf's integers have at most 64 bits
            raise ValueError("no varint")
