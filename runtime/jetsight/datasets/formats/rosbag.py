"""Reading of ROS 1 and ROS 2 bags and MCAP files: one bag is one episode.

Topics have no common ticks, so the frames of a camera are the ticks: every number is the one in
force when a frame was taken, and of further cameras the frame nearest in time is used.

Shapes: T ticks of an episode, M messages of a topic.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetsight.datasets.dataset import CameraFeature, DatasetFormat, FeatureMap
from jetsight.datasets.features import RecordedFeature
from jetsight.datasets.formats.episodes import RawDataset, RawRecording
from jetsight.datasets.formats.ros_messages import (
    IMAGES,
    BagMessage,
    is_depth,
    numbers,
    picture,
    read_messages,
)
from jetsight.datasets.formats.stamps import in_force
from jetsight.errors import DataError

_FILES = (".bag", ".mcap")
_METADATA = "metadata.yaml"  # of a ROS 2 bag
_FARTHEST = 0.5  # periods between frames of two cameras that count as one observation


class TopicTable:
    """Numbers of one topic: `[M, n]` and their times."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.stamps_ns: list[int] = []
        self.rows: list[list[float]] = []

    def arrays(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return times in s and values, in order of time."""
        stamps, rows = np.array(self.stamps_ns) / 1e9, np.array(self.rows, np.float64)
        order = np.argsort(stamps, kind="stable")
        return stamps[order], rows[order]


class Bag:
    """Everything of one bag but the pixels.

    Args:
        path: of the bag.

    Raises:
        DataError: it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tables: dict[str, TopicTable] = {}
        self.frames: dict[str, list[int]] = {}  # times in ns
        self.first: dict[str, BagMessage] = {}  # picture of each camera
        self.skipped: Counter[str] = Counter()
        for message in read_messages(path):
            self._take(message)
        self.frames = {topic: sorted(stamps) for topic, stamps in self.frames.items()}

    def _take(self, message: BagMessage) -> None:
        topic = message.topic
        if message.kind in IMAGES:
            self.frames.setdefault(topic, []).append(message.stamp_ns)
            self.first.setdefault(topic, message)
            return
        names, values = numbers(message.content)
        table = self.tables.setdefault(topic, TopicTable(names))
        # A message of another layout than the first one has no place in the table.
        if not names or tuple(names) != table.names:
            self.skipped[topic] += 1
            return
        table.stamps_ns.append(message.stamp_ns)
        table.rows.append(values)


class RosRecording(RawRecording):
    """Bags with equal topics; one is one episode.

    Args:
        path: a bag, or a folder of bags.

    Raises:
        DataError: a bag is damaged, or has no camera.
    """

    format = "rosbag"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._bags = [Bag(bag) for bag in _bags(path)]
        first = self._bags[0]
        self.cameras = [_camera(topic, message) for topic, message in sorted(first.first.items())]
        self.features = [
            feature
            for topic, table in sorted(first.tables.items())
            for feature in _features(topic, table)
        ]
        self._ticks: list[NDArray[np.float64]] = []
        self.notes = [
            f"{bag.path.name}: {count} messages of {topic} have another layout and are left out"
            for bag in self._bags
            for topic, count in bag.skipped.items()
            if bag.tables[topic].names
        ]

    def use(self, keys: Sequence[str], cameras: Sequence[str]) -> None:
        """Take the frames of the slowest chosen camera as ticks, from the first complete one on."""
        topics = {_topic(key) for key in keys}
        self._ticks = [self._ticks_of(bag, topics, cameras) for bag in self._bags]
        self.lengths = [len(ticks) for ticks in self._ticks]

    def values(self, episode: int, key: str) -> NDArray[Any]:
        """Take the value in force at each tick."""
        topic, _, name = key.partition(":")
        table = self._table(episode, topic)
        stamps, rows = table.arrays()
        held = rows[np.maximum(in_force(self._ticks[episode], stamps), 0)]
        return held[:, table.names.index(name)] if name else held

    def pictures(self, episode: int, key: str) -> Iterator[NDArray[np.uint8]]:
        """Decode the frame nearest to each tick."""
        bag, ticks = self._bags[episode], self._ticks[episode]
        wanted = iter(_nearest(np.array(bag.frames[key]) / 1e9, ticks))
        due = next(wanted, None)
        # Read in order of logging; a frame with an earlier stamp than the one before is rare.
        messages = sorted(_stamps(bag.path, key))
        order = {place: number for number, (_, place) in enumerate(messages)}
        for place, message in enumerate(read_messages(bag.path, [key])):
            while due is not None and order[place] == due:
                yield picture(message)
                due = next(wanted, None)

    def stamps_s(self, episode: int) -> NDArray[np.float64] | None:
        """Return the times of the ticks."""
        return self._ticks[episode]

    def files(self) -> Iterable[Path]:
        """List the files of all bags."""
        for bag in self._bags:
            yield from (
                [bag.path] if bag.path.is_file() else filter(Path.is_file, bag.path.iterdir())
            )

    def _table(self, episode: int, topic: str) -> TopicTable:
        bag = self._bags[episode]
        table = bag.tables.get(topic)
        if table is None or not table.rows:
            raise DataError(
                f"{bag.path} has no message of {topic}, which the first bag has; record it again, "
                "or leave that bag out"
            )
        return table

    def _ticks_of(
        self, bag: Bag, topics: Iterable[str], cameras: Sequence[str]
    ) -> NDArray[np.float64]:
        chosen = list(cameras) or [c.key for c in self.cameras if c.kind == "colour"]
        missing = [camera for camera in chosen if camera not in bag.frames]
        if missing or not chosen:
            raise DataError(
                f"{bag.path} has no pictures on {', '.join(missing) or 'any topic'}; record a "
                "camera topic with it"
            )
        stamps = {camera: np.array(bag.frames[camera]) / 1e9 for camera in chosen}
        slowest = min(chosen, key=lambda camera: len(stamps[camera]))
        ticks = stamps[slowest]
        begin = [self._table(self._bags.index(bag), topic).arrays()[0][0] for topic in topics]
        ticks = ticks[ticks >= max([*begin, *(each[0] for each in stamps.values())], default=0.0)]
        if len(ticks) < 2:
            raise DataError(
                f"{bag.path}: no frame was taken after the first message of "
                f"{', '.join(sorted(topics)) or 'the cameras'}; record them together"
            )
        period = float(np.median(np.diff(ticks)))
        for camera in set(chosen) - {slowest}:
            near = stamps[camera][_nearest(stamps[camera], ticks)]
            if (np.abs(near - ticks) > _FARTHEST * period).mean() > 0.05:
                raise DataError(
                    f"{bag.path}: frames of {camera} and {slowest} are apart by more than half a "
                    "period; choose one of them with --camera"
                )
        return ticks


def _nearest(stamps_s: NDArray[np.float64], ticks_s: NDArray[np.float64]) -> NDArray[np.int64]:
    """Find the frame nearest to each tick."""
    after = np.clip(np.searchsorted(stamps_s, ticks_s), 0, len(stamps_s) - 1)
    before = np.maximum(after - 1, 0)
    closer = np.abs(stamps_s[before] - ticks_s) <= np.abs(stamps_s[after] - ticks_s)
    return np.where(closer, before, after)


def _stamps(bag: Path, topic: str) -> list[tuple[int, int]]:
    """List time and place of the pictures of a topic, in the order of logging."""
    return [(m.stamp_ns, place) for place, m in enumerate(read_messages(bag, [topic]))]


def _camera(topic: str, message: BagMessage) -> CameraFeature:
    if is_depth(message):
        height, width = (int(getattr(message.content, side, 1)) for side in ("height", "width"))
        return CameraFeature(topic, height, width, "depth")
    height, width = picture(message).shape[:2]
    return CameraFeature(topic, height, width)


def _features(topic: str, table: TopicTable) -> Iterator[RecordedFeature]:
    """Describe a topic as one vector, and each of its numbers for a choice by hand."""
    if not table.rows:
        return
    yield RecordedFeature(topic, (len(table.names),), table.names)
    for name in table.names:
        # Not listed: only an option of the user takes a topic apart.
        yield RecordedFeature(f"{topic}:{name}", (), (name,), listed=False)


def _topic(key: str) -> str:
    return key.partition(":")[0]


def _is_bag(path: Path) -> bool:
    return path.suffix in _FILES if path.is_file() else (path / _METADATA).is_file()


def _bags(path: Path) -> list[Path]:
    return [path] if _is_bag(path) else sorted(each for each in path.iterdir() if _is_bag(each))


def _detect(path: Path) -> bool:
    return _is_bag(path) or (path.is_dir() and any(_is_bag(each) for each in path.iterdir()))


def _open(path: Path, features: FeatureMap) -> RawDataset:
    return RawDataset(RosRecording(path), features)


FORMAT = DatasetFormat("a ROS bag or .mcap file, or a folder of them", _detect, _open, aligns=True)
