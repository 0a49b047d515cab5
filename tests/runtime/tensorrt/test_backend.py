"""The TensorRT backend on a fake GPU: results, graphs, binding, sharing and release."""

from __future__ import annotations

import gc
import sys
import tracemalloc
import weakref

import numpy as np
import pytest
from helpers.runtime.tensorrt_factory import Rig, X, Y, double, run

from jetsight.errors import EngineError, MissingDependency, UsageError
from jetsight.machine import system
from jetsight.machine.system import Cuda, Gpu
from jetsight.tensorrt.backend import TensorRtBackend, used_once
from jetsight.testing import FakeClock, FakeDevice, FakeTensorRt


@pytest.fixture(params=["card", "jetson"])
def rig(request: pytest.FixtureRequest) -> Rig:
    return Rig(FakeDevice(integrated=request.param == "jetson"))


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("sync", ["spin", "block", "hybrid"])
def test_every_run_computes_from_what_was_written_last(graphs: bool, sync: str) -> None:
    rig = Rig(FakeDevice(busy_polls=2), graphs=graphs, sync=sync)
    engine = rig.doubler()
    for k in range(5):
        assert run(engine, k, 1, -k) == [2 * k, 2, -2 * k]
        assert engine.replays == (graphs and k > 0)  # plain, then captured, then replayed
    engine.close()
    assert rig.device.live == []


def test_a_graph_computes_what_plain_runs_do_and_not_the_same_for_another_input(rig: Rig) -> None:
    replayed, plain = rig.doubler(), Rig(rig.device, graphs=False).doubler()
    for values in ((1, 2, 3), (4, 5, 6), (7, 8, 9)):
        assert run(replayed, *values) == run(plain, *values)
    assert (replayed.replays, plain.replays) == (True, False)
    assert plain.graph_problem == "CUDA graphs were switched off"
    before = run(replayed, 1, 2, 3)
    assert run(replayed, 1, 2, 4) != before  # negative control: the input is really read again


def test_what_was_never_written_is_zero(rig: Rig) -> None:
    engine = rig.doubler()
    engine.run()
    assert engine.outputs["y"].read().tolist() == [0, 0, 0]


def test_what_was_written_before_an_array_moves_is_still_there() -> None:
    frame = {"x": ((3,), np.uint8)}
    rig = Rig(FakeDevice(integrated=True))
    plan = rig.trt.plan(frame, {"y": ((3,), np.uint8)}, double)
    first, second = rig.backend.load_plan(plan), rig.backend.load_plan(plan)
    first.inputs["x"].write(np.uint8([1, 2, 3]))
    assert first.inputs["x"].mapped
    second.bind("x", first.inputs["x"])
    assert not first.inputs["x"].mapped
    second.run()
    assert second.outputs["y"].read().tolist() == [2, 4, 6]


def test_steady_state_is_one_launch_and_one_wait(rig: Rig) -> None:
    engine = rig.doubler()
    for _ in range(3):
        engine.run()
    del rig.device.calls[:]
    engine.run()
    graph = [name for name in rig.device.calls if name.startswith("launch_graph")]
    assert len(graph) == 1
    assert [name.split()[0] for name in rig.device.calls] == ["launch_graph", "is_done"]


def test_frames_and_results_are_not_copied_where_memory_is_shared() -> None:
    inputs = {"frame": ((2, 2, 3), np.uint8), "z": ((4,), np.float32)}
    for integrated, copied in ((True, ["z"]), (False, ["frame", "z", "y"])):
        rig = Rig(FakeDevice(integrated=integrated))
        engine = rig.backend.load_plan(rig.trt.plan(inputs, Y, None))
        arrays = {**engine.inputs, **engine.outputs}
        assert [name for name, array in arrays.items() if not array.mapped] == copied
    assert used_once(True, np.dtype(np.uint8))
    assert not used_once(True, np.dtype(np.float32))


def test_bound_arrays_are_shared_without_a_copy_and_move_to_device_memory(rig: Rig) -> None:
    first, second = rig.doubler(), rig.doubler()
    run(first, 1, 1, 1)
    own = second.inputs["x"]
    second.bind("x", first.outputs["y"])
    assert second.inputs["x"] is first.outputs["y"]
    assert not first.outputs["y"].mapped
    assert own.address == 0  # it is no longer needed
    for k in range(1, 4):
        assert run(first, k, 0, 0) == [2 * k, 0, 0]
        second.run()
        assert second.outputs["y"].read().tolist() == [4 * k, 0, 0]
    assert first.replays
    assert second.replays


