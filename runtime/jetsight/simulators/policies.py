"""Policies that drive a simulated robot: a function or class of the user, or held random actions.

Shapes: n steps; a size of one action.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetsight.errors import DataError, JetsightError, UsageError, first_line
from jetsight.simulators.environment import Environment
from jetsight.simulators.registry import load_module
from jetsight.simulators.spec import Observation

_UNBOUNDED = 1e30
_FORM = "MODULE:FUNCTION or FILE.py:FUNCTION"


class UserPolicy:
    """Policy of the user for one episode, whose every action is checked.

    `FUNCTION(observation, rng) -> action` is called once per tick with an `Observation` and a
    `numpy.random.Generator`; a class is instantiated without arguments for each episode and its
    instance is called the same way, so that it can remember.

    Args:
        text: `module:function`, `path/to/file.py:function`, or a class in its place.
        environment: open; its bounds are those of the actions.
        rng: generator of all random choices.

    Raises:
        UsageError: there is no such function, or it cannot be called.
    """

    def __init__(self, text: str, environment: Environment, rng: np.random.Generator) -> None:
        self._text, self._environment, self._rng = text, environment, rng
        found = _find(text)
        with _reported(text, UsageError):
            self._policy: Callable[..., Any] = found() if isinstance(found, type) else found
        if not callable(self._policy):
            raise UsageError(f"policy {text!r} is {self._policy!r}, expected a function; {_FORM}")

    def __call__(self) -> NDArray[np.float32]:
        """Choose the action `[a]` for the environment's newest observation.

        Raises:
            DataError: the policy failed, or its action is unusable.
        """
        observation: Observation = self._environment.observation
        with _reported(self._text, DataError):
            action = self._policy(observation, self._rng)
            return self._environment.check_action(action)


@contextlib.contextmanager
def _reported(text: str, kind: type[JetsightError]) -> Iterator[None]:
    """Report any exception of a policy as one line of the class `kind`."""
    try:
        yield
    except DataError as problem:
        raise kind(f"policy {text!r}: {problem}; correct it") from problem
    except JetsightError:
        raise
    except Exception as problem:  # a policy is foreign code and may raise anything
        why = f"{type(problem).__name__}: {first_line(problem)}"
        raise kind(
            f"policy {text!r} failed ({why}); it is called as function(observation, rng) and "
            "returns an action"
        ) from problem


def _find(text: str) -> Any:
    module, mark, name = text.rpartition(":")
    if not mark or not module or not name:
        raise UsageError(f"policy {text!r} is not usable; expected {_FORM}")
    found: Any = load_module(module, f"policy {text!r}")
    for part in name.split("."):
        if not hasattr(found, part):
            raise UsageError(f"policy {text!r}: {module} has no {name!r}; expected {_FORM}")
        found = getattr(found, part)
    return found


class HeldRandom:
    """Random actions inside the bounds, each held for one block, known n steps ahead.

    Args:
        low: `[a]` smallest action; an unbounded side counts as -1.
        high: `[a]` largest action; an unbounded side counts as 1.
        hold: steps one action is held.
        seed: of the draw.
    """

    def __init__(
        self, low: NDArray[np.float32], high: NDArray[np.float32], hold: int, seed: int
    ) -> None:
        self._low, self._high = bounded(low, high)
        self._hold = hold
        self._rng = np.random.default_rng(seed)
        self._queue = np.zeros((0, len(low)), np.float32)

    def __call__(self, environment: Any, n: int) -> NDArray[np.float32]:
        """Plan the next `n` actions; every call advances by one step."""
        self._queue = self._queue[1:]
        while len(self._queue) < n:
            drawn = self._rng.uniform(self._low, self._high).astype(np.float32)
            self._queue = np.concatenate([self._queue, np.tile(drawn, (self._hold, 1))])
        return self._queue[:n]


def bounded(
    low: NDArray[np.float32], high: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Replace an unbounded side by -1 or 1, or by 1 beyond the other side.

    A draw needs finite bounds; float32's own largest numbers stand for none.
    """
    low = np.where(np.abs(low) < _UNBOUNDED, low, np.minimum(-1.0, high - 1.0))
    return low, np.where(np.abs(high) < _UNBOUNDED, high, np.maximum(1.0, low + 1.0))
