"""What the TensorRT backend does when anything it asks for is refused: one line, nothing kept."""

from __future__ import annotations

import re

import numpy as np
import pytest
from helpers.runtime.tensorrt_factory import Rig, X, Y, double, run

from jetsight.errors import EngineError
from jetsight.tensorrt.backend import TensorRtBackend
from jetsight.tensorrt.bindings import RTX, open_library
from jetsight.testing import FakeDevice

# Stream, event, scratch, input twice (float inputs live in device memory), output, two timing
# events, graph; on a card the output twice.
THINGS = {True: 9, False: 10}


def _released_in_reverse(calls: list[str]) -> bool:
    """Whether what was taken first was given back last; calls name what they release."""
    numbers = [
        int(found[1])
        for call in calls
        if call.startswith(("free", "destroy"))
        for found in [re.search(r"(\d+)", call)]
        if found
    ]
    return numbers == sorted(numbers, reverse=True)


def _use(device: FakeDevice) -> TensorRtBackend:
    rig = Rig(device, timing=True)
    engine = rig.doubler()
    for k in range(3):
        assert run(engine, k, 0, 0) == [2 * k, 0, 0]
    return rig.backend


@pytest.mark.parametrize("integrated", [True, False])
def test_everything_is_released_in_reverse_order_whatever_is_refused(integrated: bool) -> None:
    probe = FakeDevice(integrated=integrated)
    _use(probe).close()
    assert probe.live == []
    assert probe.asked == THINGS[integrated]
    for n in range(probe.asked):
        device = FakeDevice(integrated=integrated, fail_at=n)
        if n == probe.asked - 1:  # the graph: runs go on without it
            _use(device).close()
        else:
            with pytest.raises(EngineError):
                _use(device)
        assert device.live == [], n
        assert _released_in_reverse(device.calls), n


def test_the_release_checks_can_fail() -> None:
    """Negative controls of the test above."""
    with FakeDevice() as device:
        device.allocate(4, "what is lost")
    assert device.live == ["memory 0: what is lost"]
    assert _released_in_reverse(["free memory 2: b", "destroy_event event 1"])
    assert not _released_in_reverse(["free memory 1: a", "free memory 2: b"])


@pytest.mark.parametrize(
    ("total", "what"), [(2000, "scratch of the engines"), (4100, r"input 'x' \(page-locked\)")]
)
def test_out_of_memory_names_what_and_how_much(total: int, what: str) -> None:
    rig = Rig(FakeDevice(total_bytes=total))
    with pytest.raises(EngineError, match=rf"no memory for {what}: \d+ bytes needed, \d+ of "):
        rig.doubler(scratch_bytes=4096)
    assert rig.device.live == []


def test_an_engine_too_large_for_the_rest_leaves_the_first_one_running() -> None:
    rig = Rig(FakeDevice(total_bytes=10_000))
    engine = rig.doubler()
    run(engine, 1, 2, 3)
    with pytest.raises(EngineError, match="no memory for scratch of the engines: 20000 bytes"):
        rig.doubler(scratch_bytes=20_000)
    assert run(engine, 1, 2, 3) == [2, 4, 6]
    engine.close()
    assert rig.device.live == []


def test_binding_without_memory_changes_nothing() -> None:
    rig = Rig(FakeDevice(integrated=True))
    first, second = rig.doubler(), rig.doubler()
    run(first, 1, 2, 3)
    rig.device.fail_at = rig.device.asked
    with pytest.raises(EngineError, match="no memory for output 'y'"):
        second.bind("x", first.outputs["y"])
    assert run(first, 1, 2, 3) == [2, 4, 6]
    assert run(second, 1, 1, 1) == [2, 2, 2]


