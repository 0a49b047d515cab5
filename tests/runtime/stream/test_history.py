"""Histories by tick: exactly uniform or refused, whatever the order and gaps of arrival."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jetsight.stream.frames import Reason
from jetsight.stream.history import ActionLog, LatentRing, TickRing

SIZES = st.tuples(st.integers(1, 4), st.integers(1, 6))  # K, B
ARRIVALS = st.lists(st.integers(0, 80), min_size=1, max_size=60)


def _row(tick: int, width: int = 3) -> np.ndarray:
    return np.full(width, tick, np.float32)


def _fill(ring: LatentRing, ticks: list[int]) -> list[int]:
    """Advance and put each tick; returns the accepted ones."""
    accepted = []
    for tick in ticks:
        if ring.advance(tick):
            ring.put(tick, _row(tick))
            accepted.append(tick)
    return accepted


@given(sizes=SIZES, ticks=ARRIVALS)
def test_history_is_exactly_uniform_or_refused(sizes: tuple[int, int], ticks: list[int]) -> None:
    history, block = sizes
    ring = LatentRing(history, block, 3, patience=1000)
    out = np.empty((history, 3), np.float32)
    seen: set[int] = set()
    for tick in ticks:
        if not ring.advance(tick):
            assert seen
            assert tick <= max(seen)
            continue
        ring.put(tick, _row(tick))
        seen.add(tick)
        wanted = [tick - (history - 1 - i) * block for i in range(history)]
        reason = ring.history(tick, out)
        assert (reason is None) == set(wanted).issubset(seen)
        if reason is None:
            assert out[:, 0].tolist() == wanted


@given(sizes=SIZES, ticks=ARRIVALS)
def test_accepted_ticks_strictly_increase(sizes: tuple[int, int], ticks: list[int]) -> None:
    accepted = _fill(LatentRing(*sizes, 3, patience=1000), ticks)
    assert accepted == sorted(set(accepted))


@given(gap=st.integers(0, 30))
def test_reset_exactly_when_no_history_can_reach_across(gap: int) -> None:
    ring = LatentRing(3, 5, 3, patience=10)
    _fill(ring, list(range(20)))
    assert ring.advance(20 + gap)
    assert ring.resets == (gap >= 5)


def test_reason_tells_warming_up_from_a_missing_frame() -> None:
    ring = LatentRing(3, 5, 3, patience=10)
    out = np.empty((3, 3), np.float32)
    _fill(ring, list(range(10)))
    assert ring.history(9, out) is Reason.WARMING_UP
    _fill(ring, [10, 11, 13, 14, 15, 16, 17])
    assert ring.history(16, out) is None
    assert ring.history(17, out) is Reason.HISTORY_GAP  # 12 never came


def test_history_one_block_ago_is_still_there() -> None:
    """The forecaster looks back there when the robot did something else than planned."""
    ring = LatentRing(3, 5, 3, patience=10)
    _fill(ring, list(range(30)))
    out = np.empty((3, 3), np.float32)
    assert ring.history(24, out) is None
    assert out[:, 0].tolist() == [14, 19, 24]


def test_time_set_back_is_refused_then_followed() -> None:
    ring = LatentRing(3, 5, 3, patience=10)
    _fill(ring, list(range(100, 120)))
    accepted = _fill(ring, list(range(40)))
    assert accepted == list(range(9, 40))  # nine refused, the tenth is the new time
    assert ring.resets == 1
    assert ring.history(39, np.empty((3, 3), np.float32)) is None


def test_single_late_frame_changes_nothing() -> None:
    ring = LatentRing(2, 2, 3, patience=10)
    out = np.empty((2, 3), np.float32)
    assert _fill(ring, [0, 1, 2, 1, 0, 3]) == [0, 1, 2, 3]
    assert ring.history(3, out) is None
    assert ring.resets == 0


@given(capacity=st.integers(1, 8), ticks=st.lists(st.integers(-50, 50), max_size=40))
def test_tick_ring_keeps_the_newest_of_each_slot(capacity: int, ticks: list[int]) -> None:
    ring = TickRing(capacity, 3)
    newest: dict[int, int] = {}
    for tick in ticks:
        ring.put(tick, _row(tick))
        newest[tick % capacity] = tick
    for tick in range(-60, 60):
        row = ring.get(tick)
        assert (row is not None) == (newest.get(tick % capacity) == tick) == (tick in ring)
        assert row is None or row[0] == tick


@given(st.lists(st.tuples(st.integers(1, 3), st.booleans()), max_size=20))
def test_actions_of_lost_frames_are_kept(steps: list[tuple[int, bool]]) -> None:
    """A frame brings all actions since the last frame, or says nothing."""
    log, known, tick = ActionLog(64, 3), set(), 0
    for ticks, told in steps:
        tick += ticks
        if told:
            log.extend(tick, np.stack([_row(t) for t in range(tick - ticks, tick)]))
            known.update(range(tick - ticks, tick))
    out = np.full((10, 3), -1, np.float32)
    missing = log.window(tick - 10, out)
    wanted = [t if t in known else -1 for t in range(tick - 10, tick)]
    assert out[:, 0].tolist() == wanted
    assert missing == wanted.count(-1)


def test_since_returns_the_unbroken_run_before_now() -> None:
    log, out = ActionLog(16, 3), np.zeros((8, 3), np.float32)
    log.extend(4, np.stack([_row(t) for t in (2, 3)]))
    log.extend(7, np.stack([_row(t) for t in (5, 6)]))
    assert log.since(2, 7, out) == 2  # tick 4 is not known
    assert out[-2:, 0].tolist() == [5, 6]
    assert log.since(6, 7, out) == 1
    assert log.since(7, 7, out) == 0


def test_log_longer_than_its_memory_keeps_the_end() -> None:
    log, out = ActionLog(4, 3), np.zeros((4, 3), np.float32)
    log.extend(10, np.stack([_row(t) for t in range(10)]))
    assert log.window(6, out) == 0
    assert out[:, 0].tolist() == [6, 7, 8, 9]
