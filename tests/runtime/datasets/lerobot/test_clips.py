"""Lengths, clips, stamps and frame counts of LeRobot datasets against each other.

Each fault has the same dataset without it, or a fault too small to matter, as its control.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.datasets.lerobot_writer import (
    TOP,
    ToyRecording,
    number_of,
    write_v2,
    write_v3,
    write_video,
)

from jetsight.datasets.dataset import FeatureMap, RecordedDataset
from jetsight.datasets.open import open_dataset
from jetsight.datasets.video import VideoIndex
from jetsight.errors import DataError

FROM, TO = f"videos/{TOP}/from_timestamp", f"videos/{TOP}/to_timestamp"
LENGTHS = (8, 6, 7, 5)
Table = list[dict[str, Any]]


def opened(folder: Path, rate_hz: float | None = None) -> RecordedDataset:
    data = open_dataset(folder, FeatureMap(rate_hz=rate_hz))
    data.verify()
    return data


def clips(shift: Callable[[int], float], *, keep_end: bool = False) -> Callable[[Table], None]:
    """Move the clip of episode e by `shift(e)` frames."""

    def change(table: Table) -> None:
        for row in table:
            for key in (FROM,) if keep_end else (FROM, TO):
                row[key] += shift(row["episode_index"]) / 10

    return change


FAULTS: dict[str, tuple[Callable[[Table], None], str]] = {
    "joined by a tool that rounds": (
        clips(lambda e: -0.2 * e, keep_end=True),
        r"episodes 2 and 3 overlap by 0\.6 frames",
    ),
    "each a little early": (clips(lambda e: -0.2 * e), "episodes 2 and 3 overlap by 0.6 frames"),
    "each a frame late, ends right": (
        clips(lambda e: e, keep_end=True),
        "clip of episode 1 holds 5 frames .* but its length is 6",
    ),
    "each a frame late": (clips(lambda e: e), "episode 1 begins at 0.9 s, but its frames at 0.8 s"),
    "one episode twice": (
        lambda table: table[2].update({FROM: 0.8, TO: 1.5}),
        "episodes 1 and 2 overlap by 6 frames",
    ),
    "two swapped": (
        lambda table: (table[1].update({FROM: 1.4, TO: 2.1}), table[2].update({FROM: 0.8})),
        "overlap|holds",
    ),
    "rows and length": (
        lambda table: table[1].update(dataset_to_index=table[1]["dataset_to_index"] + 1),
        r"episode 1 has length 6, but its rows 8\.\.15 are 7",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_clips_that_contradict_each_other_are_refused(fault: str, tmp_path: Path) -> None:
    change, words = FAULTS[fault]
    with pytest.raises(DataError, match=words) as caught:
        opened(write_v3(tmp_path / "d", ToyRecording(LENGTHS, clips=change)))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.0, 0.12, -0.12])
def test_clips_less_than_half_a_frame_beside_are_read_right(share: float, tmp_path: Path) -> None:
    recording = ToyRecording(LENGTHS, clips=clips(lambda e: share * e))
    data = opened(write_v3(tmp_path / "d", recording))
    assert [number_of(frame) for frame in data.frames(3)] == list(range(21, 26))
    assert any("beside their frames" in note for note in data.notes) == bool(share)


def test_clips_longer_than_their_rows_are_said(tmp_path: Path) -> None:
    """A camera that recorded a frame more than the rows; the rows' frames are the first ones."""

    def spare(table: Table) -> None:
        for row in table:
            row.update({FROM: row[FROM] + 0.1 * row["episode_index"]})
            row[TO] = row[FROM] + row["length"] / 10 + 0.1

    folder = write_v3(tmp_path / "d", ToyRecording(LENGTHS, clips=spare))
    write_video(next(folder.rglob("*.mp4")), ToyRecording(), range(30))
    data = opened(folder)
    assert [number_of(frame) for frame in data.frames(1)] == list(range(9, 15))
    assert any("0..3 are longer than their rows" in note for note in data.notes)


@pytest.mark.parametrize("write", [write_v2, write_v3])
@pytest.mark.parametrize(("offset_s", "said"), [(0.1, True), (0.3, True), (0.02, False)])
def test_a_video_that_begins_late_is_counted_from_its_first_frame(
    write: Callable[..., Path], offset_s: float, said: bool, tmp_path: Path
) -> None:
    times = lambda n: offset_s + np.arange(n) / 10  # noqa: E731
    data = opened(write(tmp_path / "d", ToyRecording(LENGTHS, times_s=times)))
    first = 8 if write is write_v3 else 0
    assert [number_of(frame) for frame in data.frames(1)] == list(range(first, first + 6))
    (note,) = [note for note in data.notes if "counted from its first frame" in note] or [""]
    assert bool(note) == said
    # One line, however many videos are alike.
    assert ("3 more videos likewise" in note) == (said and write is write_v2)


