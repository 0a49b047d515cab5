"""Live latent forecasts from a compiled world model: what a robot imports.

    from jetsight import Bundle, Camera, Session

    bundle = Bundle.open("pusht-nano.jetsight")
    for forecast in Session.open(bundle).stream(Camera.open("/dev/video0")):
        print(forecast.frame_index, forecast.surprise, forecast.z_future.shape)

Between two frames, `session.imagine(goal, deadline_ms=...)` plans: it imagines what many sequences
of actions would lead to, and returns the best as a `Plan`.

Names are imported when first used, so `import jetsight` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from jetsight.errors import (
    ArtefactError,
    BundleError,
    CameraError,
    CheckpointError,
    CollapseError,
    DataError,
    EngineError,
    GateError,
    JetsightError,
    MissingDependency,
    StorageError,
    UsageError,
)

if TYPE_CHECKING:
    from jetsight.bundle import Bundle
    from jetsight.cameras import Camera
    from jetsight.frames import Forecast, Frame
    from jetsight.goal import Goal, Limits
    from jetsight.lerobot import LeRobotDataset
    from jetsight.plan import Plan, PlanReason
    from jetsight.session import Session

__version__ = "0.1.0"

__all__ = [
    "ArtefactError",
    "Bundle",
    "BundleError",
    "Camera",
    "CameraError",
    "CheckpointError",
    "CollapseError",
    "DataError",
    "EngineError",
    "Forecast",
    "Frame",
    "GateError",
    "Goal",
    "JetsightError",
    "LeRobotDataset",
    "Limits",
    "MissingDependency",
    "Plan",
    "PlanReason",
    "Session",
    "StorageError",
    "UsageError",
    "__version__",
]

_HOME = {
    "Bundle": "jetsight.bundle",
    "Camera": "jetsight.cameras",
    "Forecast": "jetsight.frames",
    "Frame": "jetsight.frames",
    "Goal": "jetsight.goal",
    "LeRobotDataset": "jetsight.lerobot",
    "Limits": "jetsight.goal",
    "Plan": "jetsight.plan",
    "PlanReason": "jetsight.plan",
    "Session": "jetsight.session",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'jetsight' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
