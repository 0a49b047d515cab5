"""Episodes before assembly: one `.npz` of rows and one `.mp4` per camera, in a hidden folder.

An interrupted recording keeps its finished episodes here, beside the target, in `.NAME.collecting`.
`hold` makes or reopens that folder, `write_episode` fills it, `dataset.assemble` reads it.

Shapes: T ticks, C cameras, h, w frame size, s state size, a action size.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetsight.errors import DataError, StorageError, UsageError
from jetsight.storage import atomic
from jetsight_train.record import dataset_stats, png, video
from jetsight_train.record.description import ACTION_KEY, STATE_KEY, DatasetDescription

PLAN = "recording.json"
_EXTRA = "extra:"  # keeps the names of further columns apart from those below


@dataclass(frozen=True)
class EpisodeRows:
    """Rows of one episode: row t holds observation t and the action taken at t.

    Args:
        actions: `float32 [T,a]`.
        states: `float32 [T,s]`; s = 0 without a state.
        extra: `[T]` or `[T,n]` by feature key; the keys of `DatasetDescription.extra`.
        task: instruction of this episode; None for that of the dataset.
    """

    actions: NDArray[np.float32]
    states: NDArray[np.float32]
    extra: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    task: str | None = None


@dataclass(frozen=True)
class StagedEpisode(EpisodeRows):
    """Rows of a finished episode, and `histogram [C,3,256]` of its pixels."""

    histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros((1, 3, 256), np.int64))


def staging_of(target: str | os.PathLike[str]) -> Path:
    """Name the hidden folder that keeps the episodes of `target` until all are recorded."""
    final = Path(os.path.abspath(target))
    return final.parent / f".{final.name}.collecting"


def finished(target: str | os.PathLike[str]) -> int:
    """Count the episodes kept from an interrupted recording of `target`."""
    return len(list(staging_of(target).glob("episode-*.npz")))


def rows_path(folder: Path, index: int) -> Path:
    """Return the path of the rows of episode `index`; it exists once the episode is complete."""
    return folder / f"episode-{index:06d}.npz"


def video_path(folder: Path, index: int, camera: int = 0) -> Path:
    """Return the path of the frames of the `camera`-th camera in episode `index`."""
    suffix = f"-{camera}" if camera else ""
    return folder / f"episode-{index:06d}{suffix}.mp4"


def pictures_path(folder: Path, index: int, camera: int = 0) -> Path:
    """Return the path of the PNG pictures of the `camera`-th camera in episode `index`."""
    return folder / f"pictures-{index:06d}-{camera}.npz"


def frames_path(folder: Path, index: int, camera: int, description: DatasetDescription) -> Path:
    """Return the path of the frames in the form that the dataset stores."""
    path = video_path if description.pictures == "video" else pictures_path
    return path(folder, index, camera)


def _encoder(description: DatasetDescription) -> video.Encoder | png.PngEncoder:
    return video.Encoder(description.fps) if description.pictures == "video" else png.PngEncoder()


def write_episode(
    folder: Path,
    index: int,
    rows: EpisodeRows,
    frames: Iterable[NDArray[np.uint8]],
    description: DatasetDescription,
) -> None:
    """Encode the frames of one episode and write it to `folder`, rows last.

    Args:
        folder: staging folder.
        index: number of the episode.
        rows: T rows.
        frames: T frames, each of `description.frame_shape`; one is in memory at a time.
        description: of the dataset.

    Raises:
        DataError: a number is not finite, or numbers and shapes do not fit the description.
        StorageError: the disk is full or the folder cannot be written.
    """
    _check_rows(rows, description, f"episode {index}")
    count = len(description.cameras)
    encoders = [_encoder(description) for _ in range(count)]
    counts, ticks = np.zeros((count, 3, 256), np.int64), 0
    for frame in frames:
        if frame.shape != description.frame_shape:
            raise DataError(
                f"episode {index}: frame {ticks} has shape {list(frame.shape)}, expected "
                f"{list(description.frame_shape)}; give every frame the size of the dataset"
            )
        for camera, image in enumerate(frame.reshape(count, *description.size_hw, 3)):
            encoders[camera].add(image)
            counts[camera] += dataset_stats.histogram(image)
        ticks += 1
    if ticks != len(rows.actions):
        raise DataError(
            f"episode {index} has {ticks} frames and {len(rows.actions)} rows of actions, "
            "expected one frame for each row"
        )
    for camera, encoder in enumerate(encoders):
        name = frames_path(folder, index, camera, description)
        atomic.write_file(name, encoder.finish())
    # The rows are written last: an interruption leaves a complete episode, or none.
    atomic.write_file(rows_path(folder, index), _packed(rows, counts))


def _check_rows(rows: EpisodeRows, description: DatasetDescription, where: str) -> None:
    length = len(rows.actions)
    if length == 0:
        raise DataError(f"{where} has no rows, expected at least one; leave it out")
    if set(rows.extra) != set(description.extra):
        raise DataError(
            f"{where} has the further columns {sorted(rows.extra)}, expected "
            f"{sorted(description.extra)}"
        )
    sizes = {ACTION_KEY: len(description.action_names), STATE_KEY: len(description.state_names)}
    columns = {ACTION_KEY: rows.actions, STATE_KEY: rows.states, **rows.extra}
    for key, values in columns.items():
        shape = (length, sizes[key]) if key in sizes else (length, *values.shape[1:2])
        if values.shape != shape:
            raise DataError(
                f"{where}: column {key!r} has shape {list(values.shape)}, expected {list(shape)}"
            )
        if values.dtype.kind not in "biuf":
            raise DataError(f"{where}: column {key!r} holds {values.dtype}, expected numbers")
        check_finite(values, f"{where}: column {key!r}")


def check_finite(values: NDArray[Any], where: str) -> None:
    """Refuse NaN and infinities in `values [T]` or `[T,n]`, which no later command could read.

    Raises:
        DataError: names the first row that is not finite.
    """
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return
    row = int(np.argmax(~np.isfinite(values.reshape(len(values), -1)).all(axis=1)))
    raise DataError(
        f"{where} holds {np.asarray(values[row]).tolist()} in row {row}, expected finite numbers; "
        "correct what produces them"
    )


def _packed(rows: EpisodeRows, counts: NDArray[np.int64]) -> bytes:
    columns = {"actions": rows.actions, "states": rows.states, "histogram": counts}
    columns |= {_EXTRA + key: values for key, values in rows.extra.items()}
    if rows.task is not None:
        columns["task"] = np.array(rows.task)
    # Into memory first, so that the file takes its name in one step.
    stream = io.BytesIO()
    np.savez(stream, **columns)
    return stream.getvalue()


def load_rows(folder: Path, index: int) -> StagedEpisode:
    """Load the rows of episode `index` that `write_episode` wrote."""
    with np.load(rows_path(folder, index), allow_pickle=False) as archive:
        names = archive.files
        return StagedEpisode(
            archive["actions"],
            archive["states"],
            {n.removeprefix(_EXTRA): archive[n] for n in names if n.startswith(_EXTRA)},
            str(archive["task"]) if "task" in names else None,
            archive["histogram"],
        )


@contextlib.contextmanager
def hold(staging: Path, plan: str, *, resume: bool) -> Iterator[Path]:
    """Make or reopen `staging` for the recording that `plan` describes, under a lock.

    Args:
        staging: see `staging_of`.
        plan: text that determines the recording; it must be equal to resume.
        resume: continue an interrupted recording.

    Raises:
        StorageError: there is an interrupted recording and `resume` is off, or another process
            is at it.
        UsageError: there is nothing to resume, or it was recorded with another plan.
    """
    if resume and not (staging / PLAN).exists():
        raise UsageError(f"nothing to resume: there is no {staging / PLAN}; run without --resume")
    if not resume and staging.exists():
        raise StorageError(
            f"an interrupted recording is in {staging}; "
            "add --resume to continue it, or remove that folder to start again"
        )
    if not resume:
        atomic.write_file(staging / PLAN, plan.encode())
    with locked(staging):
        if (staging / PLAN).read_text(encoding="utf-8") != plan:
            raise UsageError(
                f"{staging / PLAN} was recorded with other settings; "
                "resume with the same ones, or remove that folder to start again"
            )
        yield staging


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a staging folder, against two recordings of one target.

    Raises:
        StorageError: another process holds it.
    """
    # The kernel releases this lock when the process ends, however it ends.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as problem:
        raise StorageError(
            f"another process is recording into {folder}; wait for it or choose another target"
        ) from problem
    finally:
        os.close(descriptor)