@pytest.mark.parametrize("write", [write_v2, write_v3])
def test_a_video_that_lacks_its_first_frame_is_no_late_one(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    folder = write(tmp_path / "d", ToyRecording((8,)))
    late = ToyRecording((8,), times_s=lambda n: 0.1 + np.arange(n) / 10)
    write_video(next(folder.rglob("*.mp4")), late, range(1, 8))
    with pytest.raises(DataError, match=r"holds 7 frames, but the rows .*\(0\) are 8"):
        opened(folder)


def test_a_video_of_more_frames_than_rows_is_said(tmp_path: Path) -> None:
    folder = write_v2(tmp_path / "d", ToyRecording((8,)))
    write_video(next(folder.rglob("*.mp4")), ToyRecording(), range(11))
    data = opened(folder)
    assert [number_of(frame) for frame in data.frames(0)] == list(range(8))
    assert any("has 3 frames more than rows" in note for note in data.notes)


def test_a_lost_frame_is_found_where_counts_cannot_tell(tmp_path: Path) -> None:
    folder = write_v2(tmp_path / "d", ToyRecording((8,)))
    lost = lambda n: np.delete(np.arange(n + 1), 3) / 10  # noqa: E731
    write_video(next(folder.rglob("*.mp4")), ToyRecording(times_s=lost), range(9))
    with pytest.raises(DataError, match=r"no frame for 0\.2 s after 0\.2 s \(frame 2 of episode 0"):
        opened(folder)


def slow(count: int) -> np.ndarray:
    return np.arange(count) / 9.3


def jittery(count: int) -> np.ndarray:
    return np.arange(count) / 10 + np.random.default_rng(0).uniform(0, 0.04, count)


def test_a_video_of_another_rate_is_refused_until_the_rate_is_given(tmp_path: Path) -> None:
    folder = write_v3(tmp_path / "d", ToyRecording(LENGTHS, times_s=slow))
    with pytest.raises(DataError, match=r"runs at 9\.3 .* says 10 .* add --map rate=9\.3"):
        opened(folder)
    with pytest.raises(DataError, match=r"runs at 9\.3"):
        opened(folder, rate_hz=10)  # the declared rate is no new knowledge
    data = opened(folder, rate_hz=9.3)
    assert data.fps == 9.3
    assert [number_of(frame) for frame in data.frames(3)] == list(range(21, 26))
    assert data.rows(3).timestamps_s == pytest.approx(np.arange(5) / 9.3)


def test_a_video_of_uneven_times_has_one_frame_per_row(tmp_path: Path) -> None:
    data = opened(write_v3(tmp_path / "d", ToyRecording(LENGTHS, times_s=jittery)))
    assert [number_of(frame) for frame in data.frames(2)] == list(range(14, 21))


def stamps(change: Callable[[np.ndarray], np.ndarray]) -> ToyRecording:
    def rows(columns: dict[str, Any]) -> None:
        columns["timestamp"] = change(np.array(columns["timestamp"])).tolist()

    return ToyRecording((30,), rows=rows)


STAMPS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "slower clock": (
        lambda t: 1.4 * t,
        r"stamped 7\.143 times .* add --map rate=7\.143 .* rate=10",
    ),
    "wall clock, slower": (
        lambda t: 1.4 * t + np.random.default_rng(0).uniform(0, 0.03, len(t)),
        r"stamped 7\.\d+ times per second",
    ),
    "milliseconds": (lambda t: 1000 * t, r"stamped 0\.01 times"),
    "constant": (lambda t: 0 * t, "expected growing times; .* add --map rate=10"),
    "back in time": (lambda t: np.where(np.arange(len(t)) == 7, 0.1, t), "time of row 7"),
}


@pytest.mark.parametrize("kind", STAMPS)
def test_stamps_against_the_declared_rate(kind: str, tmp_path: Path) -> None:
    change, words = STAMPS[kind]
    folder = write_v3(tmp_path / "d", stamps(change))
    with pytest.raises(DataError, match=words):
        opened(folder)
    kept = opened(folder, rate_hz=10)  # the user says that the rows are evenly spaced
    assert kept.rows(0).timestamps_s == pytest.approx(np.arange(30) / 10)


GOOD_STAMPS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "even": lambda t: t,
    "wall clock": lambda t: 5000.0 + t,
    "jitter": lambda t: t + np.random.default_rng(1).uniform(0, 0.05, len(t)),
    "one pause": lambda t: t + 2.0 * (np.arange(len(t)) > 20),
}


@pytest.mark.parametrize("kind", GOOD_STAMPS)
def test_stamps_of_a_clock_that_runs_right(kind: str, tmp_path: Path) -> None:
    times = opened(write_v3(tmp_path / "d", stamps(GOOD_STAMPS[kind]))).rows(0).timestamps_s
    assert times[0] == 0
    assert len(times) == 30


def test_a_cut_video_is_refused_before_the_first_frame(tmp_path: Path) -> None:
    folder = write_v3(tmp_path / "d", ToyRecording(LENGTHS, files=(0, 0, 1, 1)))
    opened(folder)  # the control
    last = sorted(folder.rglob("*.mp4"))[-1]
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    with pytest.raises(DataError, match=r"file-001\.mp4 .* truncated or no video"):
        opened(folder)


def test_a_video_of_no_times_or_frames_is_refused(tmp_path: Path) -> None:
    raw = tmp_path / "raw.h264"
    folder = write_v2(tmp_path / "d", ToyRecording((8,)))
    import av

    with av.open(str(next(folder.rglob("*.mp4")))) as source, av.open(str(raw), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    with pytest.raises(DataError, match=r"raw\.h264 has frames without time stamps"):
        VideoIndex.read(raw)


def test_a_frame_number_behind_the_end_is_an_error(tmp_path: Path) -> None:
    folder = write_v2(tmp_path / "d", ToyRecording((8,)))
    index = VideoIndex.read(next(folder.rglob("*.mp4")))
    assert len(list(index.frames(5, 3))) == 3
    with pytest.raises(DataError, match="ends after 8 frames, expected 9"):
        list(index.frames(5, 4))
