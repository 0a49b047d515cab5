"""Grammar of `--source`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from jetsight.cameras.source import Source, SourceFormat
from jetsight.clock import Clock
from jetsight.errors import CameraError, UsageError

if TYPE_CHECKING:
    from jetsight.cameras.gym import Policy

_KINDS = (
    "a video file, a folder of images, /dev/videoN, rtsp://HOST/..., lerobot:FOLDER[#EPISODE] "
    "or gym:ENV_ID"
)


def open_source(
    src: str,
    *,
    clock: Clock,
    rate_hz: float | None = None,
    seed: int = 0,
    policy: Policy | None = None,
    declared: SourceFormat | None = None,
) -> Source:
    """Make the source of `src` without starting it; see `Camera.open`.

    Raises:
        CameraError: there is no such file, folder or device.
        UsageError: `src` is of no known kind, or has its own rate and form already.
    """
    src, declared = os.fspath(src), declared or SourceFormat()
    scheme, _, rest = src.partition(":")
    if scheme == "gym":
        _has_its_own(src, declared)
        from jetsight.cameras.gym import GymSource

        return GymSource(rest, seed=seed, policy=policy)
    if scheme == "lerobot":
        _has_its_own(src, declared)
        return _episodes(rest)
    if scheme in ("rtsp", "rtsps"):
        from jetsight.cameras.physical import RtspSource

        _paces_itself(src, declared)
        return RtspSource(src, clock=clock, declared=declared)
    if "://" in src:
        raise UsageError(f"cannot stream {src!r}: {scheme}:// is not supported; give {_KINDS}")
    return _path(src, clock, rate_hz, declared)


def _path(src: str, clock: Clock, rate_hz: float | None, declared: SourceFormat) -> Source:
    if src.startswith("/dev/"):
        from jetsight.cameras.physical import DeviceSource

        _paces_itself(src, declared)
        return DeviceSource(src, clock=clock, rate_hz=rate_hz, declared=declared)
    # From the right, because a folder's name may hold a # as well.
    path, (folder, _, episode) = Path(src), src.rpartition("#")
    # Before the plain folder: a dataset is one, too.
    if _is_dataset(path) or (episode.isdecimal() and _is_dataset(Path(folder))):
        _has_its_own(src, declared)
        return _episodes(src)
    if path.is_dir():
        from jetsight.cameras.images import ImageFolderSource

        return ImageFolderSource(path, declared)
    if path.is_file():
        from jetsight.cameras.video import VideoSource

        return VideoSource(path, declared)
    raise CameraError(f"there is no camera or file {src!r}; give {_KINDS}")


def _episodes(text: str) -> Source:
    from jetsight.cameras.lerobot import EpisodeSource

    folder, mark, episode = text.rpartition("#")
    if not mark:
        return EpisodeSource(Path(text), None)
    if not episode.isdecimal():
        raise UsageError(f"episode {episode!r} in {text!r} is not a number; write FOLDER#3")
    return EpisodeSource(Path(folder), int(episode))


def _has_its_own(src: str, declared: SourceFormat) -> None:
    if declared != SourceFormat():
        raise UsageError(
            f"{src} declares rate and pictures itself; leave out --fps, --bits and --channels, "
            "which are for videos, images and live cameras"
        )


def _paces_itself(src: str, declared: SourceFormat) -> None:
    if declared.fps is not None:
        raise UsageError(
            f"{src} is live and paces itself; leave out --fps, which is the rate of recorded "
            "frames: --rate sets that of a camera"
        )


def _is_dataset(path: Path) -> bool:
    return (path / "meta" / "info.json").is_file()
