"""Chains of planner iterations on a real GPU: the plan the host would have made, and faster."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from helpers.runtime.bundle_factory import make_manifest
from helpers.runtime.live_planner import PLANNER, families, golden_problem, planner_graph

from jetsight.bundle.parity import rank_agreement
from jetsight.bundle.runtime_spec import PlanSpec
from jetsight.clock import MonotonicClock
from jetsight.planning.graph_iterations import ChainedIterations
from jetsight.planning.iterations import HostIterations, Iterations
from jetsight.planning.noise import Noise
from jetsight.planning.planner import Planner
from jetsight.tensorrt.backend import TensorRtBackend
from jetsight.tensorrt.bindings import open_library
from jetsight.tensorrt.builder import onnx_parser
from jetsight.tensorrt.cuda.driver import PyCudaDevice

pytestmark = pytest.mark.gpu
SPEC = PlanSpec.from_manifest(make_manifest(planners=(PLANNER,), families=families()))
COUNTS = (1, 7, 8, 8, 8, 8)  # new chains, captured chains, replayed chains


@pytest.fixture(scope="module")
def plan() -> bytes:
    return onnx_parser.build(planner_graph(), library=open_library()).engine


@pytest.fixture
def backend() -> Iterator[TensorRtBackend]:
    device = PyCudaDevice()
    opened = TensorRtBackend(device=device)
    yield opened
    opened.close()
    device.close()


def planner(backend: TensorRtBackend, plan: bytes, *, chained: bool) -> Planner:
    block = SPEC.stream.action_block
    noise = Noise(PLANNER.iterations, PLANNER.samples, PLANNER.horizon, block, 2, 0.0)
    iterations: Iterations
    if chained:
        both = (backend.load_plan(plan), backend.load_plan(plan))
        iterations = ChainedIterations(backend, both, noise)
    else:
        iterations = HostIterations(backend.load_plan(plan), noise)
    made = Planner(SPEC, PLANNER, iterations, noise, MonotonicClock())
    made.inputs["z_hist"][:], made.inputs["z_goal"][:] = 0.0, 0.3
    return made


def test_chains_plan_what_the_host_plans(backend: TensorRtBackend, plan: bytes) -> None:
    chained, plain = (planner(backend, plan, chained=c) for c in (True, False))
    for tick, count in enumerate(COUNTS):
        found, expected = (p.plan(tick, iterations=count).copy() for p in (chained, plain))
        assert found.valid
        for name in ("actions", "z_future", "costs", "candidate_costs", "spread"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)
    other = plain.plan(9, iterations=8)  # negative control
    assert not np.array_equal(other.candidate_costs, found.candidate_costs)


def test_every_chain_is_replayed_as_one_graph(backend: TensorRtBackend, plan: bytes) -> None:
    made = planner(backend, plan, chained=True)
    for tick in range(4):
        made.plan(tick, iterations=8)
    iterations = made._iterations
    assert isinstance(iterations, ChainedIterations)
    chain = iterations._chains[0, 0, 8]
    assert chain.graph_problem is None  # type: ignore[attr-defined]
    assert chain.replays  # type: ignore[attr-defined]


def test_candidates_are_ranked_as_numpy_ranks_them(backend: TensorRtBackend, plan: bytes) -> None:
    engine, problem = backend.load_plan(plan), golden_problem(PLANNER)
    assert (rank_agreement(engine, problem, PLANNER.graph) or 0) > 0.99
    key = f"{PLANNER.graph}__costs"
    turned = {**problem, key: -problem[key]}  # negative control
    assert (rank_agreement(engine, turned, PLANNER.graph) or 0) < -0.99


def test_a_chain_is_faster_than_the_host_in_between(backend: TensorRtBackend, plan: bytes) -> None:
    clock, took = MonotonicClock(), {}
    for chained in (True, False):
        made = planner(backend, plan, chained=chained)
        for tick in range(5):
            made.plan(tick, iterations=8)
        begun = clock.now_ns()
        for tick in range(5, 55):
            made.plan(tick, iterations=8)
        took[chained] = clock.now_ns() - begun
    assert took[True] < took[False]
