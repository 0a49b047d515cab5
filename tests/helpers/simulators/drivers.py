"""Policies, right and wrong, for `--policy helpers.simulators.drivers:forward`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def forward(observation: Any, rng: np.random.Generator) -> Any:
    return [0.5, rng.uniform(-0.1, 0.1)]


class Remembers:
    """Turns a little more in every tick of its episode, and uses what the simulator knows."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, observation: Any, rng: np.random.Generator) -> Any:
        self.calls += 1
        assert observation.simulator.tick == self.calls - 1
        return np.array([0.0, self.calls / 100])


def too_many(observation: Any, rng: np.random.Generator) -> Any:
    return [0.0, 0.0, 0.0]


def too_far(observation: Any, rng: np.random.Generator) -> Any:
    return [0.0, 1.5]


def not_a_number(observation: Any, rng: np.random.Generator) -> Any:
    return [math.nan, 0.0]


def nan_later(observation: Any, rng: np.random.Generator) -> Any:
    return [0.0, math.nan if observation.simulator.tick == 4 else 0.0]


def wrong_signature(observation: Any) -> Any:
    return [0.0, 0.0]


A_NUMBER = 3
