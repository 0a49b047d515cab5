"""Ticks from time stamps: jitter, drift, other rates, gaps, clocks set back."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetsight.cameras.tick_grid import TickGrid

P = 100_000_000


def _ticks(stamps: list[float], start: float = 7.3) -> list[int | None]:
    grid = TickGrid(P)
    return [grid.place(round((start + stamp) * P)) for stamp in stamps]


@given(seed=st.integers(0, 10_000), lost=st.floats(0, 0.5))
def test_jitter_below_a_third_never_moves_a_frame(seed: int, lost: float) -> None:
    rng = random.Random(seed)
    kept = [0] + [i for i in range(1, 200) if rng.random() >= lost]
    jitter = [0.0] + [rng.uniform(-0.3, 0.3) for _ in kept[1:]]
    assert _ticks([i + j for i, j in zip(kept, jitter, strict=True)]) == kept


@given(speed=st.floats(0.96, 1.04))
def test_drifting_camera_never_slips(speed: float) -> None:
    ticks = _ticks([i / speed for i in range(500)])
    assert ticks == list(range(500))


def test_a_camera_half_as_fast_leaves_every_other_tick_empty() -> None:
    """Negative control of the drift test: the grid does not follow anything."""
    assert _ticks([2 * i for i in range(50)]) == list(range(0, 100, 2))


@pytest.mark.parametrize("factor", [1.5, 2, 2.5, 3, 6])
@pytest.mark.parametrize("told", [True, False])
def test_faster_cameras_fill_every_tick_once_and_at_its_time(factor: float, told: bool) -> None:
    grid = TickGrid(P, P / factor if told else None)
    stamps = [i / factor for i in range(3000)]
    ticks = [grid.place(round(stamp * P)) for stamp in stamps]
    used = [(tick, stamp) for tick, stamp in zip(ticks, stamps, strict=True) if tick is not None]
    assert [tick for tick, _ in used] == list(range(used[-1][0] + 1))
    late = [stamp - tick for tick, stamp in used[30:]]
    assert max(late) - min(late) <= 1 / factor + 1e-6  # as even as the camera's frames allow
    assert max(abs(x) for x in late) <= 0.6  # the grid did not run away from the clock


def test_gap_keeps_its_length() -> None:
    assert _ticks([0, 1, 2, 9, 10]) == [0, 1, 2, 9, 10]


def test_stamp_set_back_gives_a_tick_that_is_not_newer() -> None:
    ticks = _ticks([0, 1, 2, 3, 1, 3, 2.9, 4])
    assert ticks[:4] == [0, 1, 2, 3]
    assert all(tick is not None and tick <= 3 for tick in ticks[4:7])
    assert ticks[7] == 4


def test_cut_continues_after_a_gap_of_ticks() -> None:
    grid = TickGrid(P)
    assert [grid.place(i * P) for i in range(3)] == [0, 1, 2]
    assert grid.cut(500 * P, 6) == 8
    assert [grid.place((500 + i) * P) for i in (1, 2)] == [9, 10]


def test_cut_at_the_start_is_tick_zero() -> None:
    assert TickGrid(P).cut(500 * P, 6) == 0
