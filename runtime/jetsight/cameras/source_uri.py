"""Grammar of `--source`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jetsight.cameras.source import Source
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
    policy: Policy | str | None = None,
    cameras: Sequence[str] = (),
) -> Source:
    """Make the source of `src` without starting it; see `Camera.open`.

    Raises:
        CameraError: there is no such file, folder or device.
        UsageError: `src` is of no known kind, or has nothing to drive or to choose.
    """
    src = os.fspath(src)
    scheme, _, rest = src.partition(":")
    if scheme == "gym":
        from jetsight.cameras.gym import GymSource

        return GymSource(rest, seed=seed, policy=policy, cameras=cameras)
    _only_simulated(src, policy, cameras)
    if scheme == "lerobot":
        return _episodes(rest)
    if scheme in ("rtsp", "rtsps"):
        from jetsight.cameras.physical import RtspSource

        return RtspSource(src, clock=clock)
    if "://" in src:
        raise UsageError(f"cannot stream {src!r}: {scheme}:// is not supported; give {_KINDS}")
    return _path(src, clock, rate_hz)


def _only_simulated(src: str, policy: object, cameras: Sequence[str]) -> None:
    for option, value in (("--policy", policy), ("--camera", cameras)):
        if value:
            raise UsageError(
                f"{src} is no simulated environment, so {option} has no meaning; leave it out"
            )


def _path(src: str, clock: Clock, rate_hz: float | None) -> Source:
    if src.startswith("/dev/"):
        from jetsight.cameras.physical import DeviceSource

        return DeviceSource(src, clock=clock, rate_hz=rate_hz)
    # From the right, because a folder's name may hold a # as well.
    path, (folder, _, episode) = Path(src), src.rpartition("#")
    # Before the plain folder: a dataset is one, too.
    if _is_dataset(path) or (episode.isdecimal() and _is_dataset(Path(folder))):
        return _episodes(src)
    if path.is_dir():
        from jetsight.cameras.images import ImageFolderSource

        return ImageFolderSource(path)
    if path.is_file():
        from jetsight.cameras.video import VideoSource

        return VideoSource(path)
    raise CameraError(f"there is no camera or file {src!r}; give {_KINDS}")


def _episodes(text: str) -> Source:
    from jetsight.cameras.lerobot import EpisodeSource

    folder, mark, episode = text.rpartition("#")
    if not mark:
        return EpisodeSource(Path(text), None)
    if not episode.isdecimal():
        raise UsageError(f"episode {episode!r} in {text!r} is not a number; write FOLDER#3")
    return EpisodeSource(Path(folder), int(episode))


def _is_dataset(path: Path) -> bool:
    return (path / "meta" / "info.json").is_file()
