"""Surveys of made-up robots, for tests that fill recipes without a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jetsight_train.authoring.survey import DataSurvey

EPISODES, LENGTH = 12, 100


def survey(names: Sequence[str] = ("v", "w"), **changes: Any) -> DataSurvey:
    """Make a survey of a robot that moves smoothly within -1 to 1, at 20 Hz."""
    ticks = np.arange(EPISODES * LENGTH)[:, None] / 20
    phases = np.arange(len(names))
    actions = np.sin(0.7 * ticks + phases).astype(np.float32)
    facts: dict[str, Any] = {
        "source": "--data robot",
        "name": "robot",
        "hz": 20.0,
        "camera_hw": (96, 128),
        "cameras": (),
        "action_names": tuple(names),
        "action_units": (),
        "declared": None,
        "state_names": ("x", "heading"),
        "actions": actions,
        "states": np.zeros((len(actions), 2), np.float32),
        "lengths": (LENGTH,) * EPISODES,
    }
    return DataSurvey(**{**facts, **changes})
