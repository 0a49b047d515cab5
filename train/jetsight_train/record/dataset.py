"""Assembly of staged episodes into a LeRobot v3 dataset.

The layout is that of `lerobot.datasets` (codebase v3.0):

    meta/info.json, meta/stats.json, meta/tasks.parquet, meta/episodes/chunk-000/file-000.parquet
    data/chunk-000/file-000.parquet
    videos/observation.images.top/chunk-000/file-000.mp4      one folder per camera

PNG pictures are in the rows instead of videos, and the rows then in several files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetsight.errors import MissingDependency
from jetsight_train.record import dataset_stats, png, staging, video
from jetsight_train.record.description import (
    ACTION_KEY,
    CHUNK_FILES,
    DATA_FILE_MB,
    DATA_PATH,
    STATE_KEY,
    VIDEO_FILE_MB,
    VIDEO_PATH,
    DatasetDescription,
    info,
)
from jetsight_train.record.staging import StagedEpisode

EPISODES_PATH = "meta/episodes/chunk-000/file-000.parquet"
Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class _Place:
    """Video file of an episode, and the time of its first and after its last frame."""

    chunk: int
    file: int
    start_s: float
    stop_s: float


def assemble(
    target: Path, folder: Path, chosen: Sequence[int], description: DatasetDescription
) -> int:
    """Write `chosen` episodes of the staging `folder` as one dataset below the empty `target`.

    Equal episodes give equal bytes. Returns the number of frames.
    """
    episodes = [staging.load_rows(folder, i) for i in chosen]
    lengths = [len(episode.actions) for episode in episodes]
    tasks = list(dict.fromkeys(episode.task or description.task for episode in episodes))
    parts = {
        key: [staging.frames_path(folder, i, n, description) for i in chosen]
        for n, key in enumerate(description.cameras)
    }
    places: dict[str, list[_Place]] = {}
    if description.pictures == "video":
        places = {
            key: _join_videos(target, key, each, lengths, description.fps)
            for key, each in parts.items()
        }
    columns = _columns(episodes, tasks, description)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    records = []
    for i, episode in enumerate(episodes):
        span = slice(int(starts[i]), int(starts[i + 1]))
        clips = {key: places[key][i] for key in places}
        record = _episode_record(i, span, clips, episode.task or description.task)
        spanned = {name: values[span] for name, values in columns.items()}
        stats = _stats(spanned, episode.histogram, description.cameras)
        records.append(
            record
            | {f"stats/{n}/{key}": value for n, s in stats.items() for key, value in s.items()}
        )
    _write_rows(target, columns, records, {} if places else parts)
    _write_meta(target, records, tasks)
    histogram = np.sum([episode.histogram for episode in episodes], axis=0)
    _write_json(target / "meta/stats.json", _stats(columns, histogram, description.cameras))
    about = info(description, columns, episodes=len(episodes), tasks=len(tasks))
    _write_json(target / "meta/info.json", about)
    return int(starts[-1])


def _columns(
    episodes: Sequence[StagedEpisode], tasks: Sequence[str], description: DatasetDescription
) -> Columns:
    """Join the rows of all episodes by feature name, in the order of the file."""
    lengths = [len(episode.actions) for episode in episodes]
    frame_index = np.concatenate([np.arange(n, dtype=np.int64) for n in lengths])
    columns: Columns = {}
    if description.state_names:  # an environment may observe pixels alone
        columns[STATE_KEY] = np.concatenate([episode.states for episode in episodes])
    columns[ACTION_KEY] = np.concatenate([episode.actions for episode in episodes])
    for key in description.extra:
        columns[key] = np.concatenate([episode.extra[key] for episode in episodes])
    columns["timestamp"] = (frame_index / description.fps).astype(np.float32)
    columns["frame_index"] = frame_index
    columns["episode_index"] = np.repeat(np.arange(len(episodes), dtype=np.int64), lengths)
    columns["index"] = np.arange(len(frame_index), dtype=np.int64)
    numbers = [tasks.index(episode.task or description.task) for episode in episodes]
    columns["task_index"] = np.repeat(np.array(numbers, dtype=np.int64), lengths)
    return columns


def _join_videos(
    target: Path, camera: str, parts: Sequence[Path], lengths: Sequence[int], fps: float
) -> list[_Place]:
    """Join the `parts` of one camera into files of at most `VIDEO_FILE_MB`."""
    groups: list[list[int]] = []
    used = 0
    for i, part in enumerate(parts):
        size = part.stat().st_size
        if not groups or used + size > VIDEO_FILE_MB * 2**20:
            groups.append([])
            used = 0
        groups[-1].append(i)
        used += size
    places: list[_Place] = []
    for number, group in enumerate(groups):
        chunk, file = divmod(number, CHUNK_FILES)
        name = VIDEO_PATH.format(video_key=camera, chunk_index=chunk, file_index=file)
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        video.join(target / name, [parts[i] for i in group], [lengths[i] for i in group], fps)
        ends = np.cumsum([lengths[i] for i in group])
        places += [
            _Place(chunk, file, float(end - lengths[i]) / fps, float(end) / fps)
            for i, end in zip(group, ends, strict=True)
        ]
    return places


def _episode_record(
    index: int, span: slice, places: Mapping[str, _Place], task: str
) -> dict[str, Any]:
    record = {
        "episode_index": index,
        "tasks": [task],
        "length": span.stop - span.start,
        "data/chunk_index": 0,
        "data/file_index": 0,
        "dataset_from_index": span.start,
        "dataset_to_index": span.stop,
    }
    for camera, place in places.items():
        record |= {
            f"videos/{camera}/chunk_index": place.chunk,
            f"videos/{camera}/file_index": place.file,
            f"videos/{camera}/from_timestamp": place.start_s,
            f"videos/{camera}/to_timestamp": place.stop_s,
        }
    return record | {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}


def _write_rows(
    target: Path,
    columns: Columns,
    records: list[dict[str, Any]],
    pictures: Mapping[str, Sequence[Path]],
) -> None:
    """Write the rows, one row group per episode, so that an episode is read alone.

    Args:
        target: folder of the dataset.
        columns: all rows, by feature.
        records: of the episodes; the file of each is entered.
        pictures: files of each camera's pictures by episode, which go into the rows.
    """
    pa, pq = _pyarrow()
    rows = pa.table({name: _arrow(pa, values) for name, values in columns.items()})
    writer, number, used = None, 0, 0
    try:
        for i, record in enumerate(records):
            part = rows.slice(record["dataset_from_index"], record["length"])
            for key, files in pictures.items():
                part = part.append_column(key, _picture_column(pa, files[i]))
            if writer is not None and used + part.nbytes > DATA_FILE_MB * 2**20:
                writer.close()
                writer, number, used = None, number + 1, 0
            place = dict(
                zip(("chunk_index", "file_index"), divmod(number, CHUNK_FILES), strict=True)
            )
            if writer is None:
                file = target / DATA_PATH.format(**place)
                file.parent.mkdir(parents=True, exist_ok=True)
                writer = pq.ParquetWriter(file, part.schema, compression="snappy")
            writer.write_table(part)
            used += part.nbytes
            record |= {f"data/{key}": value for key, value in place.items()}
    finally:
        if writer is not None:
            writer.close()


def _picture_column(pa: Any, file: Path) -> Any:
    """Make a column of pictures as LeRobot embeds them: bytes, and a name."""
    pictures = png.read_pictures(file)
    names = [f"frame-{i:06d}.png" for i in range(len(pictures))]
    return pa.StructArray.from_arrays(
        [pa.array(pictures, pa.binary()), pa.array(names)], ["bytes", "path"]
    )


def _write_meta(target: Path, records: list[dict[str, Any]], tasks: Sequence[str]) -> None:
    pa, pq = _pyarrow()
    file = target / EPISODES_PATH
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(records), file, compression="snappy")
    pq.write_table(_tasks_table(pa, tasks), target / "meta/tasks.parquet", compression="snappy")


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as problem:
        raise MissingDependency("pyarrow", "camera", "writing a dataset") from problem
    return pa, pq


def _arrow(pa: Any, values: NDArray[Any]) -> Any:
    """Make a feature column: scalars for [N] and [N,1], as LeRobot does; else lists of size n."""
    if values.ndim == 1 or values.shape[1] == 1:
        return pa.array(values.ravel())
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def _tasks_table(pa: Any, tasks: Sequence[str]) -> Any:
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
    table = pa.table(
        {"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks)}
    )
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def _stats(
    columns: Columns, histogram: NDArray[np.int64], cameras: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Return the statistics of columns and pictures as plain values, by feature."""
    stats = {name: dataset_stats.of_values(values) for name, values in columns.items()}
    frames = len(columns["index"])
    for camera, counts in zip(cameras, histogram, strict=True):
        stats[camera] = dataset_stats.of_histogram(counts, frames)
    return {n: {key: value.tolist() for key, value in s.items()} for n, s in stats.items()}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")
