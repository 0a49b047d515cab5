"""Reading of LeRobot datasets: parquet rows, videos or embedded pictures, `meta/`.

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

from jetsight.datasets.dataset import DatasetFormat, FeatureMap, RecordedDataset, Rows
from jetsight.datasets.features import VectorChoice, choose_cameras, choose_vector
from jetsight.datasets.fit import rates_agree
from jetsight.datasets.labels import RecordingLabels
from jetsight.datasets.lerobot import clips, episodes
from jetsight.datasets.lerobot import info as lerobot_info
from jetsight.datasets.lerobot.episodes import EpisodeLocation
from jetsight.datasets.lerobot.files import FileFinder
from jetsight.datasets.lerobot.labels import read_labels
from jetsight.datasets.lerobot.parquet import check_finite, read_table, to_matrix, unlisted_columns
from jetsight.datasets.lerobot.stamps import check_stamps
from jetsight.datasets.names import ACTION_KEY, unnamed
from jetsight.datasets.picture import PictureReader
from jetsight.datasets.pictures import cell_bytes, decode_picture
from jetsight.datasets.video import AGAIN, VideoIndex
from jetsight.errors import DataError, UsageError, did_you_mean

_RECORDED = {"meta", "data", "videos", "images"}  # folders that `digest` covers
_TIME = "timestamp"


class LeRobotDataset(RecordedDataset):
    """A LeRobot dataset opened for reading; make one with `LeRobotDataset.open`.

    Episodes are counted from 0 in the order of their own numbers, those without files left out.
    """

    def __init__(self, path: Path, features: FeatureMap) -> None:
        self._info = info = lerobot_info.read_info(path)
        self._layout = lerobot_info.layout_of(path, info)
        self.path, self.format = path, f"lerobot-{self._layout}"
        self.robot = str(info.robot_type or "")
        self._stamped = features.rate_hz is None  # else the user knows better than the stamps
        self.fps = float(info.fps) if features.rate_hz is None else features.rate_hz
        self._declared = rates_agree(self.fps, info.fps)
        self._finder = FileFinder(path)
        missing: dict[str, str] = {}
        self._choose_camera(features, missing)
        self._find_episodes()
        self._choose_vectors(features, missing)
        self.missing = missing
        self._newest: tuple[tuple[object, ...], Any] | None = None
        self._of_videos: dict[str, list[str]] = {}
        self._videos: dict[Path, tuple[VideoIndex, dict[int, int]]] = {}

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
            DataError: a file of `meta/` is missing or unreadable, the version is unknown, or
                lengths, clips and times contradict each other.
            UsageError: there is no such feature, or there are several cameras and none was named.
            MissingDependency: PyArrow is not installed.

        Example:
            >>> data = LeRobotDataset.open("calib_data/pusht")
            >>> data.episode(0).frames.shape
            (200, 96, 96, 3)
        """
        wanted = FeatureMap(cameras=() if camera is None else (camera,))
        dataset = cls(Path(path), features or wanted)
        dataset.check_cameras()
        return dataset

    @property
    def camera_key(self) -> str:
        """Feature that frames are read from."""
        self.check_cameras()
        return self.camera_keys[0]

    @property
    def notes(self) -> tuple[str, ...]:  # type: ignore[override]  # opened videos add to them
        """Facts that a user must know; of many videos alike the first one."""
        others = [
            texts[0] + (f"; {len(texts) - 1} more videos likewise" if len(texts) > 1 else "")
            for texts in self._of_videos.values()
        ]
        return (*self._facts, *others)

    @property
    def episode_numbers(self) -> list[int]:
        """The dataset's own number of each episode."""
        return [place.number for place in self._places]

    def frames(self, index: int) -> Iterator[NDArray[np.uint8]]:
        """Decode the frames of episode `index`; needs PyAV."""
        key, place = self.camera_key, self._place(index)
        if place.video_file is None:
            cells = self._columns(index, [key])[key].to_pylist()
            frames = self._embedded(cells, place.data_file)
        else:
            video, firsts = self._video(place.video_file)
            reader = self._pictures(place.video_file)
            frames = video.frames(firsts[place.number], place.length, reader)
        return self._sized(frames, place)

    def rows(self, index: int) -> Rows:
        """Read the rows of episode `index`; needs PyArrow."""
        place = self._place(index)
        keys = [*self._actions.keys, *self._states.keys]
        table = self._columns(index, keys, [_TIME])
        actions, states = (
            self._joined(table, choice, place) for choice in (self._actions, self._states)
        )
        return Rows(actions, states, self._times(table, place))

    def columns(self, index: int, names: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Read state columns, or others of one number per tick, of episode `index`."""
        singles = {f.key: f for f in self._features if f.is_vector and f.size == 1}
        for name in names:
            if name not in self.state_names and name not in singles:
                hint = did_you_mean(name, [*self.state_names, *singles], "it has")
                raise DataError(f"{self.path}: no column {name!r} of one number per tick; {hint}")
        states = self.rows(index).states
        found = {n: states[:, i] for i, n in enumerate(self.state_names) if n in names}
        others = [name for name in names if name not in found]
        table, file = self._columns(index, others), self._places[index].data_file
        return found | {name: to_matrix(table[name], 1, name, file)[:, 0] for name in others}

    def digest(self) -> str:
        """Compute the SHA-256 over every recorded file."""
        total = hashlib.sha256()
        tops = _RECORDED | self._finder.tops
        files = [file for top in tops for file in (self.path / top).rglob("*")]
        # In the order of names, because folders list their files in any order.
        for name in sorted(f.relative_to(self.path).as_posix() for f in files if f.is_file()):
            size, content = _file_digest(self.path / name)
            # The size and NUL bytes keep names and contents of neighbouring files apart.
            total.update(f"{name}\0{size}\0{content}\n".encode())
        return total.hexdigest()

    def labels(self) -> RecordingLabels:
        """Read the tasks, and units and limits where they are noted."""
        choices = (self._actions, self._states)
        return read_labels(self.path, self._info, self._layout, choices, self.episode_numbers)

    def verify(self, episodes: Sequence[int] | None = None) -> None:
        """Check files, rows, times and clips against each other, without decoding a frame."""
        super().verify(episodes)
        chosen = self._places if episodes is None else [self._places[i] for i in episodes]
        for video in clips.by_video(chosen):
            self._video(video)

    def _choose_camera(self, features: FeatureMap, missing: dict[str, str]) -> None:
        if len(features.cameras) > 1:
            raise UsageError(
                f"{self.path}: {len(features.cameras)} cameras; this reader takes one, use "
                "jetsight.datasets.open.open_dataset for several"
            )
        found, unusable = lerobot_info.cameras(self._info, self.path)
        for key, reason in unusable.items():
            if not found or key in features.cameras:
                raise DataError(reason)
        self.cameras = tuple(found)
        self.camera_keys, reason = choose_cameras(found, features, self.path)
        if reason:
            missing["camera"] = reason
        chosen = [camera for camera in found if camera.key in self.camera_keys]
        self.height, self.width = (chosen[0].height, chosen[0].width) if chosen else (0, 0)
        self._facts = [f"not used: {reason}" for reason in unusable.values()]

    def _find_episodes(self) -> None:
        """Find the files of all episodes, and leave out those without."""
        info, key = self._info, next(iter(self.camera_keys), None)
        video = key if key is not None and lerobot_info.is_video(info, key) else None
        self._listed = episodes.locate(self.path, info, self._layout, video, self._finder)
        self._clips = clips.by_video(self._listed)
        notes = clips.check_table(self.path, self._clips, float(info.fps))
        self._places, left_out = episodes.present(self.path, self._listed)
        total, count = info.total_episodes, len(self._listed)
        if info.codebase_version and not info.codebase_version.startswith(self._layout):
            notes.append(
                f"meta/info.json says {info.codebase_version}, but the files are laid out as "
                f"{self._layout}; read as that"
            )
        if total is not None and total != count:
            notes.append(f"meta/info.json says {total} episodes, but {count} are listed")
        for named, found in self._finder.elsewhere.items():
            notes.append(f"files are in {found} although meta/info.json says {named}")
        self.episode_lengths = [place.length for place in self._places]
        self._facts += [*left_out, *notes]

    def _choose_vectors(self, features: FeatureMap, missing: dict[str, str]) -> None:
        found, known = lerobot_info.vectors(self._info), list(self._info.features)
        wanted = {"action": features.action, "state": features.state}
        keys = [key for text in wanted.values() if text for key in text.split(",")]
        listed = choose_vector("action", found, None, self.path).features
        if not listed or any(key not in known for key in keys):
            # Opened only here: a column that meta/ forgot can be chosen, and is mentioned.
            found += unlisted_columns(self._places[0].data_file, known)
        self._features = found
        choices = {role: choose_vector(role, found, wanted[role], self.path) for role in wanted}
        missing.update({role: each.missing for role, each in choices.items() if each.missing})
        self._actions, self._states = choices["action"], choices["state"]
        self.action_names = list(self._actions.names)
        if self.action_names and self.action_names == unnamed(ACTION_KEY, len(self.action_names)):
            self._facts.append("its actions have no names, so their order cannot be checked")
        self.state_names = list(self._states.names)

    def _place(self, index: int) -> EpisodeLocation:
        self.check_index(index)
        return self._places[index]

    def _video(self, path: Path) -> tuple[VideoIndex, dict[int, int]]:
        """Open a video once, with the first frames of all episodes in it."""
        if path not in self._videos:
            index = VideoIndex.read(path)
            firsts, notes = clips.place_clips(
                index, self._clips[path], self.fps, declared=self._declared
            )
            for kind, note in notes.items():
                self._of_videos.setdefault(kind, []).append(note)
            self._videos[path] = index, firsts
        return self._videos[path]

    def _columns(self, index: int, wanted: Sequence[str], optional: Sequence[str] = ()) -> Any:
        """Read the rows of one episode, as a PyArrow table with the `wanted` columns."""
        place = self._place(index)
        if self._layout == "v2":  # a file of its own
            table = read_table(place.data_file, ["frame_index", *wanted], optional)
        else:
            table = self._shared_table(place, ["episode_index", "frame_index", *wanted], optional)
            rows = np.flatnonzero(table["episode_index"].to_numpy() == place.number)
            table = table.take(rows)
        # A missing or repeated row would shift actions against frames without any other sign.
        order = table["frame_index"].to_numpy()
        if not np.array_equal(order, np.arange(place.length)):
            raise DataError(
                f"{place.data_file} has {len(order)} rows of episode {place.number}, expected "
                f"frames 0..{place.length - 1} in order; {AGAIN}"
            )
        return table

    def _shared_table(
        self, place: EpisodeLocation, keys: Sequence[str], optional: Sequence[str]
    ) -> Any:
        """Read columns of a file of many episodes, with at least the rows of `place`."""
        if set(keys) & set(self.camera_keys):
            # Pictures are large: only the row groups that may hold the episode are read.
            return read_table(place.data_file, keys, optional, place.number)
        request = (place.data_file, *keys, *optional)
        if self._newest is None or self._newest[0] != request:
            # Episodes are read in order, and one row group may hold a thousand of them.
            self._newest = request, read_table(place.data_file, keys, optional)
        return self._newest[1]

    def _joined(self, table: Any, choice: VectorChoice, place: EpisodeLocation) -> Any:
        """Read the features of a choice side by side: float32 [T,n], finite."""
        parts = [np.zeros((table.num_rows, 0), dtype=np.float32)]
        for feature in choice.features:
            values = to_matrix(table[feature.key], feature.size, feature.key, place.data_file)
            check_finite(values, feature.key, _where(place))
            parts.append(values)
        return np.concatenate(parts, axis=1)

    def _times(self, table: Any, place: EpisodeLocation) -> NDArray[np.float64]:
        if not self._stamped or _TIME not in table.column_names:
            return np.arange(place.length) / self.fps
        stamps = to_matrix(table[_TIME], 1, _TIME, place.data_file)[:, 0]
        return check_stamps(stamps.astype(np.float64), self.fps, _where(place))

    def _embedded(self, cells: Sequence[Any], file: Path) -> Iterator[NDArray[np.uint8]]:
        reader = self._pictures(file)
        for row, cell in enumerate(cells):
            data = cell_bytes(cell, self.path)
            if data is None:
                raise DataError(f"{file} has no embedded picture in row {row}; {AGAIN}")
            yield decode_picture(data, f"{file} row {row}", reader)

    def _pictures(self, file: Path) -> PictureReader:
        form = lerobot_info.picture_format(self._info, self.camera_key)
        return PictureReader(str(file), form, lerobot_info.DECLARE_BITS)

    def _sized(
        self, frames: Iterator[NDArray[np.uint8]], place: EpisodeLocation
    ) -> Iterator[NDArray[np.uint8]]:
        for frame in frames:
            height, width = frame.shape[:2]
            if (height, width) != (self.height, self.width):
                raise DataError(
                    f"{place.files[-1]} has frames of {width}x{height} px, meta/info.json says "
                    f"{self.width}x{self.height}; correct the shape there, or {AGAIN}"
                )
            yield frame


def _where(place: EpisodeLocation) -> str:
    return f"{place.data_file}, episode {place.number}"


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


FORMAT = DatasetFormat(
    layout="a folder with meta/info.json (LeRobot)",
    detect=lambda path: (path / lerobot_info.INFO).is_file(),
    open=LeRobotDataset,
)
