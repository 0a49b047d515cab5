"""Where a plan shall lead, and within which limits: what the user says, checked once.

Shapes: h x w camera frame, D latent size, a size of one robot action, P probe quantities.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Union

import numpy as np

from jetsight.bundle.planner_spec import HeadFacts
from jetsight.bundle.runtime_spec import PlanSpec
from jetsight.engine import NDArray
from jetsight.errors import UsageError

GoalLike = Union["Goal", NDArray, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Goal:
    """What the end of a plan shall look like; make one with `image`, `latent` or `probe`.

    An image or a latent is compared in the latent space; targets are values that the probe shall
    read there. Both may be given.

    Args:
        image_hwc_u8: `uint8 [h, w, 3]` camera frame of the goal, RGB.
        z: `float32 [D]` its latent, where that is known already.
        targets: value by quantity; an angle in radians stands for its cosine and sine.

    Example:
        >>> session.imagine(Goal.probe(block_x=300.0, block_angle=math.pi / 4))
    """

    image_hwc_u8: NDArray | None = None
    z: NDArray | None = None
    targets: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def image(cls, frame_hwc_u8: NDArray, **targets: float) -> Goal:
        """The world shall look like a camera frame `uint8 [h, w, 3]`."""
        return cls(image_hwc_u8=frame_hwc_u8, targets=targets)

    @classmethod
    def latent(cls, z: NDArray, **targets: float) -> Goal:
        """The world shall have the latent `float32 [D]`."""
        return cls(z=np.asarray(z), targets=targets)

    @classmethod
    def probe(cls, targets: Mapping[str, float] | None = None, **more: float) -> Goal:
        """Quantities shall have these values; names with blanks come in a mapping."""
        return cls(targets={**(targets or {}), **more})

    @classmethod
    def of(cls, value: GoalLike) -> Goal:
        """A goal, an image, a latent or target values as a goal.

        Raises:
            UsageError: it is none of them.
        """
        if isinstance(value, Goal):
            return value
        if isinstance(value, Mapping):
            return cls.probe(value)
        if isinstance(value, np.ndarray) and value.ndim == 3:
            return cls.image(value)
        if isinstance(value, np.ndarray) and value.ndim == 1:
            return cls.latent(value)
        found = f"an array {list(value.shape)}" if isinstance(value, np.ndarray) else type(value)
        raise UsageError(
            f"the goal is {found}; expected an image uint8 [h, w, 3], a latent float32 [D], or "
            "target values by quantity"
        )

    def check(self, spec: PlanSpec) -> None:
        """Raise `UsageError` unless it fits the model; whether its numbers are finite is no matter.

        A goal that is not finite belongs to the world, not to the program: no plan comes of it.
        """
        stream = spec.stream
        if self.image_hwc_u8 is None and self.z is None and not self.targets:
            raise UsageError("the goal is empty; give an image, a latent or target values")
        if self.image_hwc_u8 is not None and self.z is not None:
            raise UsageError("the goal has both an image and a latent; give one of them")
        if self.image_hwc_u8 is not None:
            image, wanted = self.image_hwc_u8, (stream.height_px, stream.width_px, 3)
            if image.shape != wanted or image.dtype != np.uint8:
                raise UsageError(
                    f"the goal image is {image.dtype} {list(image.shape)}, but the model takes "
                    f"uint8 {list(wanted)}; take it with the same camera, or crop and resize it"
                )
        if self.z is not None and self.z.shape != (stream.latent_size,):
            raise UsageError(
                f"the goal latent has the shape {list(self.z.shape)}, but the model's latents have "
                f"{[stream.latent_size]}"
            )

    def fill_targets(self, heads: HeadFacts, target: NDArray, given: NDArray) -> None:
        """Write target values into `target [P]` and 1 into `given [P]` where there is one.

        Raises:
            UsageError: a quantity the model's probe does not read, or given twice.
        """
        target.fill(0.0)
        given.fill(0.0)
        for name, value in self.targets.items():
            for quantity, number in _read_as(name, value, heads.quantities):
                i = heads.quantities.index(quantity)
                if given[i]:
                    raise UsageError(f"the goal gives {quantity!r} twice")
                target[i], given[i] = number, 1.0


def _read_as(name: str, value: float, known: Sequence[str]) -> list[tuple[str, float]]:
    """The quantities behind a name: itself, or cosine and sine of an angle."""
    if name in known:
        return [(name, float(value))]
    cosine, sine = f"cos {name}", f"sin {name}"
    if cosine in known and sine in known:
        finite = math.isfinite(value)
        return [
            (cosine, math.cos(value) if finite else math.nan),
            (sine, math.sin(value) if finite else math.nan),
        ]
    raise unknown("quantity", name, [*known, *(n[4:] for n in known if n.startswith("cos "))])


@dataclass(frozen=True, slots=True)
class Limits:
    """Tighter limits than the robot's own, for one plan; None leaves the robot's.

    Args:
        low: `[a]` smallest action, in robot units.
        high: `[a]` largest action.
        rate_per_s: `[a]` largest change per second.

    Raises:
        UsageError: numbers that are not finite.
    """

    low: Sequence[float] | NDArray | None = None
    high: Sequence[float] | NDArray | None = None
    rate_per_s: Sequence[float] | NDArray | None = None

    def __post_init__(self) -> None:
        for name in ("low", "high", "rate_per_s"):
            given = getattr(self, name)
            if given is not None and not np.isfinite(np.asarray(given, np.float64)).all():
                raise UsageError(f"limits: {name} is {list(given)}, expected finite numbers")

    def fill(self, spec: PlanSpec, low: NDArray, high: NDArray, rate: NDArray) -> None:
        """Write bounds and change per tick into `low`, `high`, `rate`, each `[a]`.

        Raises:
            UsageError: another number of values, inverted, or wider than the robot's own.
        """
        size = len(spec.names)
        low[:] = spec.low if self.low is None else _sized("low", self.low, size)
        high[:] = spec.high if self.high is None else _sized("high", self.high, size)
        rate[:] = NO_LIMIT if spec.rate_per_tick is None else spec.rate_per_tick
        if self.rate_per_s is not None:
            tighter = _sized("rate_per_s", self.rate_per_s, size)
            own, rate[:] = rate.copy(), tighter / np.float32(spec.stream.camera_hz)
            _refuse(spec, rate <= 0, "rate_per_s", tighter, "must be above 0")
            _refuse(spec, rate > own * 1.00001, "rate_per_s", tighter, "is above the robot's own")
        _refuse(spec, low > high, "low", low, "is above high")
        _refuse(spec, low < spec.low, "low", low, "is below the robot's own")
        _refuse(spec, high > spec.high, "high", high, "is above the robot's own")


NO_LIMIT = 1e9  # what the graphs take for none


def arrival(horizon: int, block: int, ticks: int | None = None) -> NDArray:
    """How much each step of a plan counts for the goal, `[H]`: those at its end, equally.

    The first that counts is the last one that ends in time. One that ends later would put off the
    goal by what is missing to a whole step, and again with the next plan.

    Args:
        horizon: H.
        block: ticks of a step.
        ticks: until the goal is due, and kept from then on; None, or more, for the last step alone.

    Raises:
        UsageError: `ticks` is no whole number from 1.
    """
    if ticks is None:
        ticks = horizon * block
    if not isinstance(ticks, (int, np.integer)) or ticks < 1:
        raise UsageError(f"arrive_ticks is {ticks!r}, expected an integer from 1")
    first = min(max(int(ticks) // block, 1), horizon) - 1
    when: NDArray = np.zeros(horizon, np.float32)
    when[first:] = 1.0 / (horizon - first)
    return when


def _sized(name: str, values: Sequence[float] | NDArray, size: int) -> NDArray:
    array: NDArray = np.asarray(values, np.float32)
    if array.shape != (size,):
        raise UsageError(f"limits: {name} has the shape {list(array.shape)}, expected {[size]}")
    return array


def _refuse(spec: PlanSpec, wrong: NDArray, key: str, values: NDArray, why: str) -> None:
    for name, is_wrong, value in zip(spec.names, wrong, values, strict=True):
        if is_wrong:
            raise UsageError(f"limits: {key} of {name!r} is {value:g}, which {why}")


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The line for a name that does not exist, with the nearest one that does."""
    names = list(known)
    near = difflib.get_close_matches(str(name)[:100], names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names) or 'none'}"
    return UsageError(f"there is no {kind} {str(name)[:100]!r}; {hint}")
