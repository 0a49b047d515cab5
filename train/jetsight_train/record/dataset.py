"""Assembly of recorded episodes into a LeRobot v3 dataset.

The layout is that of `lerobot.datasets` (codebase v3.0):

    meta/info.json, meta/stats.json, meta/tasks.parquet, meta/episodes/chunk-000/file-000.parquet
    data/chunk-000/file-000.parquet
    videos/observation.images.top/chunk-000/file-000.mp4
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetsight.errors import MissingDependency
from jetsight_train.record import dataset_stats, video
from jetsight_train.record import episode as episodes_on_disk

CAMERA_KEY = "observation.images.top"
CHUNK = "chunk-{chunk_index:03d}/file-{file_index:03d}"
DATA_PATH = f"data/{CHUNK}.parquet"
VIDEO_PATH = f"videos/{{video_key}}/{CHUNK}.mp4"
EPISODES_PATH = "meta/episodes/chunk-000/file-000.parquet"
CHUNK_FILES = 1000  # LeRobot's defaults, also for the sizes below
DATA_FILE_MB = 100
VIDEO_FILE_MB = 200
Rows = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class DatasetDescription:
    """Description of a dataset beyond its rows."""

    task: str
    robot_type: str
    fps: int
    size_hw: tuple[int, int]
    state_names: list[str]
    action_names: list[str]


def assemble(target: Path, staging: Path, count: int, description: DatasetDescription) -> int:
    """Write the `count` episodes in `staging` as one dataset below the empty folder `target`.

    Equal episodes give equal bytes. Returns the number of frames.
    """
    rows = [episodes_on_disk.load_rows(staging, i) for i in range(count)]
    lengths = [len(r["actions"]) for r in rows]
    places = _join_videos(target, staging, lengths, description.fps)
    columns = _columns(rows, lengths, description.fps)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    records = []
    for i, row in enumerate(rows):
        span = slice(int(starts[i]), int(starts[i + 1]))
        record = _episode_record(i, span, places[i], description)
        spanned = {name: values[span] for name, values in columns.items()}
        stats = _stats(spanned, row["histogram"], lengths[i])
        records.append(
            record
            | {f"stats/{n}/{key}": value for n, s in stats.items() for key, value in s.items()}
        )
    _write_tables(target, columns, records, description.task)
    histogram = np.sum([row["histogram"] for row in rows], axis=0)
    _write_json(target / "meta/stats.json", _stats(columns, histogram, int(starts[-1])))
    _write_json(target / "meta/info.json", info(description, count, int(starts[-1]), columns))
    return int(starts[-1])


def info(description: DatasetDescription, count: int, frames: int, columns: Rows) -> dict[str, Any]:
    """Make the content of `meta/info.json`."""
    return {
        "codebase_version": "v3.0",
        "robot_type": description.robot_type,
        "total_episodes": count,
        "total_frames": frames,
        "total_tasks": 1,
        "chunks_size": CHUNK_FILES,
        "data_files_size_in_mb": DATA_FILE_MB,
        "video_files_size_in_mb": VIDEO_FILE_MB,
        "fps": description.fps,
        "splits": {"train": f"0:{count}"},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH,
        "features": _features(description, columns),
    }


def _features(description: DatasetDescription, columns: Rows) -> dict[str, Any]:
    height, width = description.size_hw
    names = {"observation.state": description.state_names, "action": description.action_names}
    camera = {
        "dtype": "video",
        "shape": [height, width, 3],
        "names": ["height", "width", "channels"],
        "info": {
            "video.height": height,
            "video.width": width,
            "video.codec": "h264",
            "video.pix_fmt": video.PIXELS,
            "video.is_depth_map": False,
            "video.fps": description.fps,
            "video.channels": 3,
            "has_audio": False,
        },
    }
    numeric = {
        name: {
            "dtype": str(values.dtype),
            "shape": [1 if values.ndim == 1 else values.shape[1]],
            "names": names.get(name),
        }
        for name, values in columns.items()
    }
    return {CAMERA_KEY: camera} | numeric


def _columns(rows: list[Rows], lengths: list[int], fps: int) -> Rows:
    """Join the rows of all episodes by feature name, in the order of the file."""
    frame_index = np.concatenate([np.arange(n, dtype=np.int64) for n in lengths])
    columns: Rows = {}
    if rows[0]["states"].shape[1]:  # an environment may observe pixels alone
        columns["observation.state"] = np.concatenate([r["states"] for r in rows])
    columns["action"] = np.concatenate([r["actions"] for r in rows])
    columns["next.reward"] = np.concatenate([r["rewards"] for r in rows])
    columns["next.done"] = np.concatenate([r["done"] for r in rows])
    columns["timestamp"] = (frame_index / fps).astype(np.float32)
    columns["frame_index"] = frame_index
    columns["episode_index"] = np.repeat(np.arange(len(rows), dtype=np.int64), lengths)
    columns["index"] = np.arange(len(frame_index), dtype=np.int64)
    columns["task_index"] = np.zeros(len(frame_index), dtype=np.int64)
    return columns


def _join_videos(
    target: Path, staging: Path, lengths: list[int], fps: int
) -> list[tuple[int, int, float, float]]:
    """Join the videos into files of at most `VIDEO_FILE_MB`; per episode: chunk, file, from, to."""
    parts = [episodes_on_disk.video_path(staging, i) for i in range(len(lengths))]
    groups: list[list[int]] = []
    used = 0
    for i, part in enumerate(parts):
        size = part.stat().st_size
        if not groups or used + size > VIDEO_FILE_MB * 2**20:
            groups.append([])
            used = 0
        groups[-1].append(i)
        used += size
    places: list[tuple[int, int, float, float]] = []
    for number, group in enumerate(groups):
        chunk, file = divmod(number, CHUNK_FILES)
        name = VIDEO_PATH.format(video_key=CAMERA_KEY, chunk_index=chunk, file_index=file)
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        video.join(target / name, [parts[i] for i in group], [lengths[i] for i in group], fps)
        ends = np.cumsum([lengths[i] for i in group])
        places += [
            (chunk, file, float(end - lengths[i]) / fps, float(end) / fps)
            for i, end in zip(group, ends, strict=True)
        ]
    return places


def _episode_record(
    index: int, span: slice, place: tuple[int, int, float, float], description: DatasetDescription
) -> dict[str, Any]:
    chunk, file, start_s, stop_s = place
    return {
        "episode_index": index,
        "tasks": [description.task],
        "length": span.stop - span.start,
        "data/chunk_index": 0,
        "data/file_index": 0,
        "dataset_from_index": span.start,
        "dataset_to_index": span.stop,
        f"videos/{CAMERA_KEY}/chunk_index": chunk,
        f"videos/{CAMERA_KEY}/file_index": file,
        f"videos/{CAMERA_KEY}/from_timestamp": start_s,
        f"videos/{CAMERA_KEY}/to_timestamp": stop_s,
        "meta/episodes/chunk_index": 0,
        "meta/episodes/file_index": 0,
    }


def _write_tables(target: Path, columns: Rows, records: list[dict[str, Any]], task: str) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as problem:
        raise MissingDependency("pyarrow", "camera", "writing a dataset") from problem
    for name in ("data/chunk-000", "meta/episodes/chunk-000"):
        (target / name).mkdir(parents=True, exist_ok=True)
    rows = pa.table({name: _arrow(pa, values) for name, values in columns.items()})
    file = target / DATA_PATH.format(chunk_index=0, file_index=0)
    with pq.ParquetWriter(file, rows.schema, compression="snappy") as writer:
        for record in records:  # one row group per episode, so that an episode is read alone
            writer.write_table(rows.slice(record["dataset_from_index"], record["length"]))
    pq.write_table(pa.Table.from_pylist(records), target / EPISODES_PATH, compression="snappy")
    pq.write_table(_tasks_table(pa, task), target / "meta/tasks.parquet", compression="snappy")


def _arrow(pa: Any, values: NDArray[Any]) -> Any:
    """Make a feature column: scalars for [N] and [N,1], as LeRobot does; else lists of size n."""
    if values.ndim == 1 or values.shape[1] == 1:
        return pa.array(values.ravel())
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def _tasks_table(pa: Any, task: str) -> Any:
    """Make the table of tasks with the task as pandas index, where LeRobot looks it up."""
    index = {"name": "task", "field_name": "task", "pandas_type": "unicode"}
    column = {"name": "task_index", "field_name": "task_index", "pandas_type": "int64"}
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [
            column | {"numpy_type": "int64", "metadata": None},
            index | {"numpy_type": "object", "metadata": None},
        ],
    }
    table = pa.table({"task_index": pa.array([0], pa.int64()), "task": pa.array([task])})
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def _stats(columns: Rows, histogram: NDArray[np.int64], frames: int) -> dict[str, dict[str, Any]]:
    """Return the statistics of columns and pictures as plain values, by feature."""
    stats = {name: dataset_stats.of_values(values) for name, values in columns.items()}
    stats[CAMERA_KEY] = dataset_stats.of_histogram(histogram, frames)
    return {n: {key: value.tolist() for key, value in s.items()} for n, s in stats.items()}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")
