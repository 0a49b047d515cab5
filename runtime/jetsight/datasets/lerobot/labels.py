"""Labels of a LeRobot dataset: tasks of its episodes, and units and limits where they are noted.

LeRobot itself notes no units or limits; recordings of jetsight do, as `units` and `limits` of a
feature.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jetsight.datasets.features import VectorChoice
from jetsight.datasets.labels import RecordingLabels
from jetsight.datasets.lerobot.info import EPISODES_V2, EPISODES_V3, Info, Layout
from jetsight.datasets.lerobot.parquet import read_table
from jetsight.errors import DataError
from jetsight.storage import strict_json

# Columns that LeRobot keeps for itself.
_OWN = {"timestamp", "frame_index", "episode_index", "index", "task_index"}


@dataclass(frozen=True)
class _TaskLine:
    """One line of `meta/episodes.jsonl`."""

    episode_index: int
    tasks: Any = ()


def read_labels(
    folder: Path,
    info: Info,
    layout: Layout,
    choices: tuple[VectorChoice, VectorChoice],
    numbers: Sequence[int],
) -> RecordingLabels:
    """Read the labels of the chosen actions and states, and of the episodes `numbers`.

    Raises:
        DataError: a file of `meta/` is damaged.
    """
    actions, states = choices
    read = _tasks_v2 if layout == "v2" else _tasks_v3
    tasks = read(folder)
    listed = tuple(tasks.get(number, "") for number in numbers)
    used = {*actions.keys, *states.keys, *_OWN}
    columns = tuple(
        key
        for key, feature in info.features.items()
        if key not in used and isinstance(feature, dict) and _is_number(feature)
    )
    return RecordingLabels(
        action_units=_units(info, actions),
        state_units=_units(info, states),
        action_limits=_limits(info, actions),
        tasks=listed if any(listed) else (),
        columns=columns,
    )


def _is_number(feature: Mapping[str, Any]) -> bool:
    numeric = str(feature.get("dtype")).startswith(("float", "int", "uint", "bool"))
    return numeric and feature.get("shape") in ([1], [])


def _noted(info: Info, choice: VectorChoice, note: str) -> list[Any]:
    """Join a note of all features of a choice; empty unless there is one entry per dimension."""
    joined: list[Any] = []
    for key in choice.keys:
        entries = (info.features.get(key) or {}).get(note)
        joined += entries if isinstance(entries, list) else []
    return joined if len(joined) == len(choice.names) else []


def _units(info: Info, choice: VectorChoice) -> tuple[str, ...]:
    return tuple(str(unit) for unit in _noted(info, choice, "units"))


def _limits(info: Info, choice: VectorChoice) -> tuple[tuple[float, float], ...]:
    pairs = _noted(info, choice, "limits")
    if not all(_is_pair(pair) for pair in pairs):
        return ()
    return tuple((float(low), float(high)) for low, high in pairs)


def _is_pair(pair: object) -> bool:
    return (
        isinstance(pair, list)
        and len(pair) == 2
        and all(type(end) in (int, float) and math.isfinite(end) for end in pair)
        and pair[0] < pair[1]
    )


def _tasks_v2(folder: Path) -> dict[int, str]:
    path = folder / EPISODES_V2
    try:
        lines = [line for line in path.read_bytes().splitlines() if line.strip()]
    except OSError as problem:
        raise DataError(f"cannot read {path} ({problem.strerror}); copy it again") from problem
    found = {}
    for number, line in enumerate(lines, start=1):
        what = f"{path} line {number}"
        entry = strict_json.parse(line, _TaskLine, what, error=DataError, allow_unknown=True)
        found[entry.episode_index] = _first(entry.tasks)
    return found


def _tasks_v3(folder: Path) -> dict[int, str]:
    found = {}
    for file in sorted((folder / EPISODES_V3).glob("**/*.parquet")):
        for row in read_table(file, ["episode_index"], ["tasks"]).to_pylist():
            found[int(row["episode_index"])] = _first(row.get("tasks"))
    return found


def _first(tasks: object) -> str:
    if isinstance(tasks, str):
        return tasks
    return str(tasks[0]) if isinstance(tasks, list) and tasks else ""
