"""Recorded frames nearest to a latent: the right ones, thinned out, none of left-out episodes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from helpers.runtime.imagine_factory import make_recording
from helpers.runtime.live_bundle import encode_graph

from jetsight.backends.registry import open_backend
from jetsight.datasets.lerobot import LeRobotDataset
from jetsight.engine import Engine
from jetsight.errors import DataError
from jetsight.plan_report.nearest_frames import FrameIndex, Neighbour, build_library, pictures

ONES = np.ones(4, np.float32)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> LeRobotDataset:
    return LeRobotDataset.open(make_recording(tmp_path_factory.mktemp("data") / "ds"))


@pytest.fixture(scope="module")
def encode() -> Iterator[Engine]:
    engine = open_backend("onnxruntime", "cpu-fp32", threads=1).load(encode_graph())
    yield engine
    engine.close()


def latent(engine: Engine, frame: np.ndarray) -> np.ndarray:
    engine.inputs["frame_hwc_u8"].write(np.ascontiguousarray(frame))
    engine.run()
    return engine.outputs["z"].read().copy()


def test_a_recorded_latent_is_nearest_to_its_own_frame(
    data: LeRobotDataset, encode: Engine
) -> None:
    done: list[int] = []
    library = build_library(data, encode, ONES, progress=done.append)
    assert done == [12, 12, 12]
    frames = list(data.frames(1))
    z = np.stack([latent(encode, frames[tick]) for tick in (3, 8)])
    near = library.nearest(z)
    assert [(n.episode, n.tick) for n in near] == [(1, 3), (1, 8)]
    assert max(n.distance for n in near) < 1e-5
    assert library.nearest(z + 0.1)[0].distance > 1e-3  # the control: not everything is near
    assert all(map(np.array_equal, pictures(data, near), (frames[3], frames[8])))


def test_own_episodes_are_left_out(data: LeRobotDataset, encode: Engine) -> None:
    library = build_library(data, encode, ONES, without={1})
    assert {episode for episode, _ in library.places} == {0, 2}
    with pytest.raises(DataError, match="no episode but those of the start and the goal"):
        build_library(data, encode, ONES, without={0, 1, 2})


def test_a_streamed_episode_is_left_out_even_where_it_is_named(
    data: LeRobotDataset, encode: Engine
) -> None:
    assert build_library(data, encode, ONES, among=[0, 1]).episodes == [0, 1]
    assert build_library(data, encode, ONES, among=[0, 1], without=[1]).episodes == [0]
    with pytest.raises(DataError, match="or of the stream"):
        build_library(data, encode, ONES, among=[1], without=[1])


def test_many_frames_are_thinned_out_evenly(data: LeRobotDataset, encode: Engine) -> None:
    library = build_library(data, encode, ONES, most=12)
    assert [tick for episode, tick in library.places if episode == 0] == [0, 3, 6, 9]
    assert len(library.z) == 12
    assert len(build_library(data, encode, ONES, most=None).z) == 36


def test_distances_are_in_spreads_of_each_dimension() -> None:
    z = np.array([[0, 0], [3, 0], [0, 10]], np.float32)
    places = [(0, 0), (0, 1), (0, 2)]
    wanted = np.array([[1.6, 8.0]], np.float32)
    wide = FrameIndex(z, places, np.array([1, 100], np.float32))
    assert wide.nearest(wanted)[0].tick == 1
    assert FrameIndex(z, places, np.ones(2, np.float32)).nearest(wanted)[0].tick == 2
    far = FrameIndex(z[:1], places, np.array([2, 4], np.float32)).nearest(np.array([[4.0, 4.0]]))
    assert far == [Neighbour(0, 0, pytest.approx(np.sqrt((4 + 1) / 2)))]


def test_pictures_come_in_the_order_asked_for(data: LeRobotDataset) -> None:
    wanted = [Neighbour(2, 7, 0.0), Neighbour(0, 4, 0.0), Neighbour(2, 1, 0.0)]
    wanted.append(wanted[0])
    level = [image.mean() for image in pictures(data, wanted)]
    np.testing.assert_allclose(level, [160 + 35, 20 + 20, 160 + 5, 160 + 35], atol=3)
