"""`meta/info.json` of a LeRobot dataset: version, rate, features, cameras.

Everything read is checked, because datasets are copied around, edited by hand and downloaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jetsight.datasets.dataset import CameraFeature
from jetsight.datasets.features import RecordedFeature
from jetsight.datasets.names import flat_names
from jetsight.datasets.picture import PictureFormat
from jetsight.errors import DataError
from jetsight.storage import strict_json

INFO = "meta/info.json"
EPISODES_V2, EPISODES_V3 = "meta/episodes.jsonl", "meta/episodes"
DECLARE_BITS = 'write "bits": {bits} into "info" of the camera\'s feature in meta/info.json'
Layout = Literal["v2", "v3"]
_CHANNELS = (1, 3, 4)
_AXES = {
    "channel": re.compile(r"c|channels?|rgba?|bgra?|depth|gr[ae]y|colou?rs?"),
    "height": re.compile(r"h|height|rows?"),
    "width": re.compile(r"w|width|cols?|columns?"),
}
# Pixel formats of more bits than a colour frame has; depth is stored in them.
_DEPTH_FORMAT = re.compile(r"gr[ae]y(9|1\d|f)", re.IGNORECASE)


@dataclass(frozen=True)
class Info:
    """Fields of `meta/info.json` that reading needs; converters leave some of them out."""

    features: Mapping[str, Any]
    fps: float
    codebase_version: str = ""
    data_path: str | None = None
    video_path: str | None = None
    total_episodes: int | None = None
    chunks_size: int | None = None
    robot_type: str | None = None


def read_info(folder: Path) -> Info:
    """Read and check `meta/info.json` below `folder`.

    Raises:
        DataError: it is missing, damaged, or of an unknown version.
    """
    path = folder / INFO
    try:
        data = path.read_bytes()
    except OSError as problem:
        raise DataError(
            f"cannot read {path} ({problem.strerror}); expected the folder of a LeRobot dataset, "
            "which has meta/, data/ and videos/"
        ) from problem
    info = strict_json.parse(
        data, Info, str(path), error=DataError, allow_unknown=True, max_bytes=16 << 20
    )
    major = info.codebase_version.split(".")[0]
    if major not in ("", "v2", "v3"):
        old = major in ("v0", "v1")
        advice = "convert it with LeRobot's scripts" if old else "update jetsight"
        raise DataError(
            f"{path} has codebase_version {info.codebase_version!r}, expected 'v3.0', 'v2.1' or "
            f"'v2.0'; {advice}"
        )
    if info.fps <= 0:
        raise DataError(f"{path} has fps {info.fps}, expected more than 0; correct it")
    return info


def layout_of(folder: Path, info: Info) -> Layout:
    """Return the layout that the files of `meta/` have, whatever version is written into them.

    Raises:
        DataError: there is no list of episodes.
    """
    v2, v3 = (folder / EPISODES_V2).is_file(), (folder / EPISODES_V3).is_dir()
    if not v2 and not v3:
        raise DataError(
            f"{folder / EPISODES_V3} has no parquet file, and there is no {EPISODES_V2}; copy the "
            "dataset again"
        )
    # A dataset that was converted in place has both lists.
    newer = info.codebase_version.startswith("v3") if v2 and v3 else v3
    return "v3" if newer else "v2"


def vectors(info: Info) -> list[RecordedFeature]:
    """List the features that are no pictures, as `meta/info.json` describes them."""
    found = []
    for key, feature in _features(info):
        if _is_picture(feature):
            continue
        kind, shape = str(feature.get("dtype")), feature.get("shape")
        sizes = shape if isinstance(shape, list) else []
        if any(type(n) is not int for n in sizes):
            continue
        numeric = kind.startswith(("float", "int", "uint", "bool"))
        names = tuple(flat_names(feature.get("names")))
        found.append(RecordedFeature(key, tuple(sizes), names, numeric))
    return found


def cameras(info: Info, folder: Path) -> tuple[list[CameraFeature], dict[str, str]]:
    """List the cameras, and for each feature of pictures that is unusable the reason."""
    found, unusable = [], {}
    for key, feature in _features(info):
        if not _is_picture(feature):
            continue
        size = frame_size(feature)
        if size is None:
            unusable[key] = (
                f"{folder / INFO}: camera {key!r} has shape {feature.get('shape')!r}, expected "
                "[height, width, 3] or [3, height, width]; correct it"
            )
            continue
        depth = is_depth(key, feature, channels=size[2])
        found.append(CameraFeature(key, size[0], size[1], "depth" if depth else "colour"))
    return found, unusable


def is_video(info: Info, key: str) -> bool:
    """Return whether a camera is recorded as videos, not as pictures in the rows."""
    return bool(info.features[key].get("dtype") == "video")


def picture_format(info: Info, key: str) -> PictureFormat:
    """Read what a camera declares of its pictures: significant bits, and BGR by its names.

    Raises:
        UsageError: no camera has that many bits.
    """
    feature = info.features[key]
    facts, names = feature.get("info"), feature.get("names")
    bits = facts.get("bits") if isinstance(facts, dict) else None
    text = [str(name).lower() for name in names] if isinstance(names, list) else []
    bgr = "bgr" in text or text[-3:] == ["b", "g", "r"]
    return PictureFormat(bits if type(bits) is int else None, "bgr" if bgr else "rgb")


def frame_size(feature: Mapping[str, Any]) -> tuple[int, int, int] | None:
    """Find height, width and channels of a camera, by the names of its axes, else by its shape."""
    shape, names = feature.get("shape"), feature.get("names")
    sizes = [n for n in shape if type(n) is int and n > 0] if isinstance(shape, list) else []
    if len(sizes) != 3 or sizes != shape:
        return None
    axes = [str(name).lower() for name in names] if isinstance(names, list) else []
    named = [_axis(axes, kind) for kind in ("height", "width", "channel")]
    height, width, channel = named
    if height is not None and width is not None:
        channel = 3 - height - width
    if channel is None or sizes[channel] not in _CHANNELS:
        # Names that say nothing, or the opposite of the shape: height comes before width in every
        # layout, and channels are the axis of 1, 3 or 4.
        channel = next((axis for axis in (2, 0) if sizes[axis] in _CHANNELS), None)
        height = width = None
    if channel is None:
        return None
    if height is None or width is None:
        height, width = (axis for axis in range(3) if axis != channel)
    return sizes[height], sizes[width], sizes[channel]


def is_depth(key: str, feature: Mapping[str, Any], *, channels: int) -> bool:
    """Return whether a camera holds distances: by a flag, its name, its pixels, its channels."""
    info = feature.get("info") or feature.get("video_info") or {}
    facts = {**feature, **(info if isinstance(info, dict) else {})}
    flags = [facts.get(flag) for flag in ("is_depth_map", "video.is_depth_map")]
    pixels = str(facts.get("video.pix_fmt", ""))
    named = re.search(r"(?<![a-z])depths?(?![a-z])", key.lower())
    if True in flags or named or _DEPTH_FORMAT.match(pixels):
        return True
    # A grey camera has one channel too; its recorder has to deny that it is depth.
    return channels == 1 and False not in flags


def _axis(axes: list[str], kind: str) -> int | None:
    found = [i for i, name in enumerate(axes) if _AXES[kind].fullmatch(name)]
    return found[0] if len(axes) == 3 and len(found) == 1 else None


def _features(info: Info) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for key, feature in info.features.items():
        if isinstance(feature, dict):
            yield key, feature


def _is_picture(feature: Mapping[str, Any]) -> bool:
    return feature.get("dtype") in ("video", "image")
