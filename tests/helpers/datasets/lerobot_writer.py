"""Writer of small LeRobot datasets, v2 and v3, with what converters and recorders do otherwise.

Frame number n of a video, counted over all its episodes, is uniformly `level(n)` bright, so that a
test sees which frame it got.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

TOP, WRIST = "observation.images.top", "observation.images.wrist"
SIZE_HW = (64, 96)
DATA_V3 = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_V3 = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
DATA_V2 = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEO_V2 = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
_STEP = 8  # levels between two frames, more than a codec changes


def level(number: int) -> int:
    """Brightness of frame `number` of a video."""
    return 8 + _STEP * number


def number_of(frame: np.ndarray) -> int:
    """Number of a decoded frame."""
    return round((float(frame.mean()) - 8) / _STEP)


def camera(**changes: Any) -> dict[str, Any]:
    """Feature of a colour camera."""
    names = ["height", "width", "channels"]
    return {"dtype": "video", "shape": [*SIZE_HW, 3], "names": names, "info": {}} | changes


def vector(size: int, names: Any = None, **changes: Any) -> dict[str, Any]:
    """Feature of a vector of numbers."""
    return {"dtype": "float32", "shape": [size], "names": names} | changes


@dataclass
class ToyRecording:
    """Contents of a dataset; episode e, row t has the action `[100 e + t, -t]`.

    Args:
        lengths: rows of each episode.
        fps: declared rate.
        cameras: features of the cameras.
        actions: features that hold the action, side by side.
        others: further features with a function of the rows' count.
        numbers: numbers of the episodes.
        codec: of the videos, with its options.
        times_s: times of the frames of a video of n frames; None for n / fps.
        files: file index of each episode (v3).
        rows: changes the columns of the rows before they are written.
        clips: changes the table of episodes (v3).
        info: changes `meta/info.json`.
    """

    lengths: Sequence[int] = (8, 6)
    fps: float = 10
    cameras: Mapping[str, Any] = field(default_factory=lambda: {TOP: camera()})
    actions: Mapping[str, Any] = field(default_factory=lambda: {"action": vector(2, ["x", "y"])})
    others: Mapping[str, Any] = field(
        default_factory=lambda: {"observation.state": vector(2, ["sx", "sy"])}
    )
    numbers: Sequence[int] | None = None
    codec: tuple[str, dict[str, str]] = ("libx264", {"g": "4", "crf": "4"})
    pixels: str = "yuv420p"
    times_s: Callable[[int], Sequence[float]] | None = None
    files: Sequence[int] | None = None
    rows: Callable[[dict[str, Any]], object] = lambda columns: None
    clips: Callable[[list[dict[str, Any]]], object] = lambda table: None
    info: Callable[[dict[str, Any]], object] = lambda info: None

    @property
    def episodes(self) -> list[int]:
        """Numbers of the episodes."""
        return list(self.numbers or range(len(self.lengths)))

    def columns(self, episode: int, first: int) -> dict[str, Any]:
        """Columns of one episode, lists of rows."""
        length, number = self.lengths[episode], self.episodes[episode]
        ticks = np.arange(length)
        values = np.stack([100.0 * episode + ticks, -ticks], axis=1)
        sizes = [int(np.prod(feature["shape"])) for feature in self.actions.values()]
        parts = np.split(np.resize(values, (length, sum(sizes))), np.cumsum(sizes)[:-1], axis=1)
        found: dict[str, Any] = {
            "timestamp": (ticks / self.fps).tolist(),
            "frame_index": ticks.tolist(),
            "episode_index": [number] * length,
            "index": (first + ticks).tolist(),
            "task_index": [0] * length,
        }
        for key, part in zip(self.actions, parts, strict=True):
            found[key] = part.tolist() if part.shape[1] > 1 else part[:, 0].tolist()
        for key, feature in self.others.items():
            size = int(np.prod(feature["shape"]))
            found[key] = [[float(t)] * size if size > 1 else float(t) for t in ticks]
        return found

    def describe(self, version: str, data: str, video: str) -> dict[str, Any]:
        """Contents of `meta/info.json`."""
        singles = ("timestamp", "frame_index", "episode_index", "index", "task_index")
        whole = {
            key: vector(1, dtype="float32" if key == "timestamp" else "int64") for key in singles
        }
        info = {
            "codebase_version": version,
            "robot_type": "toy",
            "total_episodes": len(self.lengths),
            "fps": self.fps,
            "chunks_size": 1000,
            "data_path": data,
            "video_path": video,
            "features": {**self.cameras, **self.actions, **self.others, **whole},
        }
        self.info(info)
        return info


def write_v2(folder: Path, recording: ToyRecording | None = None) -> Path:
    """Write one parquet file and one video per episode."""
    recording = recording or ToyRecording()
    _write_info(folder, recording.describe("v2.1", DATA_V2, VIDEO_V2))
    lines = []
    for episode, number in enumerate(recording.episodes):
        length, where = recording.lengths[episode], {"episode_chunk": 0, "episode_index": number}
        _write_rows(folder / DATA_V2.format(**where), recording, [recording.columns(episode, 0)])
        for key in recording.cameras:
            path = folder / VIDEO_V2.format(**where, video_key=key)
            write_video(path, recording, range(length))
        lines.append(json.dumps({"episode_index": number, "tasks": ["go"], "length": length}))
    (folder / "meta/episodes.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "meta/tasks.jsonl").write_text('{"task_index": 0, "task": "go"}\n')
    return folder


def write_v3(folder: Path, recording: ToyRecording | None = None) -> Path:
    """Write files of many episodes, and their table."""
    recording = recording or ToyRecording()
    _write_info(folder, recording.describe("v3.0", DATA_V3, VIDEO_V3))
    files = list(recording.files or [0] * len(recording.lengths))
    table: list[dict[str, Any]] = []
    first = 0
    for file in sorted(set(files)):
        chosen = [i for i, each in enumerate(files) if each == file]
        rows, frames, where = [], 0, {"chunk_index": 0, "file_index": file}
        for episode in chosen:
            length = recording.lengths[episode]
            rows.append(recording.columns(episode, first))
            table.append(_clip(recording, episode, file, first, frames))
            first, frames = first + length, frames + length
        _write_rows(folder / DATA_V3.format(**where), recording, rows)
        for key in recording.cameras:
            write_video(folder / VIDEO_V3.format(**where, video_key=key), recording, range(frames))
    recording.clips(table)
    path = folder / "meta/episodes/chunk-000/file-000.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(table), path)
    return folder


def write_video(path: Path, recording: ToyRecording, numbers: Sequence[int]) -> None:
    """Write a video of the frames of these numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    codec, options = recording.codec
    count = len(numbers)
    times = [i / recording.fps for i in range(count)]
    if recording.times_s is not None:
        times = list(recording.times_s(count))
    tick = Fraction(1, 90000)
    with av.open(str(path), "w") as container:
        rate = Fraction(recording.fps).limit_denominator(1001)
        stream: Any = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width, stream.pix_fmt = *SIZE_HW, recording.pixels
        stream.codec_context.time_base = tick
        for i, number in enumerate(numbers):
            pixels = np.full((*SIZE_HW, 3), level(number), np.uint8)
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture.pts = round(times[i] / tick)
            picture.time_base = tick
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def png(number: int) -> bytes:
    """Picture of the frame of this number."""
    file = io.BytesIO()
    with av.open(file, "w", format="image2pipe") as container:
        stream: Any = container.add_stream("png", rate=1)
        stream.height, stream.width, stream.pix_fmt = *SIZE_HW, "rgb24"
        pixels = np.full((*SIZE_HW, 3), level(number), np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def _clip(
    recording: ToyRecording, episode: int, file: int, first: int, frames: int
) -> dict[str, Any]:
    length, fps = recording.lengths[episode], recording.fps
    row = {
        "episode_index": recording.episodes[episode],
        "length": length,
        "data/chunk_index": 0,
        "data/file_index": file,
        "dataset_from_index": first,
        "dataset_to_index": first + length,
    }
    for key in recording.cameras:
        row |= {
            f"videos/{key}/chunk_index": 0,
            f"videos/{key}/file_index": file,
            f"videos/{key}/from_timestamp": frames / fps,
            f"videos/{key}/to_timestamp": (frames + length) / fps,
        }
    return row


def _write_info(folder: Path, info: dict[str, Any]) -> None:
    (folder / "meta").mkdir(parents=True)
    (folder / "meta/info.json").write_text(json.dumps(info))


def _write_rows(path: Path, recording: ToyRecording, episodes: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {key: [v for part in episodes for v in part[key]] for key in episodes[0]}
    recording.rows(columns)
    pq.write_table(pa.table(columns), path)
