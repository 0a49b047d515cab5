"""Reading of raw DROID episodes: `trajectory.h5` beside `recordings/MP4/SERIAL.mp4`.

DROID: arXiv 2403.12945; control and cameras run at 15 Hz. The ticks are those of the trajectory.

Shapes: T ticks of an episode.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetsight.datasets.dataset import CameraFeature, DatasetFormat, FeatureMap
from jetsight.datasets.features import RecordedFeature
from jetsight.datasets.formats.episodes import RawDataset, RawRecording
from jetsight.datasets.formats.hdf5 import Hdf5Recording
from jetsight.datasets.video import VideoIndex
from jetsight.errors import DataError

_TRAJECTORY = "trajectory.h5"
_VIDEOS = "recordings/MP4"
_HZ = 15.0
_ACTION = "action/joint_velocity"
_GRIPPER = "action/gripper_position"
_STATES = ("observation/robot_state/joint_positions", "observation/robot_state/gripper_position")


class DroidEpisodes(RawRecording):
    """Raw episodes below a folder.

    Args:
        path: an episode, or a folder with episodes at any depth.

    Raises:
        DataError: a trajectory is damaged, or no camera has as many frames as there are ticks.
    """

    format = "droid"
    robot = "Franka Panda (DROID)"
    fps = _HZ

    def __init__(self, path: Path) -> None:
        self.path = path
        self._folders = [file.parent for file in sorted(path.rglob(_TRAJECTORY))]
        self._trajectories = [Hdf5Recording(folder / _TRAJECTORY) for folder in self._folders]
        self.lengths = [trajectory.lengths[0] for trajectory in self._trajectories]
        self.features = list(self._trajectories[0].features)
        self._videos: list[dict[str, VideoIndex]] = []
        notes: list[str] = []
        for folder, length in zip(self._folders, self.lengths, strict=True):
            files = sorted((folder / _VIDEOS).glob("[!.]*.mp4"))
            # Files with both eyes of a stereo camera side by side are copies.
            videos = {f.stem: VideoIndex.read(f) for f in files if not f.stem.endswith("-stereo")}
            self._videos.append({key: v for key, v in videos.items() if len(v) == length})
            notes += [
                f"{v.path} has {len(v)} frames for {length} ticks and is left out"
                for v in videos.values()
                if len(v) != length
            ]
        self.notes = notes
        common = set.intersection(*(set(videos) for videos in self._videos))
        if not common:
            raise DataError(
                f"{path} has no camera with one frame per tick in every episode; "
                + (notes[0] if notes else f"expected {_VIDEOS}/SERIAL.mp4 beside each trajectory")
            )
        self.cameras = [_camera(key, self._videos[0][key]) for key in sorted(common)]

    def values(self, episode: int, key: str) -> NDArray[Any]:
        """Read an array of the trajectory."""
        return self._trajectories[episode].values(0, key)

    def pictures(self, episode: int, key: str) -> Iterator[NDArray[np.uint8]]:
        """Decode the video of a camera."""
        return self._videos[episode][key].frames(0, self.lengths[episode])

    def stamps_s(self, episode: int) -> NDArray[np.float64] | None:
        """Return None: the ticks are those of the control loop."""
        return None

    def files(self) -> Iterable[Path]:
        """List trajectories and videos."""
        for trajectory, videos in zip(self._trajectories, self._videos, strict=True):
            yield from [*trajectory.files(), *(index.path for index in videos.values())]


def _camera(key: str, index: VideoIndex) -> CameraFeature:
    height, width = next(index.frames(0, 1)).shape[:2]
    return CameraFeature(key, height, width)


def _detect(path: Path) -> bool:
    return path.is_dir() and next(path.rglob(_TRAJECTORY), None) is not None


def _open(path: Path, features: FeatureMap) -> RawDataset:
    raw = DroidEpisodes(path)
    keys = {feature.key: feature for feature in raw.features}
    chosen = {"action": features.action, "state": features.state}
    # DROID records each command in six forms; the velocities of the joints are its control input.
    for role, wanted in (("action", (_ACTION, _GRIPPER)), ("state", _STATES)):
        present: list[RecordedFeature] = [keys[key] for key in wanted if key in keys]
        if chosen[role] is None and present:
            chosen[role] = ",".join(feature.key for feature in present)
    use = FeatureMap(chosen["action"], chosen["state"], features.cameras, features.rate_hz)
    return RawDataset(raw, use)


FORMAT = DatasetFormat(
    "raw DROID episodes (trajectory.h5, recordings/MP4)", _detect, _open, aligns=True
)