def test_a_shared_output_is_only_copied_back_when_it_is_read(rig: Rig) -> None:
    first, second = rig.doubler(), rig.doubler()
    second.bind("x", first.outputs["y"])
    for _ in range(3):
        run(first, 1, 2, 3)
    fetched = f"download {first.outputs['y'].address}"
    del rig.device.calls[:]
    first.run()
    second.run()
    assert fetched not in rig.device.calls
    for _ in range(2):
        assert first.outputs["y"].read().tolist() == [2, 4, 6]
    assert rig.device.calls.count(fetched) == 1


def test_a_graph_captured_before_binding_is_not_replayed_after_it(rig: Rig) -> None:
    """The addresses it froze are compared: a stale graph would go on reading the old input."""
    first, second = rig.doubler(), rig.doubler()
    for k in range(3):
        run(second, k, k, k)
    assert second.replays
    second.bind("x", first.outputs["y"])
    run(first, 5, 5, 5)
    second.run()
    assert not second.replays
    assert second.outputs["y"].read().tolist() == [20, 20, 20]
    second.run()
    assert second.replays
    assert second.outputs["y"].read().tolist() == [20, 20, 20]


def test_bind_refuses_what_cannot_fit(rig: Rig) -> None:
    engine, other = rig.doubler(), rig.doubler()
    longer = rig.backend.load_plan(rig.trt.plan({"x": ((5,), np.float32)}, Y, None))
    with pytest.raises(EngineError, match=r"float32 \[3\].*float32 \[5\]"):
        engine.bind("x", longer.inputs["x"])
    with pytest.raises(EngineError, match="no input or output 'q'; it has x, y"):
        engine.bind("q", other.inputs["x"])
    stranger = Rig().doubler()
    with pytest.raises(EngineError, match="same backend"):
        engine.bind("x", stranger.inputs["x"])
    with pytest.raises(EngineError, match="read and written in one run"):
        engine.bind("x", engine.outputs["y"])
    assert run(engine, 1, 2, 3) == [2, 4, 6]


def test_an_engine_bound_to_a_closed_one_says_so(rig: Rig) -> None:
    first, second = rig.doubler(), rig.doubler()
    second.bind("x", first.outputs["y"])
    first.close()
    with pytest.raises(EngineError, match="'x' is bound to an array of an engine that was closed"):
        second.run()


@pytest.mark.parametrize(
    "bad", [np.zeros(5, np.float32), np.zeros(3, np.float64), np.zeros((3, 1))]
)
def test_write_neither_casts_nor_broadcasts(rig: Rig, bad: np.ndarray) -> None:
    engine = rig.doubler()
    with pytest.raises(EngineError, match=r"takes float32 \[3\]"):
        engine.inputs["x"].write(bad)


def test_read_gives_a_locked_copy_or_fills_yours(rig: Rig) -> None:
    engine, mine = rig.doubler(), np.empty(3, np.float32)
    run(engine, 1, 2, 3)
    output = engine.outputs["y"]
    view = output.read()
    assert output.read(mine) is mine
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 0
    engine.close()
    assert view.tolist() == mine.tolist() == [2, 4, 6]  # outlives the page-locked memory
    with pytest.raises(EngineError, match="output 'y' was released with its engine"):
        output.read()
    with pytest.raises(EngineError, match="output 'y' was released with its engine"):
        output.write(mine)


def test_scratch_is_one_block_of_the_largest_and_a_larger_one_repoints_all(rig: Rig) -> None:
    small = rig.doubler(scratch_bytes=1000)
    for k in range(3):
        run(small, k, k, k)
    large = rig.doubler(scratch_bytes=5000)
    scratch = [name for name in rig.device.live if "scratch" in name]
    assert len(scratch) == 1
    assert run(small, 1, 2, 3) == [2, 4, 6]  # plain once more: its graph knew the old block
    assert not small.replays
    assert run(small, 1, 2, 4) == [2, 4, 8]
    assert small.replays
    assert run(large, 1, 1, 1) == [2, 2, 2]
    small.close()
    large.close()
    assert rig.device.live == []


def test_several_engines_are_captured_as_one_launch(rig: Rig) -> None:
    first, second = rig.doubler(), rig.doubler()
    second.bind("x", first.outputs["y"])
    chain = rig.backend.capture([first, second])
    for k in range(4):
        first.inputs["x"].write(np.float32([k, 1, 0]))
        chain.run()
        assert second.outputs["y"].read().tolist() == [4 * k, 4, 0]
        assert first.outputs["y"].read().tolist() == [2 * k, 2, 0]
    assert chain.replays
    assert chain.graph_problem is None
    first.close()
    assert not any(name.startswith("graph") for name in rig.device.live)  # it knew what is gone
    with pytest.raises(EngineError, match="was closed"):
        chain.run()
    second.close()
    chain.close()
    assert rig.device.live == []


def test_a_chain_needs_engines_of_one_backend(rig: Rig) -> None:
    with pytest.raises(UsageError, match="2 engines on 2 streams"):
        rig.backend.capture([rig.doubler(), Rig().doubler()])
    with pytest.raises(UsageError, match="0 engines"):
        rig.backend.capture([])


