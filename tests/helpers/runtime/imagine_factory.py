"""Inputs of `jetsight imagine` tests: a planning bundle with heads, images, and a recording.

The bundle is that of `live_planner` (8 x 12 px at 10 Hz, K=3, B=2, H=2, a=2). Its probe cost is the
weighted target, whatever the latent, and every candidate violates a hazard limit below 0.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from helpers.runtime import live_bundle
from helpers.runtime.camera_factory import encoded
from helpers.runtime.live_planner import PLANNER, families, planner_graph
from jetsight.bundle.bundle import Bundle
from jetsight.bundle.planner_spec import HazardSpec, HeadSpec, PlannerSpec
from jetsight.storage.atomic import new_directory
from jetsight_train.record.dataset import assemble
from jetsight_train.record.description import DatasetDescription
from jetsight_train.record.staging import EpisodeRows, write_episode

NDArray = np.ndarray[Any, Any]
HEIGHT, WIDTH = live_bundle.HEIGHT, live_bundle.WIDTH
QUANTITIES = ("block_x", "cos block_angle", "sin block_angle")


def heads(threshold: float = 1.0) -> HeadSpec:
    """Make a probe of a position and an angle, and one hazard."""
    hazard = HazardSpec("keep_out", threshold, 0.05)
    return HeadSpec(QUANTITIES, ("px", "", ""), (100.0, 0.7, 0.7), (hazard,))


@cache
def graph_with_heads(planner: PlannerSpec = PLANNER) -> bytes:
    """Make the linear planner's graph with the inputs of the heads."""
    model = onnx.load_from_string(planner_graph(planner=planner))
    graph, count = model.graph, len(QUANTITIES)
    sizes = {"probe_target": count, "probe_given": count, "probe_weight": count, "hazard_limit": 1}
    for name, size in sizes.items():
        graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, (size,)))
    nodes = {node.output[0]: node for node in graph.node}
    nodes["every"].output[0] = "latent_cost"
    nodes["violation"].output[0] = "no_violation"
    graph.output.append(
        helper.make_tensor_value_info("violations", TensorProto.FLOAT, (planner.samples,))
    )
    steps: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("Mul", ["probe_target", "probe_given"], "wanted", {}),
        ("Mul", ["wanted", "probe_weight"], "priced", {}),
        ("ReduceSum", ["priced"], "probe_cost", {"keepdims": 0}),
        ("Add", ["latent_cost", "probe_cost"], "every", {}),
        ("Neg", ["hazard_limit"], "hazard_above", {}),
        ("Relu", ["hazard_above"], "broken", {}),
        ("Add", ["no_violation", "broken"], "violation", {}),
        ("Mul", ["costs", "zero"], "no_violations", {}),
        ("Add", ["no_violations", "broken"], "violations", {}),
    ]
    added = [helper.make_node(kind, given, [out], **more) for kind, given, out, more in steps]
    first = list(graph.node).index(nodes["every"]) + 1
    ordered = [*graph.node[:first], *added[:4], *graph.node[first:], *added[4:]]
    del graph.node[:]
    graph.node.extend(ordered)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def make_imagine_bundle(target: Path, threshold: float = 1.0) -> Bundle:
    """Write a bundle that plans on `cpu-fp32`, with heads; threshold < 0 makes all infeasible."""
    files = {f"graphs/cpu-fp32/{PLANNER.graph}.onnx": graph_with_heads()}
    return live_bundle.make_live_bundle(
        target, files, planners=(PLANNER,), families=families(), heads=heads(threshold)
    )


def make_image(path: Path, seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> NDArray:
    """Write a random image to `path` (png)."""
    image = np.random.default_rng(seed).integers(1, 255, (height, width, 3), np.uint8)
    path.write_bytes(encoded(image, "png"))
    return image


def make_recording(target: Path, *, lengths: tuple[int, ...] = (12, 12, 12), fps: int = 10) -> Path:
    """Write a dataset whose frames and actions encode their episode and tick."""
    staging = target.with_name(f"{target.name}-staging")
    staging.mkdir(parents=True)
    about = DatasetDescription("push", "tiny", fps, (HEIGHT, WIDTH), ["none"], ["x", "y"], extra=())
    for index, length in enumerate(lengths):
        level = 20 + 70 * index + 5 * np.arange(length)
        frames = np.broadcast_to(level[:, None, None, None], (length, HEIGHT, WIDTH, 3))
        frames = np.ascontiguousarray(frames, np.uint8)
        rows = EpisodeRows(actions_of(index, length), np.zeros((length, 1), np.float32))
        write_episode(staging, index, rows, frames, about)
    with new_directory(target) as folder:
        assemble(folder, staging, range(len(lengths)), about)
    return target


def actions_of(index: int, length: int) -> NDArray:
    """Return `float32 [length, 2]` of an episode: 100 times its number plus the tick, and half."""
    x = 100.0 * index + np.arange(length)
    return np.stack([x, x / 2], axis=1).astype(np.float32)