@pytest.mark.parametrize("call", ["begin_capture", "end_capture", "launch_graph"])
def test_a_graph_that_fails_is_given_up_once_with_a_reason(
    call: str, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(FakeDevice(refuse={call}))
    engine = rig.doubler()
    for k in range(5):
        assert run(engine, k, 1, 2) == [2 * k, 2, 4]
    assert not engine.replays
    assert engine.graph_problem == f"{call} was refused as the script says"
    assert sum(name.startswith(call) for name in rig.device.calls) == 1
    assert len([r for r in caplog.records if "no CUDA graph" in r.message]) == 1
    engine.close()
    assert rig.device.live == []


def test_an_engine_that_cannot_be_captured_runs_plain() -> None:
    """The stream leaves capture mode although TensorRT failed in between."""
    rig = Rig()
    engine = rig.doubler()
    run(engine, 1, 2, 3)
    rig.trt.refuse.add("execute_async_v3")
    with pytest.raises(EngineError, match="failed to run: execute_async_v3 was refused"):
        engine.run()
    rig.trt.refuse.clear()
    assert "execute_async_v3 was refused" in (engine.graph_problem or "")
    assert run(engine, 4, 5, 6) == [8, 10, 12]
    engine.close()
    assert rig.device.live == []


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("deserialize_cuda_engine", "cannot load the engine .run: jetsight build BUNDLE --force"),
        ("create_execution_context", "cannot make an execution context"),
    ],
)
def test_what_tensorrt_refuses_ends_with_its_first_error(call: str, said: str) -> None:
    rig = Rig()
    rig.trt.refuse.add(call)
    with pytest.raises(EngineError, match=rf"^TensorRT 10\.3\.0\.26 {said}.*: {call} was refused"):
        rig.doubler()
    assert rig.device.live == []
    rig.trt.refuse.clear()
    assert run(rig.doubler(), 1, 2, 3) == [2, 4, 6]


def test_errors_of_earlier_calls_are_not_reported_again() -> None:
    rig = Rig()
    engine = rig.doubler()
    with pytest.raises(EngineError, match="Serialization"):
        rig.backend.load_plan(b"ftrt of another day")
    rig.trt.refuse.add("execute_async_v3")
    with pytest.raises(EngineError, match="failed to run: execute_async_v3 was refused"):
        engine.run()


def test_memory_that_tensorrt_lacks_is_counted() -> None:
    rig = Rig(FakeDevice(total_bytes=50_000))
    engine = rig.doubler()
    shared = rig.backend._shared
    assert shared is not None
    shared._logger.errors.append("Error Code 2: OutOfMemory (Requested size was 96 bytes.)")
    line = str(shared.refused("cannot load the engine", 0))
    assert re.search(r"OutOfMemory.*; \d+ of 50000 bytes of GPU memory are free; close other", line)
    engine.close()


def test_a_refused_address_is_named() -> None:
    rig = Rig()
    engine = rig.doubler()
    rig.trt.refuse.add("set_tensor_address")
    with pytest.raises(EngineError, match="refuses the address of 'x': set_tensor_address was"):
        engine.run()
    rig.trt.refuse.clear()
    assert run(engine, 1, 2, 3) == [2, 4, 6]


def test_a_kernel_that_fails_is_an_error_of_that_run() -> None:
    rig = Rig()

    def crash(inputs: object, outputs: object) -> None:
        raise EngineError("CUDA_ERROR_ILLEGAL_ADDRESS (700)")

    engine = rig.backend.load_plan(rig.trt.plan(X, Y, crash))
    with pytest.raises(EngineError, match="ILLEGAL_ADDRESS"):
        engine.run()
    engine.close()
    assert rig.device.live == []


def test_nothing_is_freed_under_work_that_was_enqueued() -> None:
    rig = Rig()
    engine, other = rig.doubler(), rig.doubler()
    engine.inputs["x"].write(np.float32([1, 2, 3]))  # a copy is under way, and no run follows
    engine.bind("x", other.outputs["y"])
    other.inputs["x"].write(np.float32([1, 2, 3]))
    other.close()
    engine.close()
    assert rig.device.live == []


def test_an_interrupted_run_can_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    engine = rig.doubler()

    def interrupted(stream: int) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rig.device, "is_done", interrupted)
        with pytest.raises(KeyboardInterrupt):
            engine.run()
    engine.close()
    assert rig.device.live == []


def test_strange_tensors_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    with pytest.raises(EngineError, match="'x' has the dynamic shape"):
        rig.backend.load_plan(rig.trt.plan({"x": ((-1,), X["x"][1])}, Y, double))
    monkeypatch.setattr("jetsight.testing.tensorrt._KINDS", {"float32": "BF16"})
    with pytest.raises(EngineError, match="'x' is a BF16; expected one of"):
        rig.doubler()
    assert rig.device.live == []


def test_tensorrt_rtx_itself_without_a_driver_is_one_line() -> None:
    """The real library: only calls it has are made, and its first error is passed on."""
    library = pytest.importorskip(RTX) and open_library((RTX,))
    device = FakeDevice()
    backend = TensorRtBackend(device=device, library=library)
    with pytest.raises(EngineError, match=r"^TensorRT-RTX .* cannot load the engine") as caught:
        backend.load_plan(b"no engine")
    assert "\n" not in str(caught.value)
    assert device.live == []
