"""Clips of episodes in their videos, checked against lengths, times and frame counts.

A table of episodes is easily wrong: videos were joined by a tool that rounds, frames were lost, the
rate is another. Then rows get frames of another time, or of another episode, and nothing shows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jetsight.datasets.fit import rates_agree
from jetsight.datasets.lerobot.episodes import EpisodeLocation
from jetsight.datasets.lerobot.info import EPISODES_V3
from jetsight.datasets.names import ranges
from jetsight.datasets.video import AGAIN, VideoIndex
from jetsight.errors import DataError

_HALF = 0.5  # frames; beyond this the nearest frame is another one
_ROUNDING = 1e-3  # frames; times are float32 in some tables


def by_video(places: Sequence[EpisodeLocation]) -> dict[Path, list[EpisodeLocation]]:
    """Group episodes by their video, in the order of their clips."""
    found = defaultdict(list)
    for place in places:
        if place.video_file is not None:
            found[place.video_file].append(place)
    return {path: sorted(group, key=lambda each: each.start_s) for path, group in found.items()}


def check_table(
    folder: Path, videos: Mapping[Path, Sequence[EpisodeLocation]], fps: float
) -> list[str]:
    """Check the clips of a table of episodes against each other and against the lengths.

    Args:
        folder: the dataset.
        videos: all episodes of the table, by their video.
        fps: frames per second.

    Returns:
        Notes on what is odd and harmless.

    Raises:
        DataError: a clip is shorter than its rows, or two clips overlap.
    """
    where, longer = folder / EPISODES_V3, []
    for group in videos.values():
        filled = group[0].start_s
        for place, before in zip(group, [None, *group], strict=False):
            frames = _clip_frames(place, fps)
            if frames < place.length - _HALF:
                raise DataError(
                    f"{where}: the clip of episode {place.number} holds {frames:.4g} frames from "
                    f"from_timestamp to to_timestamp at {fps:g} Hz, but its length is "
                    f"{place.length}; correct the table, or copy the dataset again"
                )
            if frames > place.length + _HALF:
                longer.append(place.number)
            if before is not None:
                _check_order(where, before, place, filled, fps)
            filled += place.length / fps
    if not longer:
        return []
    return [
        f"clips of episodes {ranges(sorted(longer))} are longer than their rows; the rest is unused"
    ]


def _clip_frames(place: EpisodeLocation, fps: float) -> float:
    """Count the frames of a clip by its times."""
    return place.length if place.stop_s is None else (place.stop_s - place.start_s) * fps


def _check_order(
    where: Path, before: EpisodeLocation, place: EpisodeLocation, filled: float, fps: float
) -> None:
    """Refuse a clip that begins before the rows of those before it have passed."""
    ends = before.start_s + max(before.length, _clip_frames(before, fps)) / fps
    over = max(ends, filled) - place.start_s
    if over * fps > _HALF + _ROUNDING:
        raise DataError(
            f"{where}: the clips of episodes {before.number} and {place.number} overlap by "
            f"{over * fps:.2g} frames ({place.number} begins at {place.start_s:.6g} s, and what is "
            f"before it takes until {max(ends, filled):.6g} s), so rows would get frames of "
            "another episode; correct from_timestamp, or record again"
        )


def place_clips(
    index: VideoIndex, clips: Sequence[EpisodeLocation], fps: float, *, declared: bool = True
) -> tuple[dict[int, int], dict[str, str]]:
    """Find the first frame of each episode in a video.

    Args:
        index: the video.
        clips: all episodes in it, in order, those without rows included.
        fps: frames per second.
        declared: the rate is that of `meta/info.json`, and the video has to agree; otherwise the
            user gave it, and the times of the video are not compared.

    Returns:
        Numbers of frames by the numbers of episodes, and notes by their kind.

    Raises:
        DataError: the video has too few frames, another rate, or its frames are elsewhere.
    """
    total = sum(clip.length for clip in clips)
    _check_count(index, clips, total)
    if declared:
        _check_rate(index, fps)
    notes = {}
    if abs(index.start_s) * fps > _HALF:
        notes["late"] = (
            f"{index.path} begins at {index.start_s:.4g} s; times are counted from its first frame"
        )
    # With exactly as many frames as rows, the frames belong to the rows one by one.
    firsts = _by_count(clips) if len(index) == total else _by_time(index, clips)
    worst = _check_firsts(index, clips, firsts, fps, declared)
    if worst > 0.1:
        notes["beside"] = (
            f"clips in {index.path} begin up to {worst:.2g} frames beside their frames"
        )
    if len(index) > total and clips[0].stop_s is None:
        more = len(index) - total
        notes["more"] = f"{index.path} has {more} frames more than rows; left unused"
    return firsts, notes


def _by_count(clips: Sequence[EpisodeLocation]) -> dict[int, int]:
    firsts, count = {}, 0
    for clip in clips:
        firsts[clip.number] = count
        count += clip.length
    return firsts


def _by_time(index: VideoIndex, clips: Sequence[EpisodeLocation]) -> dict[int, int]:
    times = index.times_s
    return {clip.number: int(abs(times - clip.start_s).argmin()) for clip in clips}


def _check_count(index: VideoIndex, clips: Sequence[EpisodeLocation], total: int) -> None:
    if len(index) < total:
        some = ranges(sorted(clip.number for clip in clips))
        raise DataError(
            f"{index.path} holds {len(index)} frames, but the rows of its episodes ({some}) are "
            f"{total}; the video is truncated or of another recording: {AGAIN}, or remove the "
            "file to leave its episodes out"
        )


def _check_rate(index: VideoIndex, fps: float) -> None:
    rate = index.rate_hz
    if rate is None:
        return
    seconds = float(index.times_s[-1])
    drift = abs((len(index) - 1) / fps - seconds) * fps
    # Two frames measure no rate; a slow drift over a long file is that of 29.97 against 30; a lost
    # frame changes the mean alone.
    usual = 1 / float(np.median(np.diff(index.times_s)))
    if drift > _HALF and not rates_agree(rate, fps) and not rates_agree(usual, fps):
        raise DataError(
            f"{index.path} runs at {rate:.4g} frames per second by its own time stamps, but "
            f"meta/info.json says {fps:g} frames per second; if it has one frame per row and "
            f"was recorded at {rate:.4g}, add --map rate={rate:.4g}; otherwise {AGAIN}"
        )


def _check_firsts(
    index: VideoIndex,
    clips: Sequence[EpisodeLocation],
    firsts: dict[int, int],
    fps: float,
    declared: bool,
) -> float:
    """Refuse clips whose frames are not at their times, or are shared; return the worst offset."""
    times, worst, free = index.times_s, 0.0, 0
    exact = len(index) == sum(clip.length for clip in clips)
    for clip in clips:
        first = firsts[clip.number]
        stop = first + clip.length
        if first < free or stop > len(index):
            raise DataError(
                f"{index.path}: the clip of episode {clip.number} begins at {clip.start_s:.6g} s, "
                f"frame {first}, where its {clip.length} frames do not fit between the episodes "
                f"beside it and the end at {len(index)}; correct from_timestamp, or record again"
            )
        off = abs(times[first] - clip.start_s) * fps
        if declared and off > _HALF + _ROUNDING:
            raise DataError(
                f"{index.path}: the clip of episode {clip.number} begins at {clip.start_s:.6g} s, "
                f"but its frames at {times[first]:.6g} s, {off:.2g} frames beside; correct "
                "from_timestamp, or record again"
            )
        worst, free = max(worst, off), stop
        _check_gaps(index, clip, first, fps, exact=exact)
    return worst if declared else 0.0


def _check_gaps(
    index: VideoIndex, clip: EpisodeLocation, first: int, fps: float, *, exact: bool
) -> None:
    """Refuse a clip with a lost frame, where no count proves that each row has its own."""
    if exact:
        return
    steps = np.diff(index.times_s[first : first + clip.length]) * fps
    lost = np.flatnonzero(steps > 1 + _HALF)
    if len(lost):
        at = first + int(lost[0])
        raise DataError(
            f"{index.path} has no frame for {steps[lost[0]] / fps:.3g} s after "
            f"{index.times_s[at]:.6g} s (frame {int(lost[0])} of episode {clip.number}); frames "
            f"were lost, so later ones belong to other rows: {AGAIN}"
        )
