"""Facts about recorded data, or about an environment, that a recipe is filled from.

Shapes: F ticks of all episodes, a action size, s state size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jetsight.datasets.dataset import FeatureMap
from jetsight.datasets.open import open_dataset
from jetsight.errors import DataError, UsageError
from jetsight.progress import progress
from jetsight_train.data.columns import FloatArray
from jetsight_train.data.normaliser import check_range


@dataclass(frozen=True)
class DataSurvey:
    """Facts that a recipe is filled from; without recorded data the arrays have no rows.

    Attributes:
        source: option that names the data, e.g. `"--data DIR"`.
        name: of the dataset or environment.
        hz: frames per second.
        camera_hw: frame size, px.
        cameras: features the frames are of; empty for the only one.
        action_names: one per action dimension.
        action_units: one per dimension; empty where not declared.
        declared: smallest and largest action that the robot declares; None if it declares none.
        state_names: one per state dimension.
        actions: `[F, a]`.
        states: `[F, s]`.
        lengths: frames of each episode.
        notes: lines about the data that the user must see.
    """

    source: str
    name: str
    hz: float
    camera_hw: tuple[int, int]
    cameras: tuple[str, ...]
    action_names: tuple[str, ...]
    action_units: tuple[str, ...]
    declared: tuple[FloatArray, FloatArray] | None
    state_names: tuple[str, ...]
    actions: FloatArray
    states: FloatArray
    lengths: tuple[int, ...]
    notes: tuple[str, ...] = ()

    @property
    def is_recorded(self) -> bool:
        """There are recorded actions."""
        return len(self.actions) > 0

    @property
    def steps(self) -> FloatArray:
        """Changes of the action from one tick to the next, within episodes: `[F - episodes, a]`."""
        borders = np.cumsum(self.lengths)[:-1]
        return np.concatenate([np.diff(part, axis=0) for part in np.split(self.actions, borders)])


def survey_dataset(path: Path, features: FeatureMap, names: Sequence[str] = ()) -> DataSurvey:
    """Read everything but the frames of a dataset.

    Args:
        path: of the dataset.
        features: which of its features are actions, states and frames.
        names: action names in place of the dataset's; empty for these.

    Raises:
        DataError: it is unreadable, has no actions or episodes, or numbers out of range.
        UsageError: a feature does not exist, or `names` are of another number.
    """
    dataset = open_dataset(path, features)
    if not len(dataset):
        raise DataError(f"{path}: the dataset holds no episode; expected at least one")
    if not dataset.action_names:
        raise DataError(
            f"{path}: no actions were found, and a world model learns what actions do; name their "
            "feature with --map action=FEATURE, or record them"
        )
    if names and len(names) != len(dataset.action_names):
        raise UsageError(
            f"--names has {len(names)} names, but the actions of {path} have "
            f"{len(dataset.action_names)} dimensions: {', '.join(dataset.action_names)}"
        )
    rows = [dataset.rows(i) for i in progress(range(len(dataset)), "read actions", "episode")]
    actions = np.concatenate([each.actions for each in rows])
    check_range(actions, dataset.action_names, path)
    return DataSurvey(
        source=f"--data {path}",
        name=path.resolve().name,
        hz=float(dataset.fps),
        camera_hw=(dataset.height, dataset.width),
        cameras=tuple(dataset.camera_keys) if len(dataset.camera_keys) > 1 else (),
        action_names=tuple(names or dataset.action_names),
        action_units=(),
        declared=None,
        state_names=tuple(dataset.state_names),
        actions=actions,
        states=np.concatenate([each.states for each in rows]),
        lengths=tuple(dataset.episode_lengths),
        notes=tuple(dataset.notes),
    )


def survey_environment(
    env_id: str, size_hw: tuple[int, int], names: Sequence[str] = ()
) -> DataSurvey:
    """Open an environment, and take its rate, names and limits.

    Raises:
        UsageError: there is no such environment, it has no pixels, rate or bounded actions.
    """
    from jetsight_train.record.environments import open_environment

    environment = open_environment(env_id, size_hw, 1)
    try:
        low, high = environment.action_low, environment.action_high
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise UsageError(
                f"environment {env_id!r} has actions without limits; record it first, then: "
                "jetsight recipe new --data DIR"
            )
        if environment.fps is None:
            raise UsageError(
                f"environment {env_id!r} has no known frame rate; record it with `jetsight collect "
                "--fps HZ`, then: jetsight recipe new --data DIR"
            )
        return DataSurvey(
            source=f"--env {env_id}",
            name=env_id.rpartition("/")[2],
            hz=float(environment.fps),
            camera_hw=size_hw,
            cameras=(),
            action_names=tuple(names or environment.action_names),
            action_units=tuple(getattr(environment, "action_units", ())),
            declared=(low, high),
            state_names=tuple(environment.state_names),
            actions=np.zeros((0, len(low)), np.float32),
            states=np.zeros((0, len(environment.state_names)), np.float32),
            lengths=(),
        )
    finally:
        environment.close()
