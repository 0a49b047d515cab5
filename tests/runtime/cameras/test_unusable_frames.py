"""Sources whose frames no model can use end with the reason; darkness has two meanings."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from jetsight.cameras import Camera, Reading, SourceInfo, StreamRequest
from jetsight.errors import CameraError

REQUEST = StreamRequest(4, 6, 10.0, action_block=2, plan_ticks=4, step_size=2)
PERIOD_NS = 100_000_000


class Pictures:
    """A source of these pictures, one per tick; None for one that cannot be decoded."""

    def __init__(self, pictures: Iterator[np.ndarray | None], *, simulated: bool) -> None:
        self._pictures, self._simulated = pictures, simulated
        self.read_so_far = 0

    def start(self, request: StreamRequest) -> SourceInfo:
        return SourceInfo("pictures", 4, 6, 10.0, simulated=self._simulated)

    def read(self) -> Reading | None:
        for picture in self._pictures:
            self.read_so_far += 1
            return Reading(picture, self.read_so_far * PERIOD_NS)
        return None

    def close(self) -> None:
        pass


def gray(level: int) -> np.ndarray:
    return np.full((4, 6, 3), level, np.uint8)


def delivered(camera: Camera) -> int:
    """Count the frames that reach the model until the source ends."""
    camera.start(REQUEST, 0)
    count = 0
    while not camera.ended:
        count += camera.next(1_000_000_000) is not None
    camera.close()
    return count


@pytest.mark.parametrize("simulated", [False, True])
def test_without_any_usable_frame_it_ends_with_the_reason(simulated: bool) -> None:
    source = Pictures((None for _ in range(10**6)), simulated=simulated)
    camera = Camera(source)
    assert delivered(camera) == 0
    with pytest.raises(CameraError, match=r"no frame the model can use among the first 300: frame"):
        camera.raise_for_error()
    assert source.read_so_far == 300


def test_one_usable_frame_is_hope_enough() -> None:
    broken: list[np.ndarray | None] = [None] * 399
    camera = Camera(Pictures(iter([gray(7), *broken, gray(8)]), simulated=True))
    assert delivered(camera) == 2
    camera.raise_for_error()
    assert camera.rejected == 399


@pytest.mark.parametrize(("simulated", "count"), [(False, 1), (True, 2)])
def test_darkness_is_a_fault_of_a_sensor_and_a_picture_of_a_simulator(
    simulated: bool, count: int
) -> None:
    assert delivered(Camera(Pictures(iter([gray(0), gray(7)]), simulated=simulated))) == count
