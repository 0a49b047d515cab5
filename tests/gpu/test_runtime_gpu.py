"""The TensorRT backend on a real GPU: graphs against plain runs, memory, waiting and release.

Each engine is built here from a graph whose result numpy knows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from helpers.runtime import live_bundle

from jetsight.errors import EngineError
from jetsight.tensorrt.backend import TensorRtBackend, TensorRtEngine
from jetsight.tensorrt.bindings import open_library
from jetsight.tensorrt.builder import onnx_parser
from jetsight.tensorrt.cuda.driver import PyCudaDevice

pytestmark = pytest.mark.gpu
RNG = np.random.default_rng(11)
FRAMES = RNG.integers(0, 256, (8, 8, 12, 3), np.uint8)
LOOSE = {"rtol": 1e-2, "atol": 1e-2}  # TF32 products keep ten bits
MOST_BYTES = 2 << 20  # the driver hands out memory in pieces of this size

Plans = dict[str, bytes]


@pytest.fixture(scope="module")
def plans() -> Plans:
    library = open_library()
    return {
        "encode": onnx_parser.build(live_bundle.encode_graph(), library=library).engine,
        "forecast": onnx_parser.build(live_bundle.forecast_graph(), library=library).engine,
    }


@pytest.fixture(scope="module")
def device() -> Iterator[PyCudaDevice]:
    gpu = PyCudaDevice()
    yield gpu
    gpu.close()


def _free_bytes(device: PyCudaDevice) -> int:
    with device:
        return device.memory_info()[0]


def _encode(engine: TensorRtEngine, frame: np.ndarray) -> np.ndarray:
    engine.inputs["frame_hwc_u8"].write(frame)
    engine.run()
    return engine.outputs["z"].read().copy()


def _write_golden(engine: TensorRtEngine, sample: int) -> dict[str, np.ndarray]:
    arrays = live_bundle.reference()
    for name, array in engine.inputs.items():
        array.write(arrays[name][sample])
    return arrays


@pytest.mark.parametrize("sync", ["spin", "block", "hybrid"])
def test_results_are_numpys(plans: Plans, device: PyCudaDevice, sync: str) -> None:
    backend = TensorRtBackend(device=device, sync=sync)
    encode, forecast = (backend.load_plan(plans[name]) for name in ("encode", "forecast"))
    for sample in (0, 1, 2, 0):
        found = _encode(encode, FRAMES[sample])
        np.testing.assert_allclose(found, live_bundle.encode(FRAMES[sample]), **LOOSE)
        arrays = _write_golden(forecast, sample)
        forecast.run()
        found = forecast.outputs["z_future"].read()
        np.testing.assert_allclose(found, arrays["z_future"][sample], **LOOSE)
        wrong = arrays["z_future"][(sample + 1) % 3]
        assert not np.allclose(found, wrong, **LOOSE)  # negative control
    assert encode.graph_problem is None
    assert encode.replays
    assert forecast.replays
    backend.close()


def test_a_replayed_graph_equals_plain_runs_and_differs_for_another_frame(
    plans: Plans, device: PyCudaDevice
) -> None:
    replayed = TensorRtBackend(device=device).load_plan(plans["encode"])
    plain = TensorRtBackend(device=device, graphs=False).load_plan(plans["encode"])
    found = [(_encode(replayed, frame), _encode(plain, frame)) for frame in FRAMES]
    for by_graph, by_launches in found:
        np.testing.assert_array_equal(by_graph, by_launches)
    assert (replayed.replays, plain.replays) == (True, False)
    for (before, _), (after, _) in itertools.pairwise(found):
        assert not np.array_equal(before, after)  # the input is read again in every replay
    replayed.close()
    plain.close()


def test_thousand_frames_hold_no_more_memory(plans: Plans, device: PyCudaDevice) -> None:
    backend = TensorRtBackend(device=device)
    encode, forecast = (backend.load_plan(plans[name]) for name in ("encode", "forecast"))
    _write_golden(forecast, 0)

    def frames(count: int) -> int:
        for k in range(count):
            _encode(encode, FRAMES[k % 8])
            forecast.run()
        return _free_bytes(device)

    before = frames(50)
    # On a Jetson every program of the board lives in that memory, this one's own heap included.
    noise = MOST_BYTES if device.integrated else 0
    # Another program on the GPU may spoil one thousand; a leak spoils each.
    assert any(frames(1000) >= before - noise for _ in range(3))
    with device:  # negative control: what is held shows
        address = device.allocate(4 * MOST_BYTES, "a leak")
        assert device.memory_info()[0] < before
        device.free(address)
    backend.close()


def test_closing_gives_everything_back(plans: Plans, device: PyCudaDevice) -> None:
    def lost() -> int:
        free = []
        for _ in range(4):
            backend = TensorRtBackend(device=device, timing=True)
            encode = backend.load_plan(plans["encode"])
            for frame in FRAMES[:3]:
                _encode(encode, frame)
            backend.close()
            free.append(_free_bytes(device))
        return free[1] - free[-1]  # the first time, kernels stay loaded

    # Another program may spoil one round; a leak spoils each.
    assert any(lost() <= MOST_BYTES for _ in range(3))


def test_engines_share_arrays_scratch_and_one_launch(plans: Plans, device: PyCudaDevice) -> None:
    backend = TensorRtBackend(device=device, timing=True)
    first, second = (backend.load_plan(plans["encode"]) for _ in range(2))
    second.bind("frame_hwc_u8", first.inputs["frame_hwc_u8"])
    both = backend.capture([first, second])
    for frame in FRAMES:
        first.inputs["frame_hwc_u8"].write(frame)
        both.run()
        expected = live_bundle.encode(frame)
        np.testing.assert_allclose(first.outputs["z"].read(), expected, **LOOSE)
        np.testing.assert_array_equal(first.outputs["z"].read(), second.outputs["z"].read())
    assert both.graph_problem is None
    assert both.replays
    assert 0 < (both.device_ms or 0) < 1000
    backend.close()


def test_a_graph_is_captured_again_after_binding(plans: Plans, device: PyCudaDevice) -> None:
    backend = TensorRtBackend(device=device)
    first, second = (backend.load_plan(plans["encode"]) for _ in range(2))
    for frame in FRAMES[:3]:
        _encode(second, frame)
    assert second.replays
    second.bind("frame_hwc_u8", first.inputs["frame_hwc_u8"])
    for frame in FRAMES[3:6]:
        first.inputs["frame_hwc_u8"].write(frame)
        second.run()
        np.testing.assert_allclose(second.outputs["z"].read(), live_bundle.encode(frame), **LOOSE)
    assert second.replays
    backend.close()


def test_a_cut_engine_is_refused_with_tensorrts_words(plans: Plans, device: PyCudaDevice) -> None:
    TensorRtBackend(device=device).load_plan(plans["encode"]).close()  # kernels stay loaded

    def lost() -> int:
        before = _free_bytes(device)
        with pytest.raises(EngineError, match="cannot load the engine") as caught:
            TensorRtBackend(device=device).load_plan(plans["encode"][:-100])
        assert "\n" not in str(caught.value)
        return before - _free_bytes(device)

    assert any(lost() <= MOST_BYTES for _ in range(3))


def test_memory_that_is_not_there_is_counted(device: PyCudaDevice) -> None:
    with device:
        total = device.memory_info()[1]
        with pytest.raises(EngineError, match=rf"{2 * total} bytes needed, \d+ of {total} free"):
            device.allocate(2 * total, "too much")
    with device:
        device.free(device.allocate(1 << 20, "enough"))  # the context survived
