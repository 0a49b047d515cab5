"""Base of the sources that are one generator of readings, with their FFmpeg input."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from jetsight.cameras.source import Reading
from jetsight.datasets.pyav import import_av, whole_only
from jetsight.errors import CameraError, first_line


class ReadingsSource:
    """Base of a source: `start` of a subclass sets `_readings`, the generator behind `read`.

    Args:
        label: name of the source in messages and reports.
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._readings: Iterator[Reading] = iter(())
        self._opened = contextlib.ExitStack()

    def read(self) -> Reading | None:
        """Take the next reading; None at the end.

        Raises:
            CameraError: the device or stream was lost, or the recording ends too early.
            DataError: a dataset is damaged.
        """
        return next(self._readings, None)

    def close(self) -> None:
        """Release all inputs."""
        self._readings = iter(())  # first: dropping a generator closes its own inputs
        self._opened.close()

    def _open_video(
        self, open_input: Callable[[Any], Any], cannot: str, advice: str, no_video: str
    ) -> Any:
        """Open an FFmpeg input until `close`.

        Args:
            open_input: opens a container with PyAV, its argument.
            cannot: start of the message of a failure, e.g. `"cannot open /dev/video0"`.
            advice: end of that message.
            no_video: end of the message for an input without a video stream.

        Returns:
            Its first video stream (PyAV's).

        Raises:
            CameraError: it cannot be opened, or has no video.
            MissingDependency: PyAV is not installed.
        """
        av = import_av()
        try:
            container = open_input(av)
        except (av.error.FFmpegError, OSError) as error:
            raise CameraError(f"{cannot} ({first_line(error)}); {advice}") from error
        # Before the check below, which may raise.
        self._opened.callback(container.close)
        if not container.streams.video:
            raise CameraError(f"{self._label} has no video stream; {no_video}")
        stream = container.streams.video[0]
        whole_only(stream)
        return stream


def pts_ns(picture: Any, stream: Any) -> int | None:
    """Convert the time stamp of a decoded picture to ns; None if there is no stamp."""
    return None if picture.pts is None else round(picture.pts * stream.time_base * 1_000_000_000)
