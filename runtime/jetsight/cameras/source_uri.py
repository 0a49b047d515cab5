"""Grammar of `--source`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jetsight.cameras.source import Source, SourceFormat
from jetsight.clock import Clock
from jetsight.datasets.dataset import FeatureMap
from jetsight.datasets.open import detect_format
from jetsight.errors import CameraError, UsageError

if TYPE_CHECKING:
    from jetsight.cameras.gym import Policy

_NAMED = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.-]*)=(.+)")
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
    features: FeatureMap | None = None,
    declared: SourceFormat | None = None,
) -> Source:
    """Make the source of `src` without starting it; see `Camera.open`.

    Raises:
        CameraError: there is no such file, folder or device.
        UsageError: `src` is of no known kind, or has nothing to declare, drive or choose.
    """
    src, declared = os.fspath(src), declared or SourceFormat()
    scheme, _, rest = src.partition(":")
    if scheme == "gym":
        _has_its_own(src, declared)
        from jetsight.cameras.gym import GymSource

        features = features or FeatureMap()
        if features != FeatureMap(cameras=features.cameras):
            raise UsageError(
                f"{src} has no features to map; leave out --map, and choose with --camera KEY"
            )
        return GymSource(rest, seed=seed, policy=policy, cameras=features.cameras)
    _only_simulated(src, policy)
    if scheme == "lerobot":
        _has_its_own(src, declared)
        return _episodes(rest, features)
    if scheme in ("rtsp", "rtsps"):
        from jetsight.cameras.physical import RtspSource

        _paces_itself(src, declared)
        return RtspSource(src, clock=clock, declared=declared)
    if "://" in src:
        raise UsageError(f"cannot stream {src!r}: {scheme}:// is not supported; give {_KINDS}")
    return _path(src, clock, rate_hz, features, declared)


def _only_simulated(src: str, policy: object) -> None:
    if policy is not None:
        raise UsageError(
            f"{src} is no simulated environment that --policy could drive; leave it out"
        )


def open_sources(
    src: str | Sequence[str] | Mapping[str, str],
    *,
    clock: Clock,
    rate_hz: float | None = None,
    seed: int = 0,
    policy: Policy | str | None = None,
    features: FeatureMap | None = None,
    declared: SourceFormat | None = None,
) -> Source:
    """Make the source of `src`, or one of several cameras; see `Camera.open`.

    Raises:
        CameraError: see `open_source`.
        UsageError: likewise, or a simulator among several sources.
    """
    if isinstance(src, (str, os.PathLike)):
        return open_source(
            src,
            clock=clock,
            rate_hz=rate_hz,
            seed=seed,
            policy=policy,
            features=features,
            declared=declared,
        )
    texts = src.values() if isinstance(src, Mapping) else src
    _only_simulated(", ".join(texts), policy)
    for text in texts:
        if os.fspath(text).startswith("gym:"):
            raise UsageError(
                f"{text} cannot be one of several sources, as each would simulate a world of its "
                "own; give it alone, it delivers all its cameras"
            )
    from jetsight.cameras.several import SeveralSources

    opened = [
        open_source(each, clock=clock, rate_hz=rate_hz, features=features, declared=declared)
        for each in texts
    ]
    if isinstance(src, Mapping):
        return SeveralSources(dict(zip(src, opened, strict=True)), clock)
    return SeveralSources(opened, clock) if len(opened) > 1 else opened[0]


def named_sources(texts: Sequence[str]) -> str | Sequence[str] | Mapping[str, str]:
    """Parse the `--source` options of a command: `SRC`, or `NAME=SRC` for each camera by name.

    Raises:
        UsageError: only some have a name, or a name is repeated.

    Example:
        >>> named_sources(["front=/dev/video0", "wrist=/dev/video2"])
        {'front': '/dev/video0', 'wrist': '/dev/video2'}
    """
    # A file may have such a name itself.
    parts = [None if os.path.exists(text) else _NAMED.fullmatch(text) for text in texts]
    if not any(parts):
        return texts[0] if len(texts) == 1 else texts
    names = [part[1] for part in parts if part is not None]
    if len(names) != len(texts) or len(set(names)) != len(names):
        raise UsageError(
            f"--source {' --source '.join(texts)} is not usable; name every camera once, as in "
            "--source front=/dev/video0 --source wrist=/dev/video2, or none of them"
        )
    return {part[1]: part[2] for part in parts if part is not None}


def _path(
    src: str,
    clock: Clock,
    rate_hz: float | None,
    features: FeatureMap | None,
    declared: SourceFormat,
) -> Source:
    if src.startswith("/dev/"):
        from jetsight.cameras.physical import DeviceSource

        _paces_itself(src, declared)
        return DeviceSource(src, clock=clock, rate_hz=rate_hz, declared=declared)
    # From the right, because a folder's name may hold a # as well.
    path, (folder, _, episode) = Path(src), src.rpartition("#")
    # Before the plain folder: a dataset is one, too.
    if detect_format(path) or (episode.isdecimal() and detect_format(Path(folder))):
        _has_its_own(src, declared)
        return _episodes(src, features)
    if path.is_dir():
        from jetsight.cameras.images import ImageFolderSource

        return ImageFolderSource(path, declared)
    if path.is_file():
        from jetsight.cameras.video import VideoSource

        return VideoSource(path, declared)
    raise CameraError(f"there is no camera or file {src!r}; give {_KINDS}")


def _episodes(text: str, features: FeatureMap | None) -> Source:
    from jetsight.cameras.lerobot import EpisodeSource

    folder, mark, episode = text.rpartition("#")
    if not mark:
        return EpisodeSource(Path(text), None, features)
    if not episode.isdecimal():
        raise UsageError(f"episode {episode!r} in {text!r} is not a number; write FOLDER#3")
    return EpisodeSource(Path(folder), int(episode), features)


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
