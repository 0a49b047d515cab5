"""Reading of HDF5 recordings: robomimic, ALOHA/ACT and stable-worldmodel files.

An episode is a group (`data/demo_0` of robomimic), a file (ALOHA: a folder of `episode_0.hdf5`), or
a run of rows with one `episode_idx` (stable-worldmodel). In each, every array with one entry per
tick is a feature; arrays of pixels are cameras.

Shapes: T ticks of an episode.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetsight.datasets.dataset import CameraFeature, DatasetFormat, FeatureMap
from jetsight.datasets.features import RecordedFeature
from jetsight.datasets.formats.episodes import RawDataset, RawRecording
from jetsight.datasets.formats.images import as_rgb
from jetsight.datasets.pictures import decode_picture
from jetsight.errors import DataError, MissingDependency, first_line

SUFFIXES = (".hdf5", ".h5")
_EPISODE = ("episode_idx", "episode_index", "ep_idx")  # of a file with the rows of all episodes
_MOST = 4096  # groups and arrays walked per episode; more is no recording
_PIXELS = 16  # fewest rows and columns of a picture


@dataclass(frozen=True)
class Place:
    """An episode: its file, group, and the rows of it (all if None)."""

    file: Path
    group: str
    rows: tuple[int, int] | None = None


class Hdf5Recording(RawRecording):
    """Episodes of one HDF5 file, or of a folder of them.

    Args:
        path: the file or folder.

    Raises:
        DataError: a file is damaged, or holds no episode.
        MissingDependency: h5py is not installed.
    """

    format = "hdf5"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files = [path] if path.is_file() else _files(path)
        self._places: list[Place] = []
        self._arrays: dict[str, Any] = {}  # shape of a tick and number format, by key
        lengths: list[int] = []
        for file in self._files:
            with opened(file) as stream:
                for place in _places(stream, file):
                    arrays, length = _ticks(stream[place.group], place)
                    self._keep(arrays, place)
                    self._places.append(place)
                    lengths.append(length)
                self.fps = self.fps or _declared_rate(stream)
                self.robot = self.robot or _declared_robot(stream)
        self.lengths = lengths
        self.cameras = list(self._cameras())
        pictures = {camera.key for camera in self.cameras}
        self.features = [
            RecordedFeature(key, array.shape, numeric=array.dtype.kind in "fiub")
            for key, array in self._arrays.items()
            if key not in pictures
        ]

    def values(self, episode: int, key: str) -> NDArray[Any]:
        """Read an array of an episode."""
        place = self._places[episode]
        with opened(place.file) as stream:
            return np.asarray(_rows(stream[place.group][key], place))

    def pictures(self, episode: int, key: str) -> Iterator[NDArray[np.uint8]]:
        """Read the pictures of a camera, tick by tick."""
        place = self._places[episode]
        first = 0 if place.rows is None else place.rows[0]
        where = f"{place.file}: {key!r}"
        with opened(place.file) as stream:
            array = stream[place.group][key]
            for tick in range(self.lengths[episode]):
                yield _picture(array[first + tick], f"{where}, tick {tick},")

    def stamps_s(self, episode: int) -> NDArray[np.float64] | None:
        """Read `timestamp` in s, where there is one."""
        keys = [key for key in self._arrays if key.rsplit("/", 1)[-1] in ("timestamp", "time")]
        if len(keys) != 1 or self._arrays[keys[0]].shape:
            return None
        return np.asarray(self.values(episode, keys[0]), np.float64)

    def files(self) -> Iterable[Path]:
        """List the files."""
        return self._files

    def _keep(self, arrays: Mapping[str, Any], place: Place) -> None:
        """Compare the arrays of an episode with those of the first one."""
        if not self._arrays:
            self._arrays = dict(arrays)
            return
        for key, array in self._arrays.items():
            found = arrays.get(key)
            if found is None or (array.shape != found.shape and not array.encoded):
                raise DataError(
                    f"{place.file}: {place.group} has {key!r} "
                    f"{'missing' if found is None else f'of shape {list(found.shape)}'}, expected "
                    f"{list(array.shape)} as in the first episode; record it or copy it again"
                )

    def _cameras(self) -> Iterator[CameraFeature]:
        for key, array in self._arrays.items():
            if array.encoded or _is_picture(array):
                with opened(self._places[0].file) as stream:
                    first = self._places[0].rows[0] if self._places[0].rows else 0
                    cell = stream[self._places[0].group][key][first]
                    depth = "depth" in key.lower() or np.asarray(cell).dtype.kind == "f"
                    shape = np.shape(cell) if depth else _picture(cell, key).shape
                yield CameraFeature(key, shape[0], shape[1], "depth" if depth else "colour")


@dataclass(frozen=True)
class TickArray:
    """Shape and number format of one tick of an array; `encoded` holds image files."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    encoded: bool = False


def opened(file: Path) -> Any:
    """Open an HDF5 file for reading.

    Raises:
        DataError: it cannot be read, or is none.
        MissingDependency: h5py is not installed.
    """
    try:
        import h5py
    except ImportError as problem:
        raise MissingDependency("h5py", "data", "reading an HDF5 file") from problem
    try:
        return h5py.File(file, "r")
    except OSError as problem:
        raise DataError(
            f"cannot read {file} as HDF5 ({first_line(problem)}); copy it again"
        ) from problem


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES)


