"""Manifest 1.2: heads and planners, what is refused, what `inspect` and golden data make of it."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from helpers.runtime.bundle_factory import make_golden, make_manifest
from helpers.runtime.live_planner import PLANNER, families, golden_problem, make_planning_bundle

from jetsight.bundle import golden, manifest
from jetsight.bundle.manifest import FileEntry
from jetsight.bundle.planner_spec import HazardSpec, HeadSpec, PlannerSpec, graph_name
from jetsight.bundle.planner_tensors import PlannerTensors
from jetsight.bundle.runtime_spec import PlanSpec
from jetsight.cli.inspect import inspect
from jetsight.errors import ArtefactError, BundleError

GRAPH = PLANNER.graph
WEIGHED = dataclasses.replace(PLANNER, probe_weight={"x": 1.0})
HEADS = HeadSpec(("x", "y"), ("px", "px"), (50.0, 40.0), (HazardSpec("wall", 0.3, 0.05),), True)
PATHS = [f"graphs/{f}/{g}.onnx" for f in ("cpu-fp32", "cpu-int8") for g in ("encode", "forecast")]
FILES = dict.fromkeys(
    [*PATHS, f"graphs/cpu-fp32/{GRAPH}.onnx", "golden.npz"], FileEntry(10, "ab" * 32)
)
MANIFEST = make_manifest(families=families(), planners=(WEIGHED,), heads=HEADS, files=FILES)
GOOD = json.loads(manifest.dump(MANIFEST))
REMOVE = object()


def changed(path: str, value: Any) -> bytes:
    tree = copy.deepcopy(GOOD)
    *parents, last = [int(k) if k.isdecimal() else k for k in path.split("/")]
    node = tree
    for key in parents:
        node = node[key]
    if value is REMOVE:
        del node[last]
    else:
        node[last] = value
    return json.dumps(tree).encode()


def test_heads_and_planners_round_trip() -> None:
    parsed = manifest.parse(json.dumps(GOOD).encode())
    assert parsed == MANIFEST
    assert parsed.version == manifest.VERSION
    assert parsed.planners == (WEIGHED,)
    assert parsed.heads == HEADS


DEFECTS: list[tuple[str, Any, str]] = [
    ("planners/0/horizon", 3, "looks 3 blocks ahead, but the model was trained for 2"),
    ("planners/0/context", 4, f"context of planner {GRAPH} is 4, expected 1 to 3"),
    ("planners/0/std_start", [1.0], f"std_start of planner {GRAPH} has 1 values, expected 2"),
    ("planners/0/std_start", [1.0, 0.0], "std_start holds 0.0"),
    ("planners/0/kind", "gradient", "is 'gradient', expected 'cem' or 'icem' or 'mppi'"),
    ("planners/0/start", "random", "is 'random', expected 'hold' or 'neutral'"),
    ("planners/0/samples", 1, "samples is 1, expected 2 to 65536"),
    ("planners/0/elites", 17, "elites is 17, expected 2 to 16"),
    ("planners/0/elites", 1, "elites is 1, expected 2 to 16"),
    ("planners/0/kept", 1, "kept of cem is 1, expected 0 to 0"),
    ("planners/0/momentum", 0.5, "momentum of cem is 0.5, expected 0"),
    ("planners/0/iterations", 0, "iterations is 0"),
    ("planners/0/noise_beta", -1, "noise_beta is -1.0"),
    ("planners/0/temperature", 0, "temperature holds 0.0"),
    ("planners/0/weights/running", -1, "expected none below 0"),
    ("planners/0/probe_weight", {"z": 1.0}, "weighs 'z', which is no quantity of the probe"),
    ("planners/0/probe_weight", {"x": -1.0}, "probe_weight of 'x' is -1.0, expected 0 or more"),
    ("planners/0/graph", "../x", "graph is '../x', expected like imagine_icem_256x5"),
    ("planners/0/graph", "imagine_other", f"{GRAPH} of cpu-fp32 must have a file"),
    ("planners", [], f"{GRAPH} of cpu-fp32 must have a file, a precision and a planner"),
    ("planners", [GOOD["planners"][0]] * 2, "repeat themselves"),
    (f"families/0/precision/{GRAPH}", REMOVE, f"{GRAPH} of cpu-fp32 must have"),
    ("heads", None, "weighs 'x', which is no quantity of the probe"),
    ("heads/units", ["px"], "heads: units has 1 values, expected 2"),
    ("heads/scale", [1.0, 0.0], "heads: scale holds 0.0"),
    ("heads/quantities", ["x", "x"], "repeat themselves"),
    ("heads/hazards/0/miss_rate", 1.0, "miss_rate is 1.0"),
    ("heads/hazards/0/threshold", 1e39, "expected finite float32 numbers"),
]


@pytest.mark.parametrize(("path", "value", "message"), DEFECTS)
def test_defect_is_refused_with_its_key(path: str, value: Any, message: str) -> None:
    with pytest.raises(BundleError) as caught:
        manifest.parse(changed(path, value))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_planner_whose_graph_nobody_has_is_refused() -> None:
    tree = copy.deepcopy(GOOD)
    del tree["files"][f"graphs/cpu-fp32/{GRAPH}.onnx"], tree["families"][0]["precision"][GRAPH]
    with pytest.raises(BundleError, match=f"no family has the graph of planner {GRAPH}"):
        manifest.parse(json.dumps(tree).encode())


def test_facts_of_every_kind_can_be_made() -> None:
    common = {"samples": 8, "horizon": 1, "context": 1, "rate_limited": True, "iterations": 1}
    for kind, more in (("icem", {"elites": 4, "kept": 4}), ("mppi", {"elites": 0})):
        facts = PlannerSpec(graph=f"imagine_{kind}", kind=kind, std_start=(1.0,), **common, **more)
        assert facts.kind == kind


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 0}, "samples is 0, expected 2 to 65536"),
        ({"samples": 1, "elites": 1}, "samples is 1, expected 2 to 65536"),
        ({"horizon": 0}, "horizon is 0, expected 1 to 1024"),
        ({"context": 0}, "context is 0, expected 1 to 1024"),
        ({"elites": 1}, "elites is 1, expected 2 to 16"),
        ({"elites": 17}, "elites is 17, expected 2 to 16"),
        ({"kind": "mppi", "elites": -1}, "elites is -1, expected 0 to 16"),
        ({"kept": 2}, "kept of cem is 2, expected 0 to 0"),
        ({"kind": "icem", "kept": 5}, "kept of icem is 5, expected 0 to 4"),
        ({"kind": "icem", "momentum": 1.0}, "momentum of icem is 1.0, expected 0 to below 1"),
        ({"momentum": 0.5}, "momentum of cem is 0.5, expected 0"),
    ],
)
def test_a_spec_that_describes_no_planner_is_refused(changes: Any, message: str) -> None:
    with pytest.raises(ArtefactError, match=message):
        dataclasses.replace(PLANNER, **changes)


def test_a_graph_is_named_after_kind_and_size() -> None:
    assert graph_name("icem", 8, 1) == "imagine_icem_8x1"


def tensors_of(planner: PlannerSpec, **changes: Any) -> PlannerTensors:
    facts = dataclasses.replace(MANIFEST, planners=(planner,), **changes)
    return PlanSpec.from_manifest(facts).tensors[planner.graph]


def test_a_spec_names_the_arrays_of_a_graph() -> None:
    icem = dataclasses.replace(PLANNER, kind="icem", kept=2, context=3, rate_limited=True)
    mppi = dataclasses.replace(PLANNER, kind="mppi")
    given, out = tensors_of(icem).inputs, tensors_of(icem).outputs
    assert given["kept"] == out["kept_next"] == (2, 2, 4)
    assert (given["z_hist"], given["a_hist"], given["rate"]) == ((3, 4), (2, 4), (2,))
    assert (given["probe_weight"], given["hazard_limit"]) == ((2,), (1,))
    assert "temperature" not in given
    absent = {"a_hist", "kept", "temperature", "rate", "hazard_limit", "probe_given"}
    assert not absent & tensors_of(PLANNER, heads=None).inputs.keys()
    assert tensors_of(mppi, heads=None).inputs["temperature"] == (1,)
    assert PlanSpec.from_manifest(MANIFEST, "cpu-int8").planners == ()


def arrays() -> dict[str, Any]:
    facts = make_manifest(families=families(), planners=(PLANNER,))
    return {"facts": facts, **make_golden(facts)}


def test_golden_iterations_may_come_along_whole_or_not_at_all() -> None:
    held = arrays()
    facts, problem = held.pop("facts"), golden_problem(PLANNER)
    for there in ({}, problem):
        found = golden.load(golden.dump({**held, **there}), facts, "golden.npz")
        assert found.keys() == {**held, **there}.keys()
    for name in problem:
        some = {key: value for key, value in problem.items() if key != name}
        with pytest.raises(BundleError, match="expected arrays"):
            golden.load(golden.dump({**held, **some}), facts, "golden.npz")
    odd = {**problem, f"{GRAPH}__noise": np.zeros((1, 2, 2, 4), np.float32)}
    with pytest.raises(BundleError, match=r"__noise is <f4 \[1, 2, 2, 4\], expected"):
        golden.load(golden.dump({**held, **odd}), facts, "golden.npz")
    with pytest.raises(BundleError, match="expected arrays"):  # of a planner there is not
        golden.load(golden.dump({**held, **problem}), make_manifest(), "golden.npz")


def test_inspect_shows_heads_and_planners(tmp_path: Path) -> None:
    bundle = make_planning_bundle(tmp_path / "x.jetsight", reference=False)
    shown = CliRunner().invoke(inspect, [str(bundle.path)])
    assert shown.exit_code == 0
    assert "imagine_cem_16x2" in shown.output
    assert "16 x 8" in shown.output
    assert "2 blocks, 0.4 s" in shown.output
    assert "Heads" not in shown.output
