"""The `meta/` folder of a LeRobot v3 dataset: features, and the files of each episode.

Nothing here decodes a picture. Everything read is checked, because datasets are copied around,
edited by hand and downloaded.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jetsight.errors import DataError, MissingDependency, UsageError, first_line
from jetsight.storage import strict_json

ACTION_KEY = "action"

INFO = "meta/info.json"
_CONVERT = "convert it with LeRobot's convert_dataset_v21_to_v30 script"


@dataclass(frozen=True)
class Info:
    """Fields of `meta/info.json` that reading needs."""

    codebase_version: str
    fps: float
    features: Mapping[str, Any]
    data_path: str
    total_episodes: int
    video_path: str | None = None
    robot_type: str | None = None


@dataclass(frozen=True)
class EpisodeLocation:
    """Files of one episode: `length` rows in `data_file`, frames from `start_s` in `video_file`.

    Without a video the pictures are in the rows themselves.
    """

    length: int
    data_file: Path
    video_file: Path | None
    start_s: float


def read_info(folder: Path) -> Info:
    """Read and check `meta/info.json` below `folder`.

    Raises:
        DataError: it is missing, damaged, or of a version other than v3.
    """
    path = folder / INFO
    try:
        data = path.read_bytes()
    except OSError as problem:
        raise DataError(
            f"cannot read {path} ({problem.strerror}); expected the folder of a LeRobot v3 dataset,"
            " which has meta/, data/ and videos/"
        ) from problem
    info = strict_json.parse(
        data, Info, str(path), error=DataError, allow_unknown=True, max_bytes=16 << 20
    )
    major = info.codebase_version.split(".")[0]
    if major != "v3":
        advice = _CONVERT if major in ("v1", "v2") else "update jetsight or convert the dataset"
        raise DataError(
            f"{path} has codebase_version {info.codebase_version!r}, expected 'v3.0'; {advice}"
        )
    if info.fps <= 0:
        raise DataError(f"{path} has fps {info.fps}, expected more than 0; correct it")
    return info


def choose_camera(features: Mapping[str, Any], wanted: str | None, folder: Path) -> str:
    """Choose the feature to read pictures from: `wanted`, or the only camera.

    Raises:
        DataError: the dataset has no pictures.
        UsageError: there is no camera `wanted`, or `wanted` is None and there are several.
    """
    cameras = [
        key
        for key, feature in features.items()
        if isinstance(feature, dict)
        and feature.get("dtype") in ("video", "image")
        # A depth map is stored as a video but holds no colours.
        and not (feature.get("info") or {}).get("video.is_depth_map")
    ]
    if not cameras:
        raise DataError(f"{folder} has no colour camera among its features; choose another dataset")
    if wanted is None and len(cameras) == 1:
        return cameras[0]
    if wanted not in cameras:
        problem = "several cameras" if wanted is None else f"no camera {wanted!r}"
        raise UsageError(f"{folder} has {problem}; choose one of: {', '.join(sorted(cameras))}")
    return wanted


def frame_size(key: str, feature: Mapping[str, Any], folder: Path) -> tuple[int, int]:
    """Read height and width of camera `key`."""
    # LeRobot writes [h,w,3] or [3,h,w] and names the axes.
    shape, names = feature.get("shape"), feature.get("names")
    sizes = [n for n in shape if type(n) is int and n > 0] if isinstance(shape, list) else []
    if len(sizes) != 3 or sizes != shape:
        raise DataError(
            f"{folder / INFO}: camera {key!r} has shape {shape!r}, expected [height, width, 3]; "
            "correct it"
        )
    channels_first = isinstance(names, list) and names[:1] in (["channels"], ["channel"])
    return (sizes[1], sizes[2]) if channels_first else (sizes[0], sizes[1])


def dimension_names(key: str, features: Mapping[str, Any], folder: Path) -> list[str]:
    """Read the names of the dimensions of the numeric feature `key`; empty without that feature.

    Raises:
        DataError: the feature is not a vector of numbers.
    """
    feature = features.get(key)
    if feature is None:
        return []
    shape = feature.get("shape") if isinstance(feature, dict) else None
    if not isinstance(shape, list) or len(shape) != 1 or type(shape[0]) is not int:
        raise DataError(
            f"{folder / INFO}: feature {key!r} has shape {shape!r}, expected one number; correct it"
        )
    names = feature.get("names")
    # LeRobot writes a list, a mapping such as {"motors": [...]}, or nothing.
    if isinstance(names, dict):
        names = next((v for v in names.values() if isinstance(v, list)), None)
    if isinstance(names, list) and len(names) == shape[0]:
        return [str(name) for name in names]
    return unnamed(key, shape[0])


def single_columns(features: Mapping[str, Any]) -> list[str]:
    """List the features that hold one number per tick."""
    return [
        key
        for key, feature in features.items()
        if isinstance(feature, dict) and feature.get("shape") == [1]
    ]


def unnamed(key: str, size: int) -> list[str]:
    """Make names for the dimensions of a feature without names."""
    return [f"{key}_{i}" for i in range(size)]


def places(folder: Path, info: Info, camera: str, *, video: bool) -> list[EpisodeLocation]:
    """Read the location of each episode from `meta/episodes/`, in order of episode index.

    Raises:
        DataError: the table is missing, damaged, incomplete, or points outside `folder`.
    """
    keys = ["episode_index", "length", "data/chunk_index", "data/file_index"]
    clip = [f"videos/{camera}/{k}" for k in ("chunk_index", "file_index", "from_timestamp")]
    table = _episode_table(folder, [*keys, *(clip if video else [])])
    # Episodes are spread over several files, in any order.
    rows = sorted(zip(*(table[key] for key in table), strict=True))
    if [row[0] for row in rows] != list(range(info.total_episodes)):
        raise DataError(
            f"{folder / 'meta/episodes'} lists {len(rows)} episodes, meta/info.json says "
            f"{info.total_episodes} numbered from 0; copy the dataset again"
        )
    return [_place(folder, info, camera, row) for row in rows]


def _place(folder: Path, info: Info, camera: str, row: Sequence[Any]) -> EpisodeLocation:
    length, data_chunk, data_file = row[1:4]
    data = _inside(folder, info.data_path, chunk_index=data_chunk, file_index=data_file)
    if len(row) == 4:
        return EpisodeLocation(int(length), data, None, 0.0)
    if info.video_path is None:
        raise DataError(f"{folder / INFO} has no video_path although {camera!r} is a video")
    video = _inside(
        folder, info.video_path, video_key=camera, chunk_index=row[4], file_index=row[5]
    )
    return EpisodeLocation(int(length), data, video, float(row[6]))


def _inside(folder: Path, template: str, **values: Any) -> Path:
    """Resolve the file of `template`; a dataset must not reach out of its own folder."""
    try:
        name = template.format(**values)
    # A template of another producer may have any format string; these are the errors it can raise.
    except (KeyError, IndexError, ValueError, AttributeError) as problem:
        raise DataError(
            f"{folder / INFO} has the unusable path {template!r}; correct it"
        ) from problem
    # A dataset may be a download: its paths must not read files of the robot.
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise DataError(f"{folder / INFO} has the path {template!r}, which leaves the dataset")
    return folder / name


def _episode_table(folder: Path, columns: list[str]) -> dict[str, list[Any]]:
    files = sorted((folder / "meta/episodes").glob("*/*.parquet"))
    if not files:
        raise DataError(f"{folder / 'meta/episodes'} has no parquet file; copy the dataset again")
    merged: dict[str, list[Any]] = {key: [] for key in columns}
    for file in files:
        table = read_parquet(file, columns)
        for key in columns:
            values = table[key].to_pylist()
            # Null cells become None; `type`, since a bool is an int as well.
            if any(type(value) not in (int, float) for value in values):
                raise DataError(f"{file} has a gap in column {key!r}; copy the dataset again")
            merged[key] += values
    return merged


def read_parquet(file: Path, columns: Sequence[str], episode: int | None = None) -> Any:
    """Read columns of a parquet file as a PyArrow table.

    Args:
        file: path of the file.
        columns: names of the columns.
        episode: read only row groups that can hold this episode; all if None.

    Raises:
        DataError: the file is missing or damaged, or has no such column.
        MissingDependency: PyArrow is not installed.
    """
    try:
        # Here, because a robot with a live camera needs no PyArrow.
        import pyarrow.parquet as pq
    except ImportError as problem:
        raise MissingDependency("pyarrow", "camera", "reading a LeRobot dataset") from problem
    with _reported(file), pq.ParquetFile(file) as reader:
        missing = [key for key in columns if key not in reader.schema_arrow.names]
        if missing:
            raise DataError(f"{file} has no column {missing[0]!r}; copy the dataset again")
        groups = [
            i
            for i in range(reader.num_row_groups)
            if episode is None or _may_hold(reader.metadata.row_group(i), episode)
        ]
        return reader.read_row_groups(groups, columns=list(columns))


def _may_hold(group: Any, episode: int) -> bool:
    """Return whether a row group can hold `episode`; True if it has no statistics."""
    for i in range(group.num_columns):
        column = group.column(i)
        # Without statistics the group is read: that costs time, skipping it would cost frames.
        if column.path_in_schema == "episode_index" and column.is_stats_set:
            return bool(column.statistics.min <= episode <= column.statistics.max)
    return True


@contextlib.contextmanager
def _reported(file: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (OSError, pa.ArrowException) as problem:
        raise DataError(
            f"cannot read {file} ({first_line(problem)}); copy the dataset again"
        ) from problem
