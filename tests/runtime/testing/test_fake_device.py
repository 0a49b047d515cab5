"""The fake GPU finds out what a real one would punish: it is a check, so each has its control."""

from __future__ import annotations

import numpy as np
import pytest

from jetsight.errors import EngineError
from jetsight.testing import FakeDevice


@pytest.fixture
def device() -> FakeDevice:
    return FakeDevice()


def test_calls_outside_its_context_are_refused(device: FakeDevice) -> None:
    with pytest.raises(EngineError, match="allocate was called outside `with device:`"):
        device.allocate(4, "x")
    with device:
        device.free(device.allocate(4, "x"))
    assert device.calls == ["allocate x", "free memory 0: x"]


def test_work_is_done_when_somebody_waits_and_no_earlier(device: FakeDevice) -> None:
    with device:
        stream, event = device.create_stream(), device.create_event(timing=False)
        host, target = device.allocate_host(4, "host"), device.allocate(4, "x")
        for wait in (lambda: device.is_done(stream), lambda: _block(device, event, stream)):
            host.array[...] = 1
            device.upload(target, host.array, stream)
            host.array[...] = 2  # too early, as a program that forgets to wait would
            wait()
            assert device.view(target, 4).tolist() == [2, 2, 2, 2]


def _block(device: FakeDevice, event: int, stream: int) -> None:
    device.record(event, stream)
    device.wait(event)


def test_memory_that_is_freed_too_early_is_an_illegal_address(device: FakeDevice) -> None:
    with device:
        stream = device.create_stream()
        host, target = device.allocate_host(4, "host"), device.allocate(4, "x")
        device.upload(target, host.array, stream)
        device.free(target)
        with pytest.raises(EngineError, match="illegal address: 4 bytes"):
            device.is_done(stream)
        with pytest.raises(EngineError, match="free of what is not live"):
            device.free(target)


def test_a_stream_that_is_captured_cannot_be_waited_for(device: FakeDevice) -> None:
    with device:
        stream = device.create_stream()
        device.begin_capture(stream)
        with pytest.raises(EngineError, match="being captured"):
            device.is_done(stream)
        device.destroy_graph(device.end_capture(stream))
        assert device.is_done(stream)


def test_a_graph_is_replayed_really_and_only_when_launched(device: FakeDevice) -> None:
    done: list[int] = []
    with device:
        stream = device.create_stream()
        device.begin_capture(stream)
        device.submit(stream, lambda: done.append(1))
        graph = device.end_capture(stream)
        device.is_done(stream)
        assert done == []
        for _ in range(3):
            device.launch_graph(graph, stream)
            device.is_done(stream)
        assert done == [1, 1, 1]
        assert device.running == 3


def test_memory_is_dirty_aligned_and_counted(device: FakeDevice) -> None:
    with device:
        address = device.allocate(1000, "x")
        assert address % 256 == 0
        assert np.all(device.view(address, 1000) == 0xA5)
        free, total = device.memory_info()
        assert total - free == 1000
        with pytest.raises(EngineError, match=f"no memory for y: {total} bytes needed, {free} of"):
            device.allocate(total, "y")


def test_a_stream_with_work_on_it_is_not_destroyed_quietly(device: FakeDevice) -> None:
    with device:
        stream = device.create_stream()
        device.submit(stream, lambda: None)
        with pytest.raises(EngineError, match="destroyed with work on it"):
            device.destroy_stream(stream)


def test_an_event_must_have_happened(device: FakeDevice) -> None:
    with device:
        start, stop = (device.create_event(timing=True) for _ in range(2))
        with pytest.raises(EngineError, match="never recorded"):
            device.wait(start)
        with pytest.raises(EngineError, match="has not happened"):
            device.elapsed_ms(start, stop)


def test_a_closed_device_is_refused(device: FakeDevice) -> None:
    device.close()
    with pytest.raises(EngineError, match="the GPU was closed"), device:
        pass
