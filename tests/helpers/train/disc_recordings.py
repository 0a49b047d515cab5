"""Small recordings of a disc that follows its target, with a knob for every defect.

    target  [2]  action of a row: where the disc is sent, in m
    place   [2]  state of a row; the next one is half-way to the target

Row t holds picture and place t, and the target given then.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from jetsight_train.record import dataset, staging
from jetsight_train.record.description import DatasetDescription

HZ, TICKS, SIZE = 10, 80, 32
ROWS_FILE = "data/chunk-000/file-000.parquet"
TOP, WRIST = "observation.images.top", "observation.images.wrist"
ABOUT = DatasetDescription(
    task="follow the target",
    robot_type="disc",
    fps=HZ,
    size_hw=(SIZE, SIZE),
    state_names=["x", "y"],
    action_names=["target_x", "target_y"],
    state_units=["m", "m"],
    action_units=["m", "m"],
    action_limits=[(-1.5, 1.5), (-1.5, 1.5)],
    extra=(),
)


@dataclass(frozen=True)
class DiscEpisode:
    """One episode: `frames [T,h,w,3]` or `[T,C,h,w,3]`, `actions [T,2]`, `states [T,2]`."""

    frames: np.ndarray
    actions: np.ndarray
    states: np.ndarray
    extra: dict[str, np.ndarray]
    task: str | None = None

    def __len__(self) -> int:
        return len(self.actions)


def play(seed: int, ticks: int = TICKS) -> DiscEpisode:
    rng = np.random.default_rng(seed)
    place, target = rng.uniform(-0.8, 0.8, 2), np.zeros(2)
    targets, places = [], []
    for tick in range(ticks):
        # At no fixed interval, or its motion would look alike some ticks later.
        if tick == 0 or rng.random() < 0.25:
            target = rng.uniform(-1.0, 1.0, 2)
        # A hand that is never quite still, so that no two rows are the same.
        sent = target + rng.normal(0.0, 0.02, 2)
        targets.append(sent)
        places.append(place)
        place = place + 0.5 * (sent - place)
    states = np.array(places, dtype=np.float32)
    actions = np.array(targets, dtype=np.float32)
    return DiscEpisode(draw(states), actions, states, {})


def draw(places: np.ndarray, size: int = SIZE) -> np.ndarray:
    """Pictures `uint8 [T,h,w,3]` of a soft disc at `places`, on a textured ground."""
    rows, columns = np.mgrid[:size, :size] / (size - 1) * 3 - 1.5
    ground = 120 + 25 * np.sin(7 * rows) + 25 * np.cos(5 * columns)
    x, y = places.T[:, :, None, None]
    disc = np.exp(-(((columns - x) ** 2 + (rows - y) ** 2) / 0.12))
    grey = ground * (1 - disc)
    return np.stack([grey + 120 * disc, grey + 40 * disc, grey], axis=-1).round().astype(np.uint8)


def write(
    path: Path,
    episodes: Sequence[DiscEpisode] | int = 3,
    about: DatasetDescription = ABOUT,
) -> Path:
    """Write a dataset of these episodes, or of so many."""
    played = [play(seed) for seed in range(episodes)] if isinstance(episodes, int) else episodes
    with tempfile.TemporaryDirectory() as folder:
        for i, each in enumerate(played):
            rows = staging.EpisodeRows(each.actions, each.states, each.extra, each.task)
            staging.write_episode(Path(folder), i, rows, each.frames, about)
        path.mkdir(parents=True)
        dataset.assemble(path, Path(folder), range(len(played)), about)
    return path


def edited(change: Callable[[DiscEpisode], DiscEpisode], episodes: int = 3) -> list[DiscEpisode]:
    """Play episodes and change each."""
    return [change(play(seed)) for seed in range(episodes)]


def with_actions(change: Callable[[np.ndarray], np.ndarray]) -> list[DiscEpisode]:
    """Play episodes with other actions, computed from the right ones."""
    return edited(lambda e: replace(e, actions=change(e.actions).astype(np.float32)))


def with_frames(change: Callable[[np.ndarray], np.ndarray]) -> list[DiscEpisode]:
    """Play episodes with other frames, computed from the right ones."""
    return edited(lambda e: replace(e, frames=change(e.frames)))


def edit_rows(path: Path, key: str, change: Callable[[list[Any]], list[Any]]) -> Path:
    """Change one column of all rows of a dataset on disk."""
    file = path / ROWS_FILE
    table = pq.read_table(file)
    column = table.schema.get_field_index(key)
    values = change(table[key].to_pylist())
    field = table.schema.field(column)
    import pyarrow as pa

    pq.write_table(table.set_column(column, field, pa.array(values, field.type)), file)
    return path
