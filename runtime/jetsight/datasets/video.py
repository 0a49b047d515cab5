"""Frames of a recorded video by their number, exact for any codec, frame rate and key frames.

Training, calibration and the running robot all decode here, so they get the same pixels.

Shapes: n frames of the file, h, w frame size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetsight.datasets.picture import PictureReader
from jetsight.datasets.pyav import has_no_timestamps, import_av
from jetsight.errors import DataError, first_line

AGAIN = "record it or copy the dataset again"


@dataclass(frozen=True)
class VideoIndex:
    """Times of all frames of a video file, and access to the frames by number.

    Args:
        path: the file.
        pts: `[n]` time stamps in ticks, ascending.
        tick_s: seconds per tick.
    """

    path: Path
    pts: NDArray[np.int64]
    tick_s: float

    @classmethod
    def read(cls, path: Path) -> VideoIndex:
        """Read the times of all frames, without decoding one.

        Raises:
            DataError: it is missing, no video, truncated, or has no usable time stamps.
            MissingDependency: PyAV is not installed.
        """
        av = import_av("decoding recorded video")
        with _reported(av, path), av.open(str(path)) as container:
            stream = _video_stream(container, path)
            # Edit lists hide frames at the start of a cut video; the decoder drops them, too.
            shown = [p for p in container.demux(stream) if p.size and not p.is_discard]
            # AVI files have decoding times alone, which are those of presentation there.
            stamps = [p.dts if p.pts is None else p.pts for p in shown]
            if has_no_timestamps(container):  # FFmpeg invents them
                stamps = [None]
            tick_s = float(stream.time_base)
        if not stamps or None in stamps:
            what = "no frames" if not stamps else "frames without time stamps"
            raise DataError(f"{path} has {what}; expected an mp4 or mkv with times: {AGAIN}")
        pts = np.sort(np.array(stamps, dtype=np.int64))
        if (np.diff(pts) <= 0).any():
            raise DataError(f"{path} has two frames of the same time; {AGAIN}")
        return cls(path, pts, tick_s)

    def __len__(self) -> int:
        return len(self.pts)

    @cached_property
    def times_s(self) -> NDArray[np.float64]:
        """Times `[n]` of the frames, from the first one on."""
        return np.asarray((self.pts - self.pts[0]) * self.tick_s, dtype=np.float64)

    @property
    def start_s(self) -> float:
        """Time stamp of the first frame."""
        return float(self.pts[0] * self.tick_s)

    @property
    def rate_hz(self) -> float | None:
        """Mean rate; None of a single frame."""
        return (len(self) - 1) / float(self.times_s[-1]) if len(self) > 1 else None

    def frames(
        self, first: int, count: int, reader: PictureReader | None = None
    ) -> Iterator[NDArray[np.uint8]]:
        """Decode `count` frames from number `first` on, to RGB `[h, w, 3]`, each a new array.

        Args:
            first: number of the first one.
            count: of frames.
            reader: of what the dataset declares of its pictures; None if that is nothing.

        Raises:
            DataError: the file has fewer frames, or one of them is damaged.
            MissingDependency: PyAV is not installed.
        """
        wanted, reader = self.pts[first : first + count], reader or PictureReader(str(self.path))
        done = 0
        with contextlib.closing(self._pictures(int(wanted[0]) if len(wanted) else 0)) as pictures:
            for due, picture in zip(wanted, pictures, strict=False):
                # Each frame by its own time: a lost one would shift all later frames against
                # their actions.
                if picture.pts != due or picture.is_corrupt:
                    raise DataError(
                        f"{self.path} has no intact frame at {due * self.tick_s:g} s (number "
                        f"{first + done}); the video is damaged: {AGAIN}"
                    )
                yield reader.rgb(picture)
                done += 1
        if done < count:
            raise DataError(
                f"{self.path} ends after {first + done} frames, expected {first + count} and more; "
                f"the video is truncated: {AGAIN}"
            )

    def _pictures(self, start: int) -> Generator[Any, None, None]:
        """Decode pictures from time stamp `start` on."""
        av = import_av("decoding recorded video")
        for seek in (True, False):
            with _reported(av, self.path), av.open(str(self.path)) as container:
                stream = _video_stream(container, self.path)
                stream.codec_context.thread_count = 1  # small pictures: threads cost more
                if seek and start > self.pts[0]:
                    container.seek(start, stream=stream, backward=True)
                begun = not seek or start <= self.pts[0]
                for picture in container.decode(stream):
                    if picture.pts is None or picture.pts < start:
                        begun = True
                        continue
                    if not begun and picture.pts > start:
                        break  # seeking ended behind the frame, at the next key frame
                    begun = True
                    yield picture
                else:
                    return


def _video_stream(container: Any, path: Path) -> Any:
    if not container.streams.video:
        raise DataError(f"{path} has no video stream; {AGAIN}")
    return container.streams.video[0]


@contextlib.contextmanager
def _reported(av: Any, path: Path) -> Iterator[None]:
    try:
        yield
    except av.error.FFmpegError as problem:
        # An mp4 has its index at the end: one that was cut cannot be opened at all.
        kind = isinstance(problem, av.error.InvalidDataError)
        why = "; it is truncated or no video" if kind else ""
        raise DataError(f"cannot decode {path} ({first_line(problem)}){why}: {AGAIN}") from problem
