"""Planning again and again: no memory is kept, on the host or on a GPU, and a leak would show."""

from __future__ import annotations

import gc
import tracemalloc

import pytest
from helpers.runtime.planner_factory import KINDS, SPEC, bare_planner
from helpers.runtime.tensorrt_factory import Rig as Gpu

from jetsight.planning.imagine import PlannerPool, Planning
from jetsight.planning.plan import Plan
from jetsight.testing import (
    FakeBackend,
    FakeClock,
    FakeDevice,
    FakeEngine,
    FakeImagine,
    tiny_plan_spec,
)

SETTLE, PLANS = 40, 60


def growth(kind: str, leak: list[Plan] | None) -> int:
    """Bytes kept by many plans after the first ones; `leak` collects what must not be kept."""
    facts = KINDS[kind]
    spec = tiny_plan_spec(SPEC, facts)
    planner = bare_planner(FakeEngine(*FakeImagine(spec, facts).arrays()), facts, spec)
    before = 0
    tracemalloc.start()
    try:
        for tick in range(SETTLE + PLANS):
            plan = planner.plan(tick, iterations=2)
            planner.prepare()
            if leak is not None:
                leak.append(plan.copy())
            if tick == SETTLE:
                gc.collect()
                before = tracemalloc.get_traced_memory()[0]
        del plan
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", KINDS)
def test_plans_keep_no_memory(kind: str) -> None:
    # Other threads of the process are seen as well: a leak shows in every run, they do not.
    assert any(growth(kind, None) < 4096 for _ in range(3))


def test_a_leak_would_be_found() -> None:
    assert growth("cem", []) > 25_000


def test_a_gpu_holds_no_more_after_many_plans_and_nothing_once_closed() -> None:
    device = FakeDevice(record=False)
    gpu, spec = Gpu(device), tiny_plan_spec(SPEC, KINDS["icem"])
    world = FakeImagine(spec, KINDS["icem"])
    plan = gpu.trt.plan(*world.arrays(), world)
    gpu.backend.load = lambda graph: gpu.backend.load_plan(plan)  # type: ignore
    planning = Planning(spec, gpu.backend, str.encode)
    pool = PlannerPool(planning, FakeBackend(SPEC).load(b"encode"), FakeClock())
    planner = pool.planner()
    for tick in range(6):
        planner.plan(tick, iterations=12)
    held = len(device.live)
    for tick in range(6, 30):
        planner.plan(tick, iterations=12)
    assert len(device.live) == held > 20
    pool.close()
    assert device.live == []
