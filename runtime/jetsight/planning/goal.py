"""Where a plan shall lead, and within which limits: what the user says, checked once.

Shapes: h x w camera frame, D latent size, a size of one robot action, P probe quantities.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Union

import numpy as np

from jetsight.bundle.planner_spec import HeadSpec
from jetsight.bundle.runtime_spec import PlanSpec
from jetsight.engine import NDArray
from jetsight.errors import UsageError, unknown

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

    def fill_targets(self, heads: HeadSpec, target: NDArray, given: NDArray) -> None:
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