def _places(stream: Any, file: Path) -> Iterator[Place]:
    """Find the episodes of a file."""
    if "data" in stream and hasattr(stream["data"], "keys"):
        names = [name for name in stream["data"] if hasattr(stream["data"][name], "keys")]
        # demo_10 comes after demo_9.
        for name in sorted(names, key=lambda name: (len(name), name)):
            yield Place(file, f"data/{name}")
        return
    index = next((key for key in _EPISODE if key in stream), None)
    if index is None:
        yield Place(file, "/")
        return
    episodes = np.asarray(stream[index]).reshape(-1)
    cuts = np.flatnonzero(np.diff(episodes)) + 1
    starts = [0, *cuts.tolist()]
    if len(set(episodes[starts].tolist())) < len(starts):
        raise DataError(
            f"{file}: the rows of an episode are not together in {index!r}; sort them by episode"
        )
    for start, stop in zip(starts, [*cuts.tolist(), len(episodes)], strict=True):
        yield Place(file, "/", (start, stop))


def _ticks(group: Any, place: Place) -> tuple[dict[str, TickArray], int]:
    """Find the arrays of an episode that have one entry per tick."""
    arrays = dict(_walk(group, ""))
    by_length: dict[int, list[str]] = {}
    for key, array in arrays.items():
        by_length.setdefault(len(array), []).append(key)
    if not by_length:
        raise DataError(f"{place.file}: {place.group} holds no array; expected recorded ticks")
    # The actions say how long an episode is; other arrays may describe the file.
    acting = [len(a) for k, a in arrays.items() if k.rsplit("/", 1)[-1] in ("action", "actions")]
    length = acting[0] if acting else max(by_length, key=lambda n: len(by_length[n]))
    kept = {key: _tick_array(arrays[key]) for key in by_length.get(length, ())}
    return kept, length if place.rows is None else place.rows[1] - place.rows[0]


def _walk(group: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for count, name in enumerate(group):
        if count > _MOST:
            raise DataError(f"{group.name} has more than {_MOST} members; this is no recording")
        node, key = group[name], f"{prefix}{name}"
        if hasattr(node, "keys"):
            # Observations after each step repeat those before the next one.
            if name != "next_obs":
                yield from _walk(node, f"{key}/")
        elif node.shape:
            yield key, node


def _tick_array(array: Any) -> TickArray:
    shape, dtype = tuple(array.shape[1:]), array.dtype
    name = array.name.lower()
    variable = dtype.kind == "O"
    # ALOHA pads JPEG files to rows of equal length.
    padded = dtype == np.uint8 and len(shape) == 1 and shape[0] > 256 and "image" in name
    return TickArray(shape, dtype, encoded=bool((variable and "image" in name) or padded))


def _is_picture(array: TickArray) -> bool:
    if array.dtype == np.uint8:
        sizes = sorted(array.shape)
        return len(sizes) == 3 and sizes[0] in (1, 3, 4) and sizes[1] >= _PIXELS
    return array.dtype.kind in "uf" and len(array.shape) >= 2 and min(array.shape[:2]) >= _PIXELS


def _picture(cell: Any, where: str) -> NDArray[np.uint8]:
    if np.ndim(cell) <= 1:
        return decode_picture(bytes(np.asarray(cell, np.uint8)), where)
    return as_rgb(np.asarray(cell), where)


def _rows(array: Any, place: Place) -> Any:
    return array[()] if place.rows is None else array[place.rows[0] : place.rows[1]]


def _attributes(stream: Any) -> Mapping[str, Any]:
    """Read robomimic's description of the environment."""
    for node in (stream.get("data"), stream):
        text = None if node is None else node.attrs.get("env_args")
        if text is not None:
            try:
                args = json.loads(text)
            except ValueError:
                return {}
            return args if isinstance(args, dict) else {}
    return {}


def _declared_rate(stream: Any) -> float | None:
    for node in (stream, stream.get("data")):
        for key in ("fps", "hz", "control_freq"):
            if node is not None and key in node.attrs:
                return float(node.attrs[key])
    rate = (_attributes(stream).get("env_kwargs") or {}).get("control_freq")
    return float(rate) if isinstance(rate, (int, float)) and rate > 0 else None


def _declared_robot(stream: Any) -> str:
    robots: Any = (_attributes(stream).get("env_kwargs") or {}).get("robots", "")
    return (
        ", ".join(map(str, robots))
        if isinstance(robots, Sequence) and not isinstance(robots, str)
        else str(robots)
    )


def _detect(path: Path) -> bool:
    if path.is_file():
        return path.suffix in SUFFIXES
    return path.is_dir() and bool(_files(path))


def _open(path: Path, features: FeatureMap) -> RawDataset:
    return RawDataset(Hdf5Recording(path), features)


FORMAT = DatasetFormat("an HDF5 file (.hdf5, .h5) or a folder of them", _detect, _open, aligns=True)
