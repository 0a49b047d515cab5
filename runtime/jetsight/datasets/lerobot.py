"""Reading of LeRobot v3 datasets: parquet rows, mp4 or embedded pictures, `meta/`.

PyAV and PyArrow (extra `camera`) are imported on first use.

Shapes: T ticks of an episode, h, w frame size, s state size, a action size of one tick.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetsight.datasets import lerobot_meta, lerobot_video
from jetsight.datasets.dataset import CameraFeature, FeatureMap, RecordedDataset, Rows
from jetsight.datasets.lerobot_meta import ACTION_KEY
from jetsight.errors import DataError, did_you_mean

STATE_KEY = "observation.state"
_RECORDED = ("meta", "data", "videos", "images")  # folders that `digest` covers


class LeRobotDataset(RecordedDataset):
    """A LeRobot v3 dataset opened for reading; make one with `LeRobotDataset.open`.

    Attributes:
        camera_key: first of `camera_keys`.
    """

    def __init__(self, path: Path, info: lerobot_meta.Info, camera: str | None) -> None:
        features = info.features
        self._info = info
        self.path = path
        self.format = "lerobot-v3"
        self.robot = str(info.robot_type or "")
        self.fps = float(info.fps)
        self.camera_key = lerobot_meta.choose_camera(features, camera, path)
        self.camera_keys = (self.camera_key,)
        picture = features[self.camera_key]
        self.height, self.width = lerobot_meta.frame_size(self.camera_key, picture, path)
        self.cameras = (CameraFeature(self.camera_key, self.height, self.width),)
        self.action_names = lerobot_meta.dimension_names(ACTION_KEY, features, path)
        self.state_names = lerobot_meta.dimension_names(STATE_KEY, features, path)
        self._places = lerobot_meta.places(
            path, info, self.camera_key, video=picture["dtype"] == "video"
        )
        self.episode_lengths = [place.length for place in self._places]

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        camera: str | None = None,
        features: FeatureMap | None = None,
    ) -> LeRobotDataset:
        """Open the dataset in folder `path`.

        Args:
            path: folder with `meta/info.json`.
            camera: feature to read pictures from; needed only where there are several.
            features: which features are actions, states and frames, where that is not clear.

        Raises:
            DataError: a file of `meta/` is missing or unreadable, or the version is unknown.
            UsageError: there is no such camera, or there are several and none was named.
            MissingDependency: PyArrow is not installed.

        Example:
            >>> data = LeRobotDataset.open("calib_data/pusht")
            >>> data.episode(0).frames.shape
            (200, 96, 96, 3)
        """
        folder = Path(path)
        if camera is None and features is not None and features.cameras:
            camera = features.cameras[0]
        return cls(folder, lerobot_meta.read_info(folder), camera)

    def frames(self, index: int) -> Iterator[NDArray[np.uint8]]:
        """Decode the frames of episode `index`; needs PyAV."""
        place = self._place(index)
        if place.video_file is None:
            cells = self._columns(index, [self.camera_key])[self.camera_key].to_pylist()
            return lerobot_video.embedded(cells, place.data_file, self.height, self.width)
        clip = lerobot_video.Clip(
            place.video_file, place.start_s, place.length, self.fps, self.height, self.width
        )
        return clip.frames()

    def rows(self, index: int) -> Rows:
        """Read the rows of episode `index`; needs PyArrow."""
        file = self._place(index).data_file
        sizes = {ACTION_KEY: len(self.action_names), STATE_KEY: len(self.state_names)}
        table = self._columns(index, ["timestamp", *(key for key in sizes if sizes[key])])
        actions, states = (
            _matrix(table[key], size, key, file)
            if size
            else np.zeros((table.num_rows, 0), dtype=np.float32)
            for key, size in sizes.items()
        )
        stamps = _matrix(table["timestamp"], 1, "timestamp", file)[:, 0]
        return Rows(actions, states, stamps.astype(np.float64))

    def columns(self, index: int, names: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Read state columns, or others of one number per tick, of episode `index`."""
        singles = lerobot_meta.single_columns(self._info.features)
        for name in names:
            if name not in self.state_names and name not in singles:
                hint = did_you_mean(name, [*self.state_names, *singles], "it has")
                raise DataError(f"{self.path}: no column {name!r} of one number per tick; {hint}")
        states = self.rows(index).states
        found = {n: states[:, i] for i, n in enumerate(self.state_names) if n in names}
        others = [name for name in names if name not in found]
        table = self._columns(index, others)
        file = self._places[index].data_file
        return found | {name: _matrix(table[name], 1, name, file)[:, 0] for name in others}

    def digest(self) -> str:
        """Compute the SHA-256 over every recorded file."""
        total = hashlib.sha256()
        files = [file for top in _RECORDED for file in (self.path / top).rglob("*")]
        # In the order of names, because folders list their files in any order.
        for name in sorted(f.relative_to(self.path).as_posix() for f in files if f.is_file()):
            size, content = _file_digest(self.path / name)
            # The size and NUL bytes keep names and contents of neighbouring files apart.
            total.update(f"{name}\0{size}\0{content}\n".encode())
        return total.hexdigest()

    def _place(self, index: int) -> lerobot_meta.EpisodeLocation:
        self.check_index(index)
        return self._places[index]

    def _columns(self, index: int, wanted: list[str]) -> Any:
        """Read the rows of one episode, as a PyArrow table with the `wanted` columns."""
        place = self._place(index)
        keys = ["episode_index", "frame_index", *wanted]
        # A v3 file holds many episodes, so only row groups that may hold this one are read.
        table = lerobot_meta.read_parquet(place.data_file, keys, index)
        table = table.take(np.flatnonzero(table["episode_index"].to_numpy() == index))
        # A missing or repeated row would shift actions against frames without any other sign.
        order = table["frame_index"].to_numpy()
        if not np.array_equal(order, np.arange(place.length)):
            raise DataError(
                f"{place.data_file} has {len(order)} rows of episode {index}, expected frames "
                f"0..{place.length - 1} in order; record it or copy the dataset again"
            )
        return table


def _matrix(column: Any, size: int, key: str, file: Path) -> NDArray[np.float32]:
    """Convert a numeric column to float32 [T,size]; LeRobot keeps size 1 as scalars."""
    # One piece: `flatten` of a chunked column takes structs apart, not lists.
    column = column.combine_chunks()
    flat = column.flatten() if hasattr(column, "flatten") and column.type.num_fields else column
    try:
        values = np.asarray(flat.to_numpy(zero_copy_only=False), dtype=np.float32)
    except (TypeError, ValueError):
        # Reported below, with the sizes.
        values = np.zeros(0, dtype=np.float32)
    if values.size != len(column) * size or not np.isfinite(values).all():
        raise DataError(
            f"{file} has gaps, infinities or the wrong size in column {key!r}, expected "
            f"{size} numbers per row; record it or copy the dataset again"
        )
    return values.reshape(-1, size)


def _file_digest(path: Path) -> tuple[int, str]:
    content, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as stream:
            # Piece by piece: a video may be larger than memory.
            while block := stream.read(1 << 20):
                content.update(block)
                size += len(block)
    except OSError as problem:
        raise DataError(f"cannot read {path} ({problem.strerror}); check the disk") from problem
    return size, content.hexdigest()
