"""Declared facts of a recording that reading does not need: units, limits, tasks, other columns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RecordingLabels:
    """Facts that a dataset declares beside its names; each is empty where it declares none.

    Args:
        action_units: unit of each action dimension.
        state_units: unit of each state dimension.
        action_limits: smallest and largest action that the robot takes, by dimension.
        tasks: instruction of each episode.
        columns: further columns of one number per tick, for `RecordedDataset.columns`.
    """

    action_units: tuple[str, ...] = ()
    state_units: tuple[str, ...] = ()
    action_limits: tuple[tuple[float, float], ...] = ()
    tasks: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
