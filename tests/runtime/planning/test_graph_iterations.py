"""Iterations as chains on a fake GPU: the same plan, one launch for many, nothing in between."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from helpers.runtime.planner_factory import HERE, KINDS, SPEC, latent
from helpers.runtime.tensorrt_factory import Rig as Gpu

from jetsight.bundle.planner_spec import HazardSpec, HeadSpec, PlannerSpec
from jetsight.bundle.runtime_spec import PlanSpec
from jetsight.engine import Engine
from jetsight.errors import EngineError
from jetsight.planning import imagine
from jetsight.planning.graph_iterations import LONGEST, ChainedIterations
from jetsight.planning.imagine import PlannerPool, Planning
from jetsight.planning.iterations import HostIterations, Iterations
from jetsight.planning.noise import Noise
from jetsight.planning.plan import PlanReason
from jetsight.planning.planner import Planner
from jetsight.testing import FakeBackend, FakeClock, FakeDevice, FakeImagine, tiny_plan_spec

SEEN = (
    "actions",
    "z_future",
    "costs",
    "spread",
    "candidate_costs",
    "candidate_violations",
)
HOST_WORK = ("upload", "download", "is_done", "record", "wait", "submit", "launch_graph")


class Bench:
    """One planner's engines on a fake GPU, driven by chains, or by the host."""

    def __init__(self, facts: PlannerSpec, *, chained: bool = True, **device: Any) -> None:
        heads = HeadSpec(hazards=(HazardSpec("far", 0.0, 0.05),))
        self.spec: PlanSpec = tiny_plan_spec(SPEC, facts, heads=heads)
        self.gpu = Gpu(FakeDevice(**device))
        world = FakeImagine(self.spec, facts)
        plan = self.gpu.trt.plan(*world.arrays(), world)
        noise = Noise(
            facts.iterations, facts.samples, facts.horizon, SPEC.action_block, 2, facts.noise_beta
        )
        load = self.gpu.backend.load_plan
        self.iterations: Iterations = (
            ChainedIterations(self.gpu.backend, (load(plan), load(plan)), noise)
            if chained
            else HostIterations(load(plan), noise)
        )
        self.clock = FakeClock()
        self.planner = Planner(self.spec, facts, self.iterations, noise, self.clock)
        self.planner.inputs["z_hist"][:], self.planner.inputs["z_goal"][:] = HERE, HERE + 10
        self.planner.inputs["weights"][:] = 1, 0.1, 0
        self.planner.inputs["hazard_limit"][:] = HERE + 12

    @contextmanager
    def watched(self) -> Iterator[list[str]]:
        """The names of device calls made inside."""
        calls: list[str] = []
        before = len(self.gpu.device.calls)
        yield calls
        calls += [call.split()[0] for call in self.gpu.device.calls[before:]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("integrated", [False, True])
def test_chains_plan_what_the_host_plans(kind: str, integrated: bool) -> None:
    chained = Bench(KINDS[kind], integrated=integrated)
    plain = Bench(KINDS[kind], chained=False)
    for tick, count in enumerate((1, 7, 12, 30, 30, 13, 12, 12)):
        plans = [b.planner.plan(tick, iterations=count) for b in (chained, plain)]
        for name in SEEN:
            np.testing.assert_array_equal(*(getattr(plan, name) for plan in plans), err_msg=name)
        assert plans[0].valid
        assert plans[0].invalid == plans[1].invalid == 0
        assert (plans[0].candidate_violations > 0).any() or count > 1
    other = plain.planner.plan(9, iterations=12)  # negative control: another draw, another plan
    assert not np.array_equal(other.actions, plans[0].actions)


def test_a_plan_is_a_few_launches_with_no_host_work_between_iterations() -> None:
    bench = Bench(KINDS["icem"])
    for tick in range(3):  # plain, captured, replayed
        bench.planner.plan(tick, iterations=12)
    while bench.planner.prepare():
        pass
    with bench.watched() as calls:
        bench.planner.plan(3, iterations=12)
    launches = [i for i, name in enumerate(calls) if name == "launch_graph"]
    assert len(launches) == 2  # 8 + 4 iterations
    assert "submit" not in calls
    assert "allocate" not in calls
    assert not [name for name in calls[launches[0] + 1 : launches[1]] if name == "upload"]
    assert [name for name in calls if name == "download"] == []  # they are in the graphs
    with bench.watched() as later:
        bench.planner.plan(4, iterations=12)
    drawn = later.count("upload") - calls.count("upload")
    assert drawn == 12  # each draw of a plan that was not prepared, once


def test_driven_by_the_host_every_iteration_is_a_round_trip() -> None:
    """Negative control of the test above."""
    bench = Bench(KINDS["icem"], chained=False)
    for tick in range(3):
        bench.planner.plan(tick, iterations=12)
    while bench.planner.prepare():
        pass
    with bench.watched() as calls:
        bench.planner.plan(3, iterations=12)
    assert calls.count("launch_graph") == 12
    assert calls.count("upload") >= 12 * 4


def test_chains_keep_the_deadline_by_being_shorter() -> None:
    bench = Bench(KINDS["cem"])
    planner, run = bench.planner, bench.iterations.run

    def slow(first: int, count: int, trace: Any) -> None:
        run(first, count, trace)
        ran.append(count)
        bench.clock.advance(count * 1_000_000)

    bench.iterations.run = slow  # type: ignore[method-assign]
    ran: list[int] = []
    planner.plan(0, iterations=1)
    for left_ms, expected in ((12, [8, 4]), (11, [8, 2, 1]), (5, [4, 1]), (1, [1]), (0.5, [])):
        ran.clear()
        plan = planner.plan(0, bench.clock.now_ns() + round(left_ms * 1e6), warm=False)
        assert ran == expected
        assert plan.valid == bool(expected)


@pytest.mark.parametrize("first", range(20))
@pytest.mark.parametrize("most", [1, 3, 12])
def test_chains_begin_where_their_length_divides(first: int, most: int) -> None:
    bench = Bench(KINDS["cem"])
    count = bench.iterations.chunk(first, most)
    assert count in (1, 2, 4, LONGEST)
    assert count <= most
    assert first % count == 0
    assert first % 12 + count <= 12  # a chain's draws lie in one piece


def test_everything_is_released_whenever_something_is_refused() -> None:
    bench = Bench(KINDS["icem"])
    asked, spec = bench.gpu.device.asked, bench.spec
    assert asked > 20
    for fail_at in range(0, asked, 3):
        device = FakeDevice(fail_at=fail_at)
        pool = planner_on(Gpu(device), FakeImagine(spec, KINDS["icem"]), spec)
        with pytest.raises(EngineError):
            pool.planner()
        assert device.live == [], fail_at
    device.fail_at = None  # negative control: this is what holds all the rest
    pool.planner()
    assert len(device.live) > 10
    pool.close()
    assert device.live == []


def planner_on(gpu: Gpu, world: FakeImagine, spec: PlanSpec) -> PlannerPool:
    """A pool of the planners of `spec` whose graphs all compute `world`."""
    plan = gpu.trt.plan(*world.arrays(), world)
    gpu.backend.load = lambda graph: gpu.backend.load_plan(plan)  # type: ignore
    return PlannerPool(Planning(spec, gpu.backend, str.encode), _encoder(), FakeClock())


def test_each_engine_is_checked_once_when_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[Engine] = []
    check = imagine.check_engine

    def count(engine: Engine, spec: PlanSpec, planner: PlannerSpec) -> None:
        checked.append(engine)
        check(engine, spec, planner)

    monkeypatch.setattr(imagine, "check_engine", count)
    facts = KINDS["cem"]
    spec = tiny_plan_spec(SPEC, facts)
    pool = planner_on(Gpu(), FakeImagine(spec, facts), spec)
    for _ in range(2):
        pool.planner()
    assert len(checked) == len({id(engine) for engine in checked}) == 2
    host = FakeBackend(SPEC, planning=spec)
    PlannerPool(Planning(spec, host, str.encode), _encoder(), FakeClock()).planner()
    assert checked[2:] == [host.engines[facts.graph]]


def test_engines_of_another_planner_are_refused() -> None:
    facts, gpu = KINDS["cem"], Gpu()
    other = dataclasses.replace(facts, samples=8)
    world = FakeImagine(tiny_plan_spec(SPEC, other), other)
    with pytest.raises(
        EngineError, match=r"'noise' is float32 \[8, 2, 10\], but the manifest says"
    ):
        planner_on(gpu, world, tiny_plan_spec(SPEC, facts)).planner()
    assert gpu.device.live == []


def _encoder() -> Engine:
    return FakeBackend(SPEC).load(b"encode")


def test_a_gpu_that_fails_is_no_plan() -> None:
    bench = Bench(KINDS["cem"])
    bench.planner.plan(0)
    bench.gpu.trt.refuse.add("execute_async_v3")
    bench.gpu.device.refuse.add("launch_graph")
    assert bench.planner.plan(1).reason is PlanReason.ENGINE_FAILED
    bench.gpu.trt.refuse.clear()
    bench.gpu.device.refuse.clear()
    assert bench.planner.plan(2).valid
    bench.iterations.close()
    assert bench.planner.plan(3).reason is PlanReason.ENGINE_FAILED
    assert bench.planner.prepare() is False


def test_arrays_of_another_backend_cannot_take_part() -> None:
    gpu, host = Gpu(), _encoder()
    engine = gpu.doubler()
    with pytest.raises(EngineError, match="only arrays of engines of backend 'tensorrt'"):
        gpu.backend.copy(engine.outputs["y"], host.outputs["z"])
    with pytest.raises(EngineError, match="needs an engine of backend 'tensorrt'"):
        gpu.backend.array(host, (2,), "noise")
    beside = gpu.backend.array(engine, (2, 3), "rows")
    beside.write_row(1, np.float32([1, 2, 3]))
    assert beside.read().tolist() == [[0, 0, 0], [1, 2, 3]]
    with pytest.raises(EngineError, match=r"a row of rows is float32 \[3\], but was given"):
        beside.write_row(0, latent(0.0))
    with pytest.raises(EngineError, match="24 bytes cannot be copied to 12"):
        gpu.backend.copy(beside, engine.inputs["x"])
