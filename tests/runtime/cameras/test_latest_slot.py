"""The hand-over between camera thread and loop: newest wins, drops counted, no action lost."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from jetsight.cameras.latest_slot import LatestSlot
from jetsight.cameras.source import Reading, StreamRequest

REQUEST = StreamRequest(4, 6, 10.0, action_block=2, plan_ticks=4, step_size=2)


def _reading(value: int, *, action: float | None = None, plan: int = 0) -> Reading:
    return Reading(
        np.full((4, 6, 3), value, np.uint8),
        media_ns=value,
        actions=None if action is None else np.full((1, 2), action, np.float32),
        plan=np.arange(plan * 2, dtype=np.float32).reshape(plan, 2) if plan else None,
    )


def _put(slot: LatestSlot, *ticks: int, known: bool = True) -> None:
    for tick in ticks:
        assert slot.put(_reading(tick, action=tick - 1 if known else None), tick, tick, tick * 10)


def test_newest_wins_and_drops_are_counted() -> None:
    slot = LatestSlot(REQUEST)
    _put(slot, 1, 2, 3)
    frame = slot.take(0)
    assert frame is not None
    assert (frame.index, frame.tick, frame.captured_ns) == (3, 3, 30)
    assert frame.image_hwc_u8[0, 0, 0] == 3
    assert slot.dropped == 2
    assert slot.take(0) is None


def test_frame_in_hand_is_not_overwritten_by_the_writer() -> None:
    slot = LatestSlot(REQUEST)
    _put(slot, 1)
    frame = slot.take(0)
    assert frame is not None
    _put(slot, 2, 3, 4, 5)
    assert frame.image_hwc_u8[0, 0, 0] == 1
    assert frame.tick == 1


def test_dropped_frames_keep_their_actions() -> None:
    slot = LatestSlot(REQUEST)
    _put(slot, 5)
    slot.take(0)
    _put(slot, 6, 7, 8)
    frame = slot.take(0)
    assert frame is not None
    assert frame.action_since is not None
    assert frame.action_since[:, 0].tolist() == [5, 6, 7]


def test_unknown_action_in_between_shortens_what_is_known() -> None:
    slot = LatestSlot(REQUEST)
    _put(slot, 5)
    slot.take(0)
    _put(slot, 6)
    _put(slot, 7, known=False)
    _put(slot, 8)
    frame = slot.take(0)
    assert frame is not None
    assert frame.action_since is not None
    assert frame.action_since[:, 0].tolist() == [7]
    _put(slot, 9, known=False)
    frame = slot.take(0)
    assert frame is not None
    assert frame.action_since is None


def test_plan_is_copied_and_cut_to_the_horizon() -> None:
    slot = LatestSlot(REQUEST)
    reading = _reading(1, plan=9)
    slot.put(reading, 1, 1, 1)
    assert reading.plan is not None
    reading.plan[:] = -1
    frame = slot.take(0)
    assert frame is not None
    assert frame.plan is not None
    assert frame.plan[:, 0].tolist() == [0, 2, 4, 6]


def test_lossless_writer_waits_for_the_reader() -> None:
    slot = LatestSlot(REQUEST, lossless=True)
    writer = threading.Thread(target=_put, args=(slot, *range(1, 50)))
    writer.start()
    taken = [frame.tick for _ in range(49) if (frame := slot.take(5)) is not None]
    writer.join(5)
    assert taken == list(range(1, 50))
    assert slot.dropped == 0


@pytest.mark.parametrize("lossless", [True, False])
def test_close_frees_a_waiting_writer_and_keeps_the_last_frame(lossless: bool) -> None:
    slot = LatestSlot(REQUEST, lossless=lossless)
    _put(slot, 1)
    done: list[bool] = []
    writer = threading.Thread(target=lambda: done.append(slot.put(_reading(2), 2, 2, 2)))
    if lossless:
        writer.start()
    slot.close()
    assert not slot.exhausted
    assert slot.take(0) is not None
    assert slot.exhausted
    if lossless:
        writer.join(5)
        assert done == [False]


def test_close_frees_a_waiting_reader() -> None:
    slot = LatestSlot(REQUEST)
    threading.Timer(0.02, slot.close).start()
    assert slot.take(30) is None
