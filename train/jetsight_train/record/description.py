"""Description of a recorded dataset, and the `meta/info.json` made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from jetsight.errors import UsageError
from jetsight_train.record import video

CAMERA_KEY = "observation.images.top"
STATE_KEY, ACTION_KEY = "observation.state", "action"
REWARD_KEY, DONE_KEY = "next.reward", "next.done"
CHUNK = "chunk-{chunk_index:03d}/file-{file_index:03d}"
DATA_PATH = f"data/{CHUNK}.parquet"
VIDEO_PATH = f"videos/{{video_key}}/{CHUNK}.mp4"
CHUNK_FILES = 1000  # LeRobot's defaults, also for the sizes below
DATA_FILE_MB = 100
VIDEO_FILE_MB = 200
# Columns that every dataset has; a further column must not take their place.
_OWN = (STATE_KEY, ACTION_KEY, "timestamp", "frame_index", "episode_index", "index", "task_index")


@dataclass(frozen=True)
class DatasetDescription:
    """Description of a dataset beyond its rows.

    Args:
        task: instruction of every episode that names no task of its own.
        robot_type: name of the robot.
        fps: frames per second; need not be whole.
        size_hw: height and width of every camera's frames.
        state_names: of the state's dimensions; empty without a state.
        action_names: of the action's dimensions.
        cameras: feature keys of the cameras, in the order of the frames' first axis.
        state_units: one per state name, or empty if unknown.
        action_units: one per action name, or empty if unknown.
        extra: feature keys of further columns, in the order of the file.
        action_limits: smallest and largest action that the robot takes, one pair per action name,
            or empty if unknown.
        pictures: stored as an H.264 video, or as PNG pictures, which lose nothing.

    Raises:
        UsageError: a list has the wrong length, or a key is used twice.
    """

    task: str
    robot_type: str
    fps: float
    size_hw: tuple[int, int]
    state_names: Sequence[str]
    action_names: Sequence[str]
    cameras: tuple[str, ...] = (CAMERA_KEY,)
    state_units: Sequence[str] = ()
    action_units: Sequence[str] = ()
    extra: tuple[str, ...] = (REWARD_KEY, DONE_KEY)
    action_limits: Sequence[tuple[float, float]] = ()
    pictures: Literal["video", "png"] = "video"

    def __post_init__(self) -> None:
        keys = [*self.cameras, *_OWN, *self.extra]
        repeated = sorted({key for key in keys if keys.count(key) > 1})
        if repeated:
            raise UsageError(
                f"a dataset cannot hold two features named {repeated[0]!r}; rename one of them"
            )
        if not self.cameras:
            raise UsageError("a dataset needs at least one camera; name one")
        for kind in ("state", "action"):
            names, units = getattr(self, f"{kind}_names"), getattr(self, f"{kind}_units")
            if units and len(units) != len(names):
                raise UsageError(
                    f"there are {len(units)} {kind} units {list(units)} for {len(names)} "
                    f"{kind} names {list(names)}; give one unit for each name"
                )
        if self.action_limits and len(self.action_limits) != len(self.action_names):
            raise UsageError(
                f"there are {len(self.action_limits)} pairs of action limits for "
                f"{len(self.action_names)} action names; give one pair for each name"
            )

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of one tick's frames: `[h,w,3]`, or `[C,h,w,3]` with several cameras."""
        image = (*self.size_hw, 3)
        return image if len(self.cameras) == 1 else (len(self.cameras), *image)


def info(
    description: DatasetDescription,
    columns: Mapping[str, NDArray[Any]],
    *,
    episodes: int,
    tasks: int,
) -> dict[str, Any]:
    """Make the content of `meta/info.json`."""
    return {
        "codebase_version": "v3.0",
        "robot_type": description.robot_type,
        "total_episodes": episodes,
        "total_frames": len(columns["index"]),
        "total_tasks": tasks,
        "chunks_size": CHUNK_FILES,
        "data_files_size_in_mb": DATA_FILE_MB,
        "video_files_size_in_mb": VIDEO_FILE_MB,
        "fps": _rate(description.fps),
        "splits": {"train": f"0:{episodes}"},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH if description.pictures == "video" else None,
        "features": _features(description, columns),
    }


def _features(
    description: DatasetDescription, columns: Mapping[str, NDArray[Any]]
) -> dict[str, Any]:
    camera = _camera_feature(description)
    numeric = {name: _feature(values) for name, values in columns.items()}
    for key, kind in ((STATE_KEY, "state"), (ACTION_KEY, "action")):
        if key in numeric:
            numeric[key]["names"] = list(getattr(description, f"{kind}_names"))
            units = getattr(description, f"{kind}_units")
            # Not a key of LeRobot's, which ignores it.
            numeric[key] |= {"units": list(units)} if units else {}
    if description.action_limits:
        numeric[ACTION_KEY]["limits"] = [list(pair) for pair in description.action_limits]
    return dict.fromkeys(description.cameras, camera) | numeric


def _feature(values: NDArray[Any]) -> dict[str, Any]:
    shape = [1 if values.ndim == 1 else values.shape[1]]
    return {"dtype": str(values.dtype), "shape": shape, "names": None}


def _camera_feature(description: DatasetDescription) -> dict[str, Any]:
    height, width = description.size_hw
    shape = {"shape": [height, width, 3], "names": ["height", "width", "channels"]}
    if description.pictures == "png":
        return {"dtype": "image", **shape}
    return {
        "dtype": "video",
        **shape,
        "info": {
            "video.height": height,
            "video.width": width,
            "video.codec": "h264",
            "video.pix_fmt": video.PIXELS,
            "video.is_depth_map": False,
            "video.fps": _rate(description.fps),
            "video.channels": 3,
            "has_audio": False,
        },
    }


def _rate(fps: float) -> float:
    """Write a whole rate as a whole number, the type that LeRobot expects."""
    return int(fps) if float(fps).is_integer() else float(fps)
