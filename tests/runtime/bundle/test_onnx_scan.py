"""Weights outside the graph are found wherever ONNX lets them hide."""

from __future__ import annotations

import random

import numpy as np
import onnx
import pytest
from helpers.runtime.engine_factory import encode, forecast
from onnx import TensorProto, helper, numpy_helper

from jetsight.bundle.onnx_scan import refuse_external_data
from jetsight.errors import EngineError


def outside(name: str = "secret", location: str = "../w.bin") -> TensorProto:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def _initializer(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(outside())


def _constant() -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["c"], value=outside())


def _attribute(model: onnx.ModelProto) -> None:
    model.graph.node.append(_constant())


def _subgraph(model: onnx.ModelProto) -> None:
    inner = helper.make_graph([_constant()], "inner", [], [])
    model.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=inner))


def _sparse(model: onnx.ModelProto) -> None:
    indices = numpy_helper.from_array(np.arange(4, dtype=np.int64), "i")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(outside(), indices, [8]))


def _function(model: onnx.ModelProto) -> None:
    opset = [helper.make_opsetid("", 23)]
    model.functions.append(helper.make_function("me", "F", [], ["c"], [_constant()], opset))


def _function_default(model: onnx.ModelProto) -> None:
    """A function's default attribute, which a `Constant` in it refers to by name."""
    node = helper.make_node("Constant", [], ["c"])
    node.attribute.add(name="value", ref_attr_name="v", type=onnx.AttributeProto.TENSOR)
    opset = [helper.make_opsetid("", 23)]
    default = helper.make_attribute("v", outside())
    model.functions.append(
        helper.make_function("me", "F", [], ["c"], [node], opset, attribute_protos=[default])
    )


def _training(model: onnx.ModelProto) -> None:
    model.training_info.add().algorithm.CopyFrom(
        helper.make_graph([], "step", [], [], initializer=[outside()])
    )


def _function_default_subgraph(model: onnx.ModelProto) -> None:
    inner = helper.make_graph([_constant()], "inner", [], [])
    _function_default(model)
    model.functions[-1].attribute_proto[0].CopyFrom(helper.make_attribute("v", inner))


def _half_said(model: onnx.ModelProto) -> None:
    """A location without the flag; a reader may still follow it."""
    tensor = outside()
    tensor.ClearField("data_location")
    model.graph.initializer.append(tensor)


@pytest.mark.parametrize(
    "hide",
    [
        _initializer,
        _attribute,
        _subgraph,
        _sparse,
        _function,
        _function_default,
        _function_default_subgraph,
        _training,
        _half_said,
    ],
)
def test_external_data_is_refused_wherever_it_hides(hide) -> None:
    model = encode()
    hide(model)
    with pytest.raises(EngineError, match=r"^g: weight 'secret' is outside the bundle") as caught:
        refuse_external_data(model.SerializeToString(), "g")
    assert "compile the bundle again" in str(caught.value)


@pytest.mark.parametrize("model", [encode(), forecast()], ids=["encode", "forecast"])
def test_self_contained_graphs_pass(model) -> None:
    refuse_external_data(model.SerializeToString(), "g")


def test_cut_and_damaged_bytes_end_in_one_line_or_pass() -> None:
    """Whatever the bytes are, nothing but `EngineError` comes out."""
    whole, draw = encode().SerializeToString(), random.Random(0)
    refused = 0
    for _ in range(300):
        data = bytearray(whole[: draw.randrange(1, len(whole))])
        for _ in range(draw.randrange(4)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        try:
            refuse_external_data(bytes(data), "g")
        except EngineError:
            refused += 1
    assert refused > 100


def test_nesting_without_end_is_refused() -> None:
    graph = helper.make_graph([], "g", [], [])
    for _ in range(20):
        node = helper.make_node("If", ["x"], ["y"], then_branch=graph)
        graph = helper.make_graph([node], "g", [], [])
    with pytest.raises(EngineError, match="not a readable ONNX graph"):
        refuse_external_data(helper.make_model(graph).SerializeToString(), "g")
