"""A planner's graph in ONNX that any backend runs: CEM over the linear world of `live_bundle`.

One iteration: candidates, bounds, the world's last latent for each, distance to the goal, the best
of all, and mean and spread of the elites. The horizon is 2 blocks of 2 ticks of 2 numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from helpers.runtime import live_bundle
from helpers.runtime.bundle_factory import make_manifest
from helpers.runtime.live_bundle import ACTIONS, SUM, A, D, H
from jetsight.bundle import golden
from jetsight.bundle.bundle import Bundle
from jetsight.bundle.manifest import Family
from jetsight.bundle.planner_spec import PlannerSpec
from jetsight.bundle.runtime_spec import PlanSpec

NDArray = np.ndarray[Any, Any]
SAMPLES, ELITES = 16, 4
PLANNER = PlannerSpec(
    graph="imagine_cem_16x2",
    kind="cem",
    samples=SAMPLES,
    horizon=H,
    elites=ELITES,
    context=1,
    rate_limited=False,
    start="neutral",
    iterations=8,
    std_start=(60.0, 60.0),
)

# Operator, inputs, outputs and attributes of every node.
_STEPS: list[tuple[str, list[str], list[str], dict[str, Any]]] = [
    ("Mul", ["std", "noise"], ["off"], {}),
    ("Add", ["mean", "off"], ["drawn"], {}),
    ("Reshape", ["incumbent", "one"], ["inc"], {}),
    ("Concat", ["drawn", "inc"], ["all"], {"axis": 0}),
    ("Reshape", ["all", "N"], ["ticks"], {}),
    ("Max", ["ticks", "low"], ["above"], {}),
    ("Min", ["above", "high"], ["inside"], {}),
    ("Reshape", ["inside", "flat"], ["plans"], {}),
    ("MatMul", ["plans", "M"], ["moves"], {}),
    ("MatMul", ["sum", "moves"], ["way"], {}),
    ("Add", ["way", "z_hist"], ["z"], {}),
    ("Sub", ["z", "z_goal"], ["far"], {}),
    ("Mul", ["far", "far"], ["square"], {}),
    ("ReduceSum", ["square", "by_step"], ["each"], {"keepdims": 0}),
    ("MatMul", ["each", "when"], ["distance"], {}),
    ("Slice", ["weights", "a0", "last", "a0"], ["terminal"], {}),
    ("Mul", ["distance", "terminal"], ["weighed"], {}),
    ("Mul", ["weighed", "two"], ["every"], {}),
    ("Slice", ["every", "a0", "samples", "a0"], ["costs"], {}),
    ("TopK", ["costs", "k"], ["low_costs", "places"], {"largest": 0}),
    ("Gather", ["plans", "places"], ["elites"], {"axis": 0}),
    ("ReduceMean", ["elites", "a0"], ["mean_next"], {"keepdims": 0}),
    ("Sub", ["elites", "mean_next"], ["apart"], {}),
    ("Mul", ["apart", "apart"], ["apart2"], {}),
    ("ReduceMean", ["apart2", "a0"], ["biased"], {"keepdims": 0}),
    ("Mul", ["biased", "unbias"], ["variance"], {}),
    ("Sqrt", ["variance"], ["std_next"], {}),
    ("TopK", ["every", "last"], ["cost", "best"], {"largest": 0}),
    ("Gather", ["plans", "best"], ["bests"], {"axis": 0}),
    ("Reshape", ["bests", "plan"], ["actions"], {}),
    ("Gather", ["z", "best"], ["bestz"], {"axis": 0}),
    ("Reshape", ["bestz", "latents"], ["z_future"], {}),
    ("Mul", ["cost", "zero"], ["violation"], {}),
    ("Mul", ["cost", "zero"], ["invalid"], {}),
]


def planner_graph(scale: float = 1.0, planner: PlannerSpec = PLANNER) -> bytes:
    """ONNX bytes of one iteration; a negative `scale` inverts its costs for negative controls."""
    spec = PlanSpec.from_manifest(make_manifest(planners=(planner,), families=families(planner)))
    tensors = spec.tensors[planner.graph]
    inputs, outputs = (
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in side.items()]
        for side in (tensors.inputs, tensors.outputs)
    )
    nodes = [helper.make_node(kind, given, out, **options) for kind, given, out, options in _STEPS]
    constants = _constants(scale, planner.samples)
    initializers = [live_bundle._tensor(name, np.asarray(v)) for name, v in constants.items()]
    return live_bundle._model(nodes, inputs, outputs, initializers)


def _constants(scale: float, n: int) -> dict[str, Any]:
    """Initializers of the graph for `n` samples."""
    return {
        "N": np.array([n + 1, -1, 2], np.int64),
        "flat": np.array([n + 1, H, A], np.int64),
        "one": np.array([1, H, A], np.int64),
        "M": ACTIONS,
        "axis": np.array([1], np.int64),
        "first": np.array([0], np.int64),
        "samples": np.array([n], np.int64),
        "last": np.array([1], np.int64),
        "k": np.array([ELITES], np.int64),
        "two": np.float32(scale),
        "zero": np.zeros(1, np.float32),
        "unbias": np.float32(ELITES / (ELITES - 1)),
        "by_step": np.array([2], np.int64),
        "plan": np.array([H, A], np.int64),
        "latents": np.array([H, D], np.int64),
        "a0": np.array([0], np.int64),
        "sum": SUM,
    }


def families(planner: PlannerSpec = PLANNER) -> tuple[Family, ...]:
    """Return the families of the live bundle, the first one with a planner."""
    first, second = make_manifest().families
    precision = {**first.precision, planner.graph: "fp32"}
    return Family(first.name, first.opset, precision, first.targets, 10), second


def make_planning_bundle(
    target: Path,
    *planners: PlannerSpec,
    graph: bytes | None = None,
    reference: bool = True,
    **changes: Any,
) -> Bundle:
    """Write a live bundle with planners in `cpu-fp32`; `graph` replaces that of the first one."""
    planners = planners or (PLANNER,)
    first, second = make_manifest().families
    precision = {**first.precision, **{p.graph: "fp32" for p in planners}}
    files = {f"graphs/cpu-fp32/{p.graph}.onnx": planner_graph(planner=p) for p in planners}
    if graph is not None:
        files[f"graphs/cpu-fp32/{planners[0].graph}.onnx"] = graph
    arrays = live_bundle.reference()
    if reference:
        arrays.update(golden_problem(planners[0]))
    files["golden.npz"] = golden.dump(arrays)
    able = Family(first.name, first.opset, precision, first.targets, 10)
    changes |= {"planners": planners, "families": (able, second)}
    return live_bundle.make_live_bundle(target, files, **changes)


def golden_problem(planner: PlannerSpec) -> dict[str, NDArray]:
    """Make one iteration for `golden.npz`, with its outputs by numpy."""
    manifest = make_manifest(planners=(planner,), families=families(planner))
    spec, draw = PlanSpec.from_manifest(manifest), np.random.default_rng(3)
    given = {
        name: draw.standard_normal(shape).astype(np.float32)
        for name, shape in spec.tensors[planner.graph].inputs.items()
    }
    given["mean"], given["std"] = given["mean"] * 50 + 256, np.full_like(given["std"], 60)
    given["low"], given["high"] = spec.low, spec.high
    given["weights"][:] = 1.0, 0.0, 0.0
    given["when"][:] = np.eye(len(given["when"]))[-1]
    plans = np.clip(given["mean"] + given["std"] * given["noise"], 0, 512).astype(np.float32)
    z = given["z_hist"] + np.cumsum(plans @ ACTIONS, axis=1)
    costs = ((z[:, -1] - given["z_goal"]) ** 2).sum(axis=1).astype(np.float32)
    mean_next = plans[np.argsort(costs)[:ELITES]].mean(axis=0)
    found = {**given, "costs": costs, "mean_next": mean_next}
    return {golden.planner_key(planner.graph, name): v[None] for name, v in found.items()}
