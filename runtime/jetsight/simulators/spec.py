"""Requirements on an environment, what it declares, and what it delivers in one tick.

Shapes: C cameras, h, w frame size, s state size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetsight.datasets.fit import rates_agree
from jetsight.errors import UsageError


@dataclass(frozen=True)
class EnvironmentSpec:
    """Environment to open, and the camera, names and rate to give it.

    Args:
        env_id: Gymnasium id, e.g. `"gym_pusht/PushT-v0"`; `module:id` or `file.py:id` imports one
            first.
        size_hw: height and width of a frame; pictures of another size are area-resampled to it.
        cameras: observations to take frames from, by dotted name (`"pixels.top"`), or `"render"`;
            empty for the only colour picture that is observed, else the render.
        action_names: of the action's dimensions; empty for those of the environment's metadata,
            else made-up ones.
        action_units: one per action name; empty for those of the metadata.
        keep: entries of `info` to keep, as `"info.hit"`; empty for those of the metadata.
        hz: ticks per second, compared with the metadata's `render_fps`; None for that rate.
        steps: longest episode in ticks, before which no time limit ends it; None for no limit.

    Raises:
        UsageError: the size, the rate or a name is unusable.
    """

    env_id: str
    size_hw: tuple[int, int]
    cameras: tuple[str, ...] = ()
    action_names: tuple[str, ...] = ()
    action_units: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    hz: float | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        if min(self.size_hw) < 1:
            raise UsageError(f"frame size (height, width) is {self.size_hw}, expected 1 or more")
        if self.hz is not None and not 0.01 <= self.hz <= 1000:
            raise UsageError(f"rate is {self.hz} Hz, expected 0.01 to 1000 ticks per second")
        for option in ("cameras", "keep"):
            values = getattr(self, option)
            if len(set(values)) != len(values):
                raise UsageError(f"{option} {list(values)} repeat themselves; give each once")


@dataclass(frozen=True)
class Observation:
    """Observation of one tick.

    Args:
        frame_hwc_u8: `uint8 [h,w,3]` RGB, or `[C,h,w,3]` with several cameras.
        state: `float32 [s]`, in the order of the environment's `state_names`.
        kept: entries of `info` that the spec keeps, by name; None where a reset leaves one out.
        raw: the environment's own observation.
        info: the environment's own `info`.
        simulator: the unwrapped Gymnasium environment, for a policy that reads what no sensor sees.
    """

    frame_hwc_u8: NDArray[np.uint8]
    state: NDArray[np.float32]
    kept: Mapping[str, bool | float | None] = field(default_factory=dict)
    raw: Any = None
    info: Mapping[str, Any] = field(default_factory=dict)
    simulator: Any = None


class EnvironmentMetadata:
    """The parts of an environment's `metadata` that are used, each checked when it is read.

    Messages begin with `it` or `its`: the reader puts the environment's id in front.

    Args:
        metadata: attribute of the environment; anything but a mapping counts as an empty one.
    """

    def __init__(self, metadata: Any) -> None:
        self._values = metadata if isinstance(metadata, Mapping) else {}

    def rate(self, wanted_hz: float | None) -> tuple[float, list[str]]:
        """Agree on the rate; returns it, and a note if the environment declares none.

        Raises:
            UsageError: there is none, it is unusable, or it differs from `wanted_hz`.
        """
        declared = self._values.get("render_fps")
        if declared is None and wanted_hz is None:
            raise UsageError(
                "it has no known frame rate (render_fps of its metadata); give it with --fps"
            )
        if declared is None:
            assert wanted_hz is not None
            return wanted_hz, [
                f"declares no rate (render_fps of its metadata); taken as {wanted_hz:g} per second"
            ]
        if not _is_rate(declared):
            raise UsageError(
                f"its metadata has render_fps {declared!r}, expected 0.01 to 1000; correct it"
            )
        if wanted_hz is not None and not rates_agree(float(declared), wanted_hz):
            raise UsageError(
                f"it runs at {declared:g} steps per second (render_fps of its metadata), but "
                f"{wanted_hz:g} are wanted; leave --fps out, or use the environment that the model "
                "was trained in"
            )
        return float(declared), []

    def names(self, key: str, size: int | None = None) -> list[str]:
        """Read a list of texts; empty if there is none.

        Raises:
            UsageError: it is no list, or has not `size` entries.
        """
        values = self._values.get(key)
        if values is None:
            return []
        if not isinstance(values, (list, tuple)):
            raise UsageError(
                f"its metadata has {key} {values!r}, expected a list of texts; correct it"
            )
        found = [str(value) for value in values]
        if size is not None and len(found) != size:
            raise UsageError(
                f"its metadata has {len(found)} {key} ({', '.join(found)}), expected {size}; "
                "correct the environment"
            )
        return found


def _is_rate(value: Any) -> bool:
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    return number and math.isfinite(value) and 0.01 <= value <= 1000
