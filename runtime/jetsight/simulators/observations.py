"""Parts of an observation by dotted name, the state made of its numbers, and kept `info`.

Shapes: s state size.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetsight.errors import DataError, UsageError, did_you_mean

ROOT = "observation"  # name of an observation that is no dictionary
_INDEXED = re.compile(r"(.+)\[(-?\d+)\]")
_COUNTED = ("Discrete", "MultiDiscrete", "MultiBinary")


@dataclass(frozen=True)
class ObservationPart:
    """One array of an observation.

    Args:
        name: keys joined by dots, e.g. `"pixels.top"`.
        path: keys and indices that lead to it.
        space: Gymnasium space of its values.
    """

    name: str
    path: tuple[Any, ...]
    space: Any

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Shape of its arrays; None for a space without numbers, such as text."""
        shape = getattr(self.space, "shape", None)
        numeric = is_kind(self.space, "Box", *_COUNTED) or isinstance(self.space, SimpleNamespace)
        return tuple(shape) if numeric and shape is not None else None

    def of(self, observation: Any) -> Any:
        """Take its value out of an observation.

        Raises:
            DataError: the observation lacks it.
        """
        value = observation
        for step in self.path:
            try:
                value = value[step]
            except (KeyError, IndexError, TypeError):
                raise DataError(
                    f"the observation has no {self.name!r}, which its space declares; correct "
                    "the environment"
                ) from None
        return value


def is_kind(space: Any, *names: str) -> bool:
    """Return whether a space is of one of these classes of Gymnasium, or derived from one."""
    # By name, because this package must import without gymnasium.
    return any(base.__name__ in names for base in type(space).__mro__)


def parts_of(space: Any) -> list[ObservationPart]:
    """List the arrays of an observation space by name, in the order of names."""
    return sorted(_parts(space, ()), key=lambda part: part.name)


def _parts(space: Any, path: tuple[Any, ...]) -> Iterator[ObservationPart]:
    inner = getattr(space, "spaces", None)
    if inner is None:
        named = isinstance(path[0], str) if path else False
        keys = path if named else (ROOT, *path)
        yield ObservationPart(".".join(str(key) for key in keys), path, space)
        return
    for key, value in inner.items() if hasattr(inner, "items") else enumerate(inner):
        yield from _parts(value, (*path, key))


def find_part(name: str, parts: Sequence[ObservationPart]) -> ObservationPart | None:
    """Find a part by its name or the last words of it; `name[-1]` is one entry of its first axis.

    Returns:
        The part; None if no part, or more than one, has this name.
    """
    indexed = _INDEXED.fullmatch(name)
    base = indexed[1] if indexed else name
    exact = [part for part in parts if part.name == base]
    found = exact or [part for part in parts if part.name.endswith(f".{base}")]
    if len(found) != 1:
        return None
    return _entry(found[0], int(indexed[2])) if indexed else found[0]


def _entry(part: ObservationPart, index: int) -> ObservationPart | None:
    shape = part.shape
    if not shape or not -shape[0] <= index < shape[0] or not is_kind(part.space, "Box"):
        return None
    box = part.space
    space = SimpleNamespace(
        shape=shape[1:], low=box.low[index], high=box.high[index], dtype=box.dtype
    )
    return ObservationPart(f"{part.name}[{index}]", (*part.path, index), space)


class StateReader:
    """The state vector of an observation: its numbers and vectors, in the order of their names.

    Args:
        parts: of the observation space.

    Attributes:
        names: one per dimension.
    """

    def __init__(self, parts: Sequence[ObservationPart]) -> None:
        self._parts = [part for part in parts if part.shape is not None and len(part.shape) < 2]
        self.names = [name for part in self._parts for name in _names(part)]

    def read(self, observation: Any) -> NDArray[np.float32]:
        """Read the state `float32 [s]`.

        Raises:
            DataError: a number is missing or not finite.
        """
        values = [self._values(part, observation) for part in self._parts]
        state = np.concatenate(values) if values else np.zeros(0, np.float32)
        if not np.isfinite(state).all():
            place = int(np.argmin(np.isfinite(state)))
            raise DataError(
                f"state {self.names[place]!r} is {state[place]}, expected finite numbers; correct "
                "the environment"
            )
        return state

    @staticmethod
    def _values(part: ObservationPart, observation: Any) -> NDArray[np.float32]:
        value, shape = part.of(observation), part.shape
        try:
            with np.errstate(over="ignore"):  # refused by the caller as infinity
                found = np.asarray(value, np.float32)
        except (TypeError, ValueError):
            found = np.zeros((0, 0), np.float32)
        if shape is None or found.size != math.prod(shape):
            raise DataError(
                f"{part.name!r} is {str(value)[:60]}, but its space declares shape "
                f"{list(shape or ())}; correct the environment"
            )
        return found.ravel()


def _names(part: ObservationPart) -> list[str]:
    # `state_0` for an observation that is one vector: its own name says no more.
    name = "state" if part.name == ROOT else part.name
    shape = part.shape
    return [name] if not shape else [f"{name}_{i}" for i in range(shape[0])]


class InfoReader:
    """Entries of `info` that are kept, each a truth value or a finite number.

    Args:
        names: of the entries, as `"info.hit"`.

    Raises:
        UsageError: a name has another form.
    """

    def __init__(self, names: Sequence[str]) -> None:
        for name in names:
            if not re.fullmatch(r"info(\.[^.\s]+)+", name):
                raise UsageError(
                    f"cannot keep {name!r}; expected an entry of info by name, for example "
                    "--keep info.hit"
                )
        self.names = tuple(names)

    def read(self, info: Mapping[str, Any], *, start: bool) -> dict[str, bool | float | None]:
        """Read the kept entries; of a reset that leaves one out, None.

        Raises:
            DataError: an entry is missing, or neither truth value nor finite number.
        """
        return {name: self._value(info, name, start) for name in self.names}

    def _value(self, info: Mapping[str, Any], name: str, start: bool) -> bool | float | None:
        value = _entry_of(info, name)
        if value is None and start:
            return None
        array = np.asarray(value)
        if value is None:
            there = [f"info.{key}" for key in info]
            raise DataError(
                f"info has no {name.removeprefix('info.')!r} to keep; "
                f"{did_you_mean(name, there, 'it has')}"
            )
        if array.size != 1 or array.dtype.kind not in "biuf" or not np.isfinite(array).all():
            raise DataError(
                f"{name} is {str(value)[:60]}, expected a truth value or one finite number; "
                "correct the environment"
            )
        return bool(array.item()) if array.dtype.kind == "b" else float(array.item())


def kept_column(name: str, values: Sequence[bool | float | None]) -> NDArray[Any]:
    """Make the column of one kept entry over an episode: `bool [T]` or `float32 [T]`.

    A truth value that a reset leaves out is False, as nothing has happened yet.

    Raises:
        DataError: a reset leaves out a number, or truth values and numbers are mixed.
    """
    given = [value for value in values if value is not None]
    truths = [isinstance(value, bool) for value in given]
    if any(truths) and not all(truths):
        raise DataError(f"{name} is now a truth value, now a number; correct the environment")
    if len(given) < len(values) and not any(truths):
        raise DataError(
            f"info of reset has no {name.removeprefix('info.')!r}, which info of step has, so the "
            "first row would be without it; return it from reset too"
        )
    if all(truths):
        return np.array([bool(value) for value in values])
    return np.array(values, np.float32)


def _entry_of(info: Any, name: str) -> Any:
    """Find an entry by its dotted name; None without it."""
    value = info
    for key in name.split(".")[1:]:
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return value
