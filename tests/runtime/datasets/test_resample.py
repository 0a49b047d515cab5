"""Recordings at another size and rate: the frames, actions and limits of the declared rules."""

from __future__ import annotations

import numpy as np
import pytest

from jetsight.datasets.resample import FrameResize, TickRows, centred_crop, resize_matrix
from jetsight.errors import DataError, UsageError


def test_resize_weights_sum_to_one() -> None:
    np.testing.assert_allclose(resize_matrix(480, 96).sum(1), 1.0, atol=1e-6)


@pytest.mark.parametrize(
    ("camera", "size", "crop"),
    [
        ((480, 640), (96, 96), (0, 80, 480, 480)),
        ((640, 480), (96, 96), (80, 0, 480, 480)),
        ((480, 640), (240, 320), (0, 0, 480, 640)),
        ((481, 641), (96, 96), (0, 80, 481, 481)),
        ((1080, 1920), (120, 160), (0, 240, 1080, 1440)),
        ((2, 500), (96, 1), (0, 249, 2, 1)),
    ],
)
def test_centred_crop(camera: tuple[int, int], size: tuple[int, int], crop: tuple[int]) -> None:
    assert centred_crop(camera, size) == crop


def test_resize_keeps_leading_axes_and_takes_the_crop() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, 40, 60, 3), np.uint8)
    resize = FrameResize((20, 20), (0, 10, 40, 40))
    out = resize(frames)
    assert (out.dtype, out.shape) == (np.uint8, (2, 3, 20, 20, 3))
    assert np.array_equal(out[1, 2], resize(frames[1, 2]))
    assert not np.array_equal(out[1, 2], FrameResize((20, 20), (0, 0, 40, 40))(frames[1, 2]))
    assert np.array_equal(FrameResize((40, 40), (0, 10, 40, 40))(frames), frames[..., 10:50, :])


def test_crop_outside_the_frames_is_refused() -> None:
    with pytest.raises(DataError, match="outside the 40x60 frames"):
        FrameResize((20, 20), (0, 30, 40, 40))(np.zeros((40, 60, 3), np.uint8))
    with pytest.raises(UsageError, match="has no pixels"):
        FrameResize((0, 20), (0, 0, 40, 40))


@pytest.mark.parametrize(
    ("source_hz", "hz", "frames", "held"),
    [
        (30, 10, [0, 3, 6, 9], [0, 3, 6, 9]),
        (25, 10, [0, 2, 5, 7, 10], [0, 2, 5, 7, 10]),
        (15, 10, [0, 1, 3, 4, 6], [0, 1, 3, 4, 6]),
        (29, 10, [0, 3, 6, 9], [0, 2, 5, 8]),
        (29.97, 30, list(range(11)), list(range(11))),
    ],
)
def test_even_rows(source_hz: float, hz: float, frames: list[int], held: list[int]) -> None:
    rows = TickRows.even(11, source_hz, hz)
    count = len(frames)
    assert rows.frames[:count].tolist() == frames
    assert rows.held[:count].tolist() == held


def test_rounded_stamps_of_a_long_episode_choose_the_same_rows() -> None:
    count = 30 * 60 * 20
    exact = np.arange(count) / 30
    rounded = exact.astype(np.float32)
    assert not np.array_equal(exact, rounded)
    rows = TickRows.of(rounded, 30, 10)
    assert np.array_equal(rows.frames, np.arange(0, count, 3))
    assert np.array_equal(rows.held, rows.frames)


def test_hold_and_mean_differ_as_declared() -> None:
    actions = np.arange(9, dtype=np.float32)[:, None] * np.float32([1, -2])
    rows = TickRows.even(9, 30, 10)
    assert rows.actions(actions, "hold").tolist() == [[0, 0], [3, -6], [6, -12]]
    means = rows.actions(actions, "mean")
    assert means.dtype == np.float32
    np.testing.assert_allclose(means, [[1, -2], [4, -8], [7, -14]], rtol=1e-6)
    with pytest.raises(UsageError, match="resample is 'last', expected one of: hold, mean"):
        rows.actions(actions, "last")


def test_the_mean_keeps_the_way_that_velocities_travel() -> None:
    rng = np.random.default_rng(0)
    stamps = np.cumsum(rng.uniform(0.02, 0.06, 100))
    speed = rng.normal(size=(100, 1))
    rows = TickRows.of(stamps, 25, 10)
    travelled = (rows.mean(speed) * np.diff(rows.borders_s)[:, None]).sum()
    end = rows.borders_s[-1]
    used = np.clip(end - rows.edges_s[:-1], 0, np.diff(rows.edges_s))
    np.testing.assert_allclose(travelled, (speed[:, 0] * used).sum(), rtol=1e-9)
    held = (rows.hold(speed) * np.diff(rows.borders_s)[:, None]).sum()
    assert abs(held - travelled) > 0.01


def test_a_cut_last_tick_averages_what_was_recorded() -> None:
    rows = TickRows.even(4, 30, 10)
    np.testing.assert_allclose(rows.mean(np.float32([[0], [1], [2], [9]])), [[1], [9]], rtol=1e-6)


def test_slower_recordings_gaps_and_turned_stamps_are_refused() -> None:
    with pytest.raises(DataError, match=r"recorded at 5 Hz, .*choose a rate of at most 5 Hz"):
        TickRows.even(10, 5, 10)
    stamps = np.arange(30) / 30
    with pytest.raises(DataError, match=r"no frame within 0\.05 s of 0\.400 s"):
        TickRows.of(np.delete(stamps, slice(11, 15)), 30, 10)
    assert len(TickRows.of(np.delete(stamps, slice(11, 13)), 30, 10)) == 10
    for broken in (stamps[::-1], np.repeat(stamps, 2), stamps[:0]):
        with pytest.raises(DataError, match="do not ascend"):
            TickRows.of(broken, 30, 10)
