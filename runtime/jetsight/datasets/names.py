"""Names of the dimensions of recorded actions and states, and lists of episodes in messages."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

ACTION_KEY = "action"


def unnamed(key: str, size: int) -> list[str]:
    """Make names for the dimensions of a feature without names."""
    return [f"{key}_{i}" for i in range(size)]


def flat_names(names: Any) -> list[str]:
    """Flatten names as converters write them; empty without any.

    Args:
        names: a list, nested lists, a mapping of each name to its place such as `{"x": 0, "y": 1}`,
            or of groups to lists such as `{"motors": ["x", "y"]}`.
    """
    if isinstance(names, list):
        return [name for part in names for name in flat_names(part)]
    if isinstance(names, dict):
        if all(type(place) is int for place in names.values()):
            return [str(name) for name in sorted(names, key=lambda name: names[name])]
        return [name for part in names.values() for name in flat_names(part)]
    return [] if names is None else [str(names)]


def ranges(numbers: Sequence[int]) -> str:
    """Format ascending numbers shortly.

    Example:
        >>> ranges([0, 1, 2, 5, 7, 8])
        '0..2, 5, 7..8'
    """
    parts = []
    # Neighbours differ from their place in the list by the same number.
    for _, group in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        parts.append(str(run[0]) if len(run) == 1 else f"{run[0]}..{run[-1]}")
    return ", ".join(parts)
