"""Every planner's graph against its PyTorch reference, with the same draws."""

from __future__ import annotations

import pytest
import torch
from tiny import model_of
from world import PLANNERS, draws, largest_difference, problem_of, run_graph, start

from jetsight.backends.onnxruntime import OnnxRuntimeBackend
from jetsight.backends.openvino import OpenVinoBackend
from jetsight_compile.dense import Style
from jetsight_compile.imagine.graph import Imagination
from jetsight_train.planning.problem import ImagineSpec

BACKENDS = {"onnxruntime": OnnxRuntimeBackend, "openvino": OpenVinoBackend}
SPECS = {
    "cem": ImagineSpec("cem", 32, 3, 8, context=1),
}


@pytest.fixture(scope="module")
def model():
    return model_of(projector=24)


@pytest.fixture(scope="module")
def graphs(model):
    return {name: Imagination(model, Style(20)).export(spec) for name, spec in SPECS.items()}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", SPECS)
def test_a_graph_equals_its_reference(model, graphs, name, backend) -> None:
    spec = SPECS[name]
    problem, noises = problem_of(model, spec), draws(model, spec, 30)
    first = start(model, problem)
    for count in (1, 30):
        with torch.inference_mode():
            expected = PLANNERS[spec.kind].plan(model, problem, first, noises[:count])
        found = run_graph(BACKENDS[backend](), graphs[name], problem, first, noises[:count])
        assert largest_difference(found, expected) < 1e-4
    other = run_graph(BACKENDS[backend](), graphs[name], problem, first, noises[1:2])
    assert largest_difference(other, expected) > 1e-2  # the control: another draw