def test_events_measure_the_device(rig: Rig) -> None:
    timed = Rig(rig.device, timing=True)
    engine, chain_of = timed.doubler(), timed.doubler()
    assert engine.device_ms is None
    engine.run()
    assert engine.device_ms == 1.0  # one piece of work
    chain = timed.backend.capture([engine, chain_of])
    for _ in range(3):
        chain.run()
    assert (chain.device_ms, chain.replays) == (2.0, True)
    untimed = rig.doubler()
    untimed.run()
    assert untimed.device_ms is None


def test_the_last_engine_releases_what_they_share(rig: Rig) -> None:
    first, second = rig.doubler(), rig.doubler()
    theirs = [weakref.ref(first._plan.cuda_engine), weakref.ref(first._plan.context)]
    first.close()
    first.close()
    assert [ref() for ref in theirs] == [None, None]
    assert any("scratch" in name for name in rig.device.live)
    with pytest.raises(EngineError, match="the engine was closed"):
        first.run()
    second.close()
    assert rig.device.live == []
    assert not rig.device.closed  # it is the caller's
    assert run(rig.doubler(), 1, 2, 3) == [2, 4, 6]  # and the backend can be used again


def test_closing_the_backend_closes_its_engines(rig: Rig) -> None:
    engine = rig.doubler()
    rig.backend.close()
    rig.backend.close()
    assert rig.device.live == []
    with pytest.raises(EngineError, match="the engine was closed"):
        engine.run()
    with pytest.raises(EngineError, match="the backend was closed"):
        rig.doubler()


def test_a_forgotten_engine_lets_go(rig: Rig) -> None:
    engine = rig.doubler()
    run(engine, 1, 2, 3)
    run(engine, 1, 2, 3)
    del engine
    gc.collect()
    assert rig.device.live == []


def test_host_code_in_engines_stays_off(rig: Rig) -> None:
    engine = rig.doubler()
    engine.run()
    assert [runtime.engine_host_code_allowed for runtime in rig.trt.runtimes] == [False]


def test_tensors_of_another_name_go_by_the_graphs(rig: Rig) -> None:
    plan = rig.trt.plan(X, Y, double)
    engine = rig.backend.load_plan(plan, {"y": "z"})
    engine.inputs["x"].write(np.float32([1, 2, 3]))
    engine.run()
    assert engine.outputs["z"].read().tolist() == [2, 4, 6]


def test_hybrid_spins_for_a_while_and_then_blocks() -> None:
    class Ticking(FakeClock):
        def now_ns(self) -> int:
            self.advance(50_000)
            return super().now_ns()

    for polls, blocks in ((1, False), (50, True)):
        rig = Rig(FakeDevice(busy_polls=polls), clock=Ticking(), sync="hybrid")
        engine = rig.doubler()
        del rig.device.calls[:]
        assert run(engine, 1, 2, 3) == [2, 4, 6]
        assert any(name.startswith("wait") for name in rig.device.calls) == blocks
        assert sum(name.startswith("is_done") for name in rig.device.calls) < 6


def test_unknown_sync_mode_is_refused() -> None:
    with pytest.raises(UsageError, match="sync is 'yield'; choose one of 'spin', 'block'"):
        Rig(sync="yield")


def test_without_a_device_pycuda_is_asked_for_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    orin = Gpu("Orin", 8 << 30, "8.7", multiprocessors=16, integrated=True)
    monkeypatch.setattr(system, "cuda", lambda _: Cuda("540", "12.6", (orin,), None))
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(MissingDependency, match=r"'pycuda'.*jetsight\[jetson\]"):
        TensorRtBackend(library=FakeTensorRt(FakeDevice()).library)


def _kept(integrated: bool, leak: list[bytes] | None) -> int:
    """Bytes that 1000 frames keep, in the best of three thousands: a leak shows in each."""
    engine = Rig(FakeDevice(integrated=integrated, record=False)).doubler()
    values, out, kept = np.ones(3, np.float32), np.empty(3, np.float32), []
    tracemalloc.start()
    try:
        for _ in range(4):
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
            for k in range(1000):
                engine.inputs["x"].write(values)
                engine.run()
                engine.outputs["y"].read(out)
                if leak is not None:
                    leak.append(bytes([k % 7]) * 8)
            gc.collect()
            kept.append(tracemalloc.get_traced_memory()[0] - before)
    finally:
        tracemalloc.stop()
    assert engine.replays
    return min(kept[1:])


@pytest.mark.parametrize("integrated", [True, False])
def test_runs_keep_no_memory_and_a_leak_would_be_found(integrated: bool) -> None:
    assert _kept(integrated, None) < 2048  # a leak of three bytes per frame shows
    assert _kept(integrated, []) > 8_000  # negative control
