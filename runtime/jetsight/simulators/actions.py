"""Actions of an environment as one vector: names, units, bounds, and the way back to its space.

Shapes: a size of one action.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetsight.bundle.model_spec import labels
from jetsight.errors import ArtefactError, DataError, UsageError
from jetsight.simulators.observations import is_kind

ROOT = "action"  # name of the actions of a space that is no dictionary
_MARGIN = 1e-5  # of the range: rounding to float32 may leave the bounds by so much


class ActionVector:
    """The vector `float32 [a]` that stands for an action of a space.

    A box of any rank is read row by row, a dictionary or tuple of boxes part by part.

    Args:
        space: Gymnasium space of the actions.
        names: of the dimensions; empty to make them from the space.
        units: one per name, or empty.
        flat: `(space, vector) -> action`, Gymnasium's `unflatten`.

    Attributes:
        low, high: `[a]` bounds; infinite where there are none.
        named: the names are given and not made up.

    Raises:
        UsageError: an action is a choice and not a number, or there is another number of names.
    """

    def __init__(
        self,
        space: Any,
        names: Sequence[str],
        units: Sequence[str],
        flat: Callable[[Any, NDArray[Any]], Any],
    ) -> None:
        boxes = list(_boxes(space, (), space))
        self._space, self._flat = space, flat
        self.low, self.high = (
            np.concatenate([np.ravel(getattr(box, side)) for _, box in boxes]).astype(np.float32)
            for side in ("low", "high")
        )
        if not len(self.low) or not (self.low <= self.high).all():
            raise UsageError(
                f"its actions have the bounds {self.low.tolist()} to {self.high.tolist()}, expected"
                " at least one dimension with low <= high; correct the environment"
            )
        self.named = bool(names)
        made = [name for path, box in boxes for name in _names(path, box)]
        self.names, self.units = _checked(names or made, units, len(made))

    def to_space(self, action: NDArray[Any]) -> Any:
        """Convert `action [a]` to an action of the space.

        Raises:
            DataError: it has another size, is not finite, or leaves the bounds.
        """
        values = self.check(action)
        if hasattr(self._space, "spaces"):
            return self._flat(self._space, values)
        return values.reshape(self._space.shape).astype(self._space.dtype)

    def check(self, action: Any) -> NDArray[np.float32]:
        """Return `action` as `float32 [a]` inside the bounds.

        Raises:
            DataError: it has another size, is not finite, or leaves the bounds by more than
                rounding.
        """
        try:
            values = np.asarray(action, np.float32)
        except (TypeError, ValueError):
            values = np.zeros((0, 0), np.float32)
        if values.shape != self.low.shape:
            raise DataError(
                f"action is {str(action)[:80]}, expected {len(self.low)} numbers: "
                f"{', '.join(self.names)}"
            )
        inside = np.clip(values, self.low, self.high)
        gap = np.abs(values - inside)
        span = np.where(np.isfinite(self.high - self.low), self.high - self.low, 1.0)
        bad = ~(gap <= _MARGIN * np.maximum(span, 1e-6))  # this way round NaN is bad too
        if bad.any() or not np.isfinite(values).all():
            i = int(np.argmax(bad | ~np.isfinite(values)))
            raise DataError(
                f"action {self.names[i]!r} is {values[i]:g}, expected {self.low[i]:g} to "
                f"{self.high[i]:g}"
            )
        return inside

    @property
    def neutral(self) -> NDArray[np.float32]:
        """Zero, or the bound nearest to it."""
        return np.clip(np.zeros_like(self.low), self.low, self.high)


def _boxes(space: Any, path: tuple[Any, ...], whole: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    inner = getattr(space, "spaces", None)
    if inner is not None:
        for key, value in inner.items() if hasattr(inner, "items") else enumerate(inner):
            yield from _boxes(value, (*path, key), whole)
        return
    if not is_kind(space, "Box") or np.dtype(space.dtype).kind != "f":
        part = f"its part {'.'.join(map(str, path))!r} is {space}" if path else "they are choices"
        text = " ".join(str(whole).split())
        raise UsageError(
            f"it takes actions {text[:200]}: {part}, and only continuous numbers can be planned; "
            "use an environment with a Box of floats, or wrap it in a gymnasium.ActionWrapper"
        )
    yield path, space


def _names(path: tuple[Any, ...], box: Any) -> list[str]:
    """Make names such as `action_0`, `arm_2`, `left.gripper_0` or `action_1_2` of a matrix."""
    keys = path if path and isinstance(path[0], str) else (ROOT, *path)
    name = ".".join(str(key) for key in keys)
    places = itertools.product(*(range(n) for n in box.shape))
    return ["_".join([name, *map(str, place)]) for place in places]


def _checked(names: Sequence[str], units: Sequence[str], size: int) -> tuple[list[str], list[str]]:
    for kind, values in (("names", names), ("units", units)):
        if len(values) != size and (values or kind == "names"):
            raise UsageError(
                f"it has {size} action dimensions, but {len(values)} {kind} are given "
                f"({', '.join(map(str, values))}); give one for each with --action-names or --units"
            )
    try:
        labels("action names", names)
    except ArtefactError as problem:
        raise UsageError(f"{problem}; give others with --action-names") from None
    return list(names), list(units)
