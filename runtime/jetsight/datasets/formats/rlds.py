"""Reading of RLDS datasets (TensorFlow Datasets, tfrecord files), as Open X-Embodiment has them.

RLDS: arXiv 2111.02767. `features.json` describes the steps; a record is one episode. TensorFlow is
not needed.

Shapes: T ticks of an episode.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetsight.datasets.dataset import CameraFeature, DatasetFormat, FeatureMap
from jetsight.datasets.features import RecordedFeature
from jetsight.datasets.formats.episodes import RawDataset, RawRecording
from jetsight.datasets.formats.images import as_rgb
from jetsight.datasets.formats.tfrecord import Feature, parse_example, read_records
from jetsight.datasets.pictures import decode_picture
from jetsight.errors import DataError

_FEATURES, _INFO = "features.json", "dataset_info.json"
_STEPS = "steps/"  # prefix of the features of a step in a record
_SHARD = re.compile(r"(?P<name>.+)-(?P<split>[^-]+)\.tfrecord-(?P<at>\d+)-of-(?P<of>\d+)")
_DEPTH = re.compile(r"(^|[^a-z])depth([^a-z]|$)")


@dataclass(frozen=True)
class StepFeature:
    """A feature of the steps: key, shape of one tick, number format; a picture or not."""

    key: str
    shape: tuple[int, ...]
    dtype: str
    picture: bool


class RldsDataset(RawRecording):
    """Episodes of one split of an RLDS dataset.

    Args:
        folder: has `features.json` and the tfrecord files.

    Raises:
        DataError: a file is missing or damaged, or it holds no steps.
    """

    format = "rlds"

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self._steps = {feature.key: feature for feature in _steps(folder / _FEATURES)}
        self._shards, self.notes = _shards(folder)
        self._places: list[tuple[Path, int]] = []
        self.lengths = []
        for shard in self._shards:
            for number, record in enumerate(read_records(shard)):
                self._places.append((shard, number))
                self.lengths.append(self._length(parse_example(record, shard), shard))
        self._kept: tuple[int, Mapping[str, Feature]] | None = None
        self.features = [
            RecordedFeature(f.key, f.shape, numeric=f.dtype not in ("string", "object"))
            for f in self._steps.values()
            if not f.picture
        ]
        self.cameras = [
            CameraFeature(f.key, f.shape[0], f.shape[1], "depth" if _is_depth(f) else "colour")
            for f in self._steps.values()
            if f.picture
        ]
        self.robot = _robot(folder / _INFO)

    def values(self, episode: int, key: str) -> NDArray[Any]:
        """Read a feature of the steps."""
        stored = self._example(episode)[_STEPS + key]
        if isinstance(stored, list):
            raise DataError(f"{self.path}: {key!r} holds text or bytes, expected numbers")
        return stored.reshape(self.lengths[episode], *self._steps[key].shape)

    def pictures(self, episode: int, key: str) -> Iterator[NDArray[np.uint8]]:
        """Decode the images of a camera."""
        stored, where = self._example(episode)[_STEPS + key], f"{self.path}: {key!r}"
        if isinstance(stored, list):
            for tick, data in enumerate(stored):
                yield decode_picture(data, f"{where}, episode {episode}, tick {tick},")
            return
        for pixels in stored.astype(np.uint8).reshape(-1, *self._steps[key].shape):
            yield as_rgb(pixels, where)

    def stamps_s(self, episode: int) -> NDArray[np.float64] | None:
        """Return None: RLDS has no stamps."""
        return None

    def files(self) -> Iterable[Path]:
        """List the description and the records."""
        return [self.path / _FEATURES, *self._shards]

    def _example(self, episode: int) -> Mapping[str, Feature]:
        """Read an episode; the newest one is kept, since its features are read in turn."""
        if self._kept is None or self._kept[0] != episode:
            shard, number = self._places[episode]
            for index, record in enumerate(read_records(shard)):
                if index == number:
                    self._kept = episode, parse_example(record, shard)
                    break
            else:
                raise DataError(f"{shard} has lost its record {number}; copy the dataset again")
        return self._kept[1]

    def _length(self, example: Mapping[str, Feature], shard: Path) -> int:
        """Compute the ticks of an episode; all its features must agree."""
        lengths = {}
        for key, feature in self._steps.items():
            stored = example.get(_STEPS + key)
            if stored is None:
                raise DataError(
                    f"{shard} has an episode without {key!r}, which {_FEATURES} lists; copy the "
                    "dataset again"
                )
            per_tick = 1 if isinstance(stored, list) else int(np.prod(feature.shape))
            lengths[key] = len(stored) / max(per_tick, 1)
        if len(set(lengths.values())) != 1 or not all(n.is_integer() for n in lengths.values()):
            raise DataError(
                f"{shard} has an episode whose features differ in length: {lengths}; copy the "
                "dataset again"
            )
        return int(next(iter(lengths.values())))


def _steps(path: Path) -> list[StepFeature]:
    """Read the features of a step from `features.json`."""
    try:
        steps = _json(path)["featuresDict"]["features"]["steps"]["sequence"]["feature"]
        return list(_flat(steps, ""))
    except (KeyError, TypeError, ValueError) as problem:
        raise DataError(
            f"{path} describes no steps ({problem}); expected an RLDS dataset, whose records are "
            "episodes"
        ) from problem


def _flat(node: Mapping[str, Any], key: str) -> Iterator[StepFeature]:
    if "featuresDict" in node:
        for name, inner in node["featuresDict"]["features"].items():
            yield from _flat(inner, f"{key}/{name}" if key else name)
        return
    if "image" in node:
        yield StepFeature(key, _shape(node["image"]), node["image"].get("dtype", "uint8"), True)
    elif "tensor" in node:
        tensor = node["tensor"]
        shape, dtype = _shape(tensor), str(tensor.get("dtype"))
        yield StepFeature(key, shape, dtype, dtype == "uint8" and _like_picture(shape))
    else:
        yield StepFeature(key, (), "string", False)


def _shape(node: Mapping[str, Any]) -> tuple[int, ...]:
    sizes = tuple(int(size) for size in (node.get("shape") or {}).get("dimensions", ()))
    if any(size < 1 for size in sizes):
        raise ValueError(f"a feature has the open shape {sizes}")
    return sizes


def _like_picture(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[2] in (1, 3, 4) and min(shape[:2]) >= 16


def _is_depth(feature: StepFeature) -> bool:
    single = len(feature.shape) == 3 and feature.shape[2] == 1
    return bool(_DEPTH.search(feature.key.lower())) or (single and feature.dtype != "uint8")


def _shards(folder: Path) -> tuple[list[Path], list[str]]:
    """Find the files of the split to read: `train`, or the only one."""
    found = {
        file: match for file in sorted(folder.iterdir()) if (match := _SHARD.fullmatch(file.name))
    }
    splits = sorted({match["split"] for match in found.values()})
    if not found:
        raise DataError(f"{folder} has no *.tfrecord-00000-of-00001 file; copy the dataset again")
    split = "train" if "train" in splits else splits[0]
    shards = [file for file, match in found.items() if match["split"] == split]
    total = int(found[shards[0]]["of"])
    notes = [
        f"split {split!r} is read; there is {other!r} too" for other in splits if other != split
    ]
    if len(shards) < total:
        notes.append(f"{total - len(shards)} of {total} files of split {split!r} are missing here")
    return shards, notes


def _json(path: Path) -> dict[str, Any]:
    """Read a description; foreign ones may hold any text, so that of bundles is too strict here."""
    try:
        tree = json.loads(path.read_bytes())
    except (OSError, ValueError) as problem:
        raise DataError(f"cannot read {path} ({problem}); copy the dataset again") from problem
    if not isinstance(tree, dict):
        raise DataError(f"{path} holds no JSON object; copy the dataset again")
    return tree


def _robot(path: Path) -> str:
    if not path.is_file():
        return ""
    return str(_json(path).get("name") or "")


def _detect(path: Path) -> bool:
    return (path / _FEATURES).is_file() and any(path.glob("*.tfrecord*"))


def _open(path: Path, features: FeatureMap) -> RawDataset:
    return RawDataset(RldsDataset(path), features)


FORMAT = DatasetFormat("an RLDS dataset (features.json, *.tfrecord-*)", _detect, _open, aligns=True)
