"""Reading of plain videos beside CSV tables: `NAME.mp4` with `NAME.csv`, one row per frame.

Several cameras are folders: `front/NAME.mp4`, `wrist/NAME.mp4`, `NAME.csv`. Columns `action.v` and
`action.w` are the action (v, w), `state.x` and `state.y` the state; others stay columns.

Shapes: T ticks of an episode.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetsight.datasets.dataset import CameraFeature, DatasetFormat, FeatureMap
from jetsight.datasets.features import RecordedFeature
from jetsight.datasets.formats.episodes import RawDataset, RawRecording
from jetsight.datasets.video import VideoIndex
from jetsight.errors import DataError

VIDEOS = (".mp4", ".mkv", ".mov", ".avi", ".webm")
_TABLE = ".csv"
_CAMERA = "camera"  # of videos directly in the folder
_STAMPS = ("timestamp", "timestamp_s", "time_s", "time", "t")
_GROUPS = ("action", "observation.state", "state")


@dataclass(frozen=True)
class Table:
    """Columns of one CSV file: names, and values as text `[T][columns]`."""

    path: Path
    names: list[str]
    rows: list[list[str]]

    @classmethod
    def read(cls, path: Path) -> Table:
        """Read a file whose first line has the names of the columns.

        Raises:
            DataError: it cannot be read, has no header, or lines of another length.
        """
        try:
            with path.open(encoding="utf-8-sig", newline="") as stream:
                lines = [line for line in csv.reader(stream) if line]
        except (OSError, UnicodeDecodeError, csv.Error) as problem:
            raise DataError(f"cannot read {path} ({problem}); expected a CSV table") from problem
        names = [name.strip() for name in lines[0]] if lines else []
        if not names or len(set(names)) < len(names) or all(map(_is_number, names)):
            raise DataError(
                f"{path} has no line of distinct column names at its top; expected for example "
                "timestamp,action.v,action.w"
            )
        for number, line in enumerate(lines[1:], 2):
            if len(line) != len(names):
                raise DataError(
                    f"{path}:{number} has {len(line)} values, expected {len(names)} as in the "
                    "first line; correct it"
                )
        return cls(path, names, lines[1:])

    def column(self, name: str) -> NDArray[np.float64]:
        """Read a column as numbers.

        Raises:
            DataError: a value is no number.
        """
        place = self.names.index(name)
        values = np.empty(len(self.rows))
        for number, line in enumerate(self.rows):
            if not _is_number(line[place]):
                raise DataError(
                    f"{self.path}:{number + 2} has {line[place]!r} in column {name!r}, expected a "
                    "number; correct it"
                )
            values[number] = float(line[place])
        return values


class VideoTables(RawRecording):
    """Videos with the tables beside them; each table is an episode.

    Args:
        folder: of the tables and the videos.

    Raises:
        DataError: a table has no video, another number of rows than frames, or other columns.
    """

    format = "video+csv"

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self._tables = [Table.read(path) for path in sorted(folder.glob(f"*{_TABLE}"))]
        self._videos = [_videos(folder, table.path) for table in self._tables]
        first = self._tables[0]
        for table, videos in zip(self._tables, self._videos, strict=True):
            if table.names != first.names or videos.keys() != self._videos[0].keys():
                raise DataError(
                    f"{table.path} has columns {table.names} and cameras {sorted(videos)}, but "
                    f"{first.path.name} has {first.names} and {sorted(self._videos[0])}; make all "
                    "episodes alike"
                )
            for index in videos.values():
                _check_length(table, index)
        self._times = next((name for name in _STAMPS if name in first.names), None)
        self._groups = _groups([name for name in first.names if name != self._times])
        self.lengths = [len(table.rows) for table in self._tables]
        self.features = _features(self._groups, first)
        self.cameras = [_camera(key, index) for key, index in self._videos[0].items()]
        rates = {index.rate_hz for videos in self._videos for index in videos.values()}
        steady = {round(rate, 2) for rate in rates if rate}
        self.fps = steady.pop() if self._times is None and len(steady) == 1 else None

    def values(self, episode: int, key: str) -> NDArray[Any]:
        """Read a column, or the columns of a group."""
        table = self._tables[episode]
        return np.stack([table.column(name) for name in self._groups.get(key, [key])], axis=1)

    def pictures(self, episode: int, key: str) -> Iterator[NDArray[np.uint8]]:
        """Decode the video of a camera."""
        return self._videos[episode][key].frames(0, self.lengths[episode])

    def stamps_s(self, episode: int) -> NDArray[np.float64] | None:
        """Read the stamps of the table, else those of the video."""
        if self._times is not None:
            return self._tables[episode].column(self._times)
        return next(iter(self._videos[episode].values())).times_s

    def files(self) -> Iterable[Path]:
        """List tables and videos."""
        for table, videos in zip(self._tables, self._videos, strict=True):
            yield from [table.path, *(index.path for index in videos.values())]


def _videos(folder: Path, table: Path) -> dict[str, VideoIndex]:
    """Find the videos of an episode, by camera."""
    found = {}
    for place in [folder, *sorted(each for each in folder.iterdir() if each.is_dir())]:
        for suffix in VIDEOS:
            file = place / f"{table.stem}{suffix}"
            if file.is_file():
                found[_CAMERA if place == folder else place.name] = VideoIndex.read(file)
    if not found:
        raise DataError(
            f"{table} has no video beside it; expected {table.stem}.mp4 in {folder}, or one in a "
            "folder per camera"
        )
    return found


def _check_length(table: Table, index: VideoIndex) -> None:
    if len(table.rows) != len(index):
        raise DataError(
            f"{table.path} has {len(table.rows)} rows, but {index.path} has {len(index)} frames; "
            "expected one row per frame: cut one of them"
        )


def _groups(names: Sequence[str]) -> dict[str, list[str]]:
    """Group columns such as `action.v` and `action.w`."""
    groups: dict[str, list[str]] = {}
    for name in names:
        for group in _GROUPS:
            if name.startswith((f"{group}.", f"{group}/", f"{group}_")):
                groups.setdefault(group, []).append(name)
                break
    return groups


def _features(groups: dict[str, list[str]], table: Table) -> list[RecordedFeature]:
    grouped = [
        RecordedFeature(group, (len(names),), tuple(name[len(group) + 1 :] for name in names))
        for group, names in groups.items()
    ]
    taken = {name for names in groups.values() for name in names}
    # A column of words describes, it is no feature.
    numeric = [
        n for i, n in enumerate(table.names) if not table.rows or _is_number(table.rows[0][i])
    ]
    return grouped + [
        RecordedFeature(name, (), (name,), listed=name not in taken)
        for name in numeric
        if name not in _STAMPS
    ]


def _camera(key: str, index: VideoIndex) -> CameraFeature:
    height, width = next(index.frames(0, 1)).shape[:2]
    return CameraFeature(key, height, width)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _detect(path: Path) -> bool:
    return path.is_dir() and any(path.glob(f"*{_TABLE}")) and _has_video(path)


def _has_video(folder: Path) -> bool:
    places = [folder, *(each for each in folder.iterdir() if each.is_dir())]
    return any(file.suffix in VIDEOS for place in places for file in place.iterdir())


def _open(path: Path, features: FeatureMap) -> RawDataset:
    return RawDataset(VideoTables(path), features)


FORMAT = DatasetFormat(
    "a folder of videos with CSV tables of the same names", _detect, _open, aligns=True
)
