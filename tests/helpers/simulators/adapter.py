"""The adapter opened on an odd environment, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from helpers.simulators.base import H, W
from helpers.simulators.environments import odd
from jetsight.errors import UsageError
from jetsight.simulators.environment import Environment
from jetsight.simulators.spec import EnvironmentSpec, Observation


@contextmanager
def opened(name: str, **options: Any) -> Iterator[Environment]:
    options.setdefault("size_hw", (H, W))
    environment = Environment.open(EnvironmentSpec(odd(name), **options))
    try:
        yield environment
    finally:
        environment.close()


def refused(name: str, **options: Any) -> str:
    """Return the one line with which an environment is refused at the start."""
    with pytest.raises(UsageError) as caught, opened(name, **options) as environment:
        environment.probe()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def drive(environment: Environment, ticks: int) -> None:
    environment.reset(0)
    for _ in range(ticks):
        environment.step(np.zeros(2, np.float32))


def first(name: str, **options: Any) -> Observation:
    with opened(name, **options) as environment:
        environment.probe()
        return environment.reset(0)
