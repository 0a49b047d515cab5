"""Reading of donkeycar tubs (version 2): catalogs of JSON lines beside a folder of JPEG files.

A tub is one drive; a deleted record, or a new session, ends an episode. Format:
https://docs.donkeycar.com/parts/stores/.

Shapes: T ticks of an episode.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetsight.datasets.dataset import CameraFeature, DatasetFormat, FeatureMap
from jetsight.datasets.features import RecordedFeature
from jetsight.datasets.formats.episodes import RawDataset, RawRecording
from jetsight.datasets.formats.images import read_image
from jetsight.errors import DataError

_MANIFEST = "manifest.json"
_ACTION = "user"  # angle and throttle of the driver
_NUMBERS = ("float", "int", "boolean", "nparray")
_DRIVEN = ("user/angle", "user/throttle")
Record = Mapping[str, Any]


class DonkeycarTub(RawRecording):
    """The records of a tub, in the order in which they were driven.

    Args:
        folder: has `manifest.json`, `catalog_*.catalog` and `images/`.

    Raises:
        DataError: the manifest or a catalog is missing or damaged.
    """

    format = "donkeycar"
    robot = "donkeycar"

    def __init__(self, folder: Path) -> None:
        self.path = folder
        inputs, types, state = self._manifest()
        records = list(self._records(state.get("paths") or []))
        self._episodes = _episodes(records, set(state.get("deleted_indexes") or []))
        if not self._episodes:
            raise DataError(f"{folder} holds no record that is not deleted; copy the tub again")
        self.lengths = [len(episode) for episode in self._episodes]
        kinds = dict(zip(inputs, types, strict=True))
        self.features = _features(kinds)
        self.cameras = [self._camera(key) for key, kind in kinds.items() if "image" in kind]
        kept = sum(self.lengths)
        if kept < len(records):
            self.notes = [f"{len(records) - kept} of {len(records)} records are marked deleted"]

    def values(self, episode: int, key: str) -> NDArray[Any]:
        """Read a column, or the driver's angle and throttle as the action."""
        keys = _DRIVEN if key == _ACTION else (key,)
        rows = self._episodes[episode]
        try:
            return np.array([[float(row[name]) for name in keys] for row in rows])
        except (KeyError, TypeError, ValueError) as problem:
            raise DataError(
                f"{self.path}: episode {episode} has a record without a number in {keys}; "
                "delete that record with donkeycar's tub manager"
            ) from problem

    def pictures(self, episode: int, key: str) -> Iterator[NDArray[np.uint8]]:
        """Decode the JPEG of each record."""
        for row in self._episodes[episode]:
            yield read_image(self._image(row, key))

    def stamps_s(self, episode: int) -> NDArray[np.float64] | None:
        """Read the stamps, written in ms when a record was stored."""
        stamps = [row.get("_timestamp_ms") for row in self._episodes[episode]]
        if any(type(stamp) not in (int, float) for stamp in stamps):
            return None
        return np.array(stamps, np.float64) / 1000

    def files(self) -> Iterable[Path]:
        """List manifest, catalogs and images."""
        tops = (self.path / _MANIFEST, *self.path.glob("catalog_*.catalog"))
        return [*tops, *(self.path / "images").glob("*")]

    def _manifest(self) -> tuple[list[str], list[str], Record]:
        path = self.path / _MANIFEST
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
            # Names, types, metadata, times, and the state of the catalogs, one JSON value a line.
            inputs, types, state = (json.loads(lines[i]) for i in (0, 1, 4))
            if not len(inputs) == len(types) or not isinstance(state, dict):
                raise ValueError("names and types differ in number")
        except (OSError, ValueError, IndexError, TypeError) as problem:
            raise DataError(
                f"cannot read {path} ({problem}); expected the manifest of a donkeycar tub of "
                "version 2, so convert an older tub with donkeycar's convert_to_tub_v2.py"
            ) from problem
        return inputs, types, state

    def _records(self, names: Iterable[str]) -> Iterator[Record]:
        for name in names:
            path = self.path / Path(name).name
            try:
                lines = path.read_bytes().splitlines()
            except OSError as problem:
                raise DataError(
                    f"cannot read {path} ({problem.strerror}); copy the tub again"
                ) from problem
            for number, line in enumerate(lines, 1):
                yield _record(line, f"{path}:{number}")

    def _image(self, row: Record, key: str) -> Path:
        # The name alone: a catalog must not point outside the tub.
        return self.path / "images" / Path(str(row.get(key))).name

    def _camera(self, key: str) -> CameraFeature:
        height, width = read_image(self._image(self._episodes[0][0], key)).shape[:2]
        return CameraFeature(key, height, width)


def _record(line: bytes, where: str) -> Record:
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise DataError(f"{where} is no JSON object; the tub is damaged, copy it again")
    return record


def _features(kinds: Mapping[str, str]) -> list[RecordedFeature]:
    numbers = [
        RecordedFeature(key, (), numeric=True) for key, kind in kinds.items() if kind in _NUMBERS
    ]
    if not set(_DRIVEN) <= kinds.keys():
        return numbers
    names = tuple(key.split("/")[1] for key in _DRIVEN)
    # What the driver did is the action, whichever columns the pilot added.
    return [RecordedFeature(_ACTION, (len(names),), names), *numbers]


def _episodes(records: Iterable[Record], deleted: set[int]) -> list[list[Record]]:
    """Cut the records where one was deleted, skipped, or a new session began."""
    episodes: list[list[Record]] = []
    before: tuple[int, Any] | None = None
    for row in records:
        index, session = row.get("_index"), row.get("_session_id")
        if type(index) is not int:
            raise DataError(f"a record has the index {index!r}, expected a number; copy the tub")
        if index in deleted:
            continue
        if before is None or before != (index - 1, session):
            episodes.append([])
        episodes[-1].append(row)
        before = (index, session)
    return episodes


def _detect(path: Path) -> bool:
    return (path / _MANIFEST).is_file() and any(path.glob("catalog_*.catalog"))


def _open(path: Path, features: FeatureMap) -> RawDataset:
    if features.action is None:
        features = FeatureMap(_ACTION, features.state, features.cameras, features.rate_hz)
    return RawDataset(DonkeycarTub(path), features)


FORMAT = DatasetFormat(
    "a donkeycar tub (manifest.json, catalog_*.catalog)", _detect, _open, aligns=True
)
