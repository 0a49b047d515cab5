"""Facts about recorded data, or about an environment, that a recipe is filled from.

Shapes: F ticks of all episodes, a action size, s state size.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jetsight.bundle.model_spec import is_camera
from jetsight.datasets.dataset import FeatureMap, RecordedDataset
from jetsight.datasets.fit import check_dataset_fits
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
        cameras: names of the cameras in use; empty for the only one.
        action_names: one per action dimension.
        action_units: one per dimension; empty where not declared.
        declared: smallest and largest action that the robot declares; None if it declares none.
        state_names: one per state dimension.
        state_units: one per dimension; empty where not declared.
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
    state_units: tuple[str, ...] = ()

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
        reason = dataset.missing.get("action", "the recording has none")
        raise DataError(f"{path}: no actions, and a world model learns what they do: {reason}")
    if names and len(names) != len(dataset.action_names):
        raise UsageError(
            f"--action-names has {len(names)} names, but the actions of {path} have "
            f"{len(dataset.action_names)} dimensions: {', '.join(dataset.action_names)}"
        )
    if names:
        check_dataset_fits(path, dataset.spec, replace(dataset.spec, action_names=tuple(names)))
    rows = [dataset.rows(i) for i in progress(range(len(dataset)), "read actions", "episode")]
    actions = np.concatenate([each.actions for each in rows])
    check_range(actions, dataset.action_names, path)
    labels = dataset.labels()
    return DataSurvey(
        source=f"--data {path}",
        name=path.resolve().name,
        hz=float(dataset.fps),
        camera_hw=(dataset.height, dataset.width),
        cameras=_camera_names(dataset),
        action_names=tuple(names or dataset.action_names),
        action_units=labels.action_units,
        declared=_declared(labels.action_limits),
        state_names=tuple(dataset.state_names),
        state_units=labels.state_units,
        actions=actions,
        states=np.concatenate([each.states for each in rows]),
        lengths=tuple(dataset.episode_lengths),
        notes=tuple(dataset.notes),
    )


def _camera_names(dataset: RecordedDataset) -> tuple[str, ...]:
    """Name the cameras in use where there are several: the ends of their features."""
    colour = [camera.key for camera in dataset.cameras if camera.kind == "colour"]
    if len(colour) < 2:
        return ()
    # The whole feature where another one ends like it.
    return tuple(
        end if sum(is_camera(end, other) for other in colour) == 1 else key
        for key, end in ((key, re.split(r"[./]", key)[-1]) for key in dataset.camera_keys)
    )


def _declared(limits: Sequence[tuple[float, float]]) -> tuple[FloatArray, FloatArray] | None:
    pairs = np.asarray(limits, np.float32).reshape(-1, 2)
    # An infinite limit declares nothing.
    if not len(pairs) or not np.isfinite(pairs).all() or not (pairs[:, 0] < pairs[:, 1]).all():
        return None
    return pairs[:, 0], pairs[:, 1]


def survey_environment(
    env_id: str, size_hw: tuple[int, int], features: FeatureMap, names: Sequence[str] = ()
) -> DataSurvey:
    """Open an environment, and take its rate, names and limits.

    Args:
        env_id: Gymnasium id.
        size_hw: height and width of a frame.
        features: cameras to see by, and the rate where the environment declares none.
        names: action names in place of the environment's; empty for these.

    Raises:
        UsageError: there is no such environment, or it has no pixels, rate or bounded actions.
    """
    from jetsight.simulators.environment import Environment
    from jetsight.simulators.spec import EnvironmentSpec

    spec = EnvironmentSpec(
        env_id, size_hw, features.cameras, action_names=tuple(names), hz=features.rate_hz, steps=2
    )
    environment = Environment.open(spec)
    try:
        environment.probe()
        low, high = environment.action_low, environment.action_high
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise UsageError(
                f"environment {env_id!r} has actions without limits; record it first, then: "
                "jetsight recipe new --data DIR"
            )
        cameras, states = tuple(environment.cameras), tuple(environment.state_names)
        return DataSurvey(
            source=f"--env {env_id}",
            name=re.split(r"[/:]", env_id)[-1],
            hz=float(environment.hz),
            camera_hw=size_hw,
            cameras=cameras if len(cameras) > 1 else (),
            action_names=tuple(environment.action_names),
            action_units=tuple(environment.action_units),
            declared=(low, high),
            state_names=states,
            actions=np.zeros((0, len(low)), np.float32),
            states=np.zeros((0, len(states)), np.float32),
            lengths=(),
            notes=tuple(environment.notes),
            state_units=tuple(environment.state_units),
        )
    finally:
        environment.close()
