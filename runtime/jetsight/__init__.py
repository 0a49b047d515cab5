"""Live latent forecasts from a compiled world model: the package a robot imports.

    from jetsight import Bundle, Camera, Session

    bundle = Bundle.open("pusht-nano.jetsight")
    for forecast in Session.open(bundle).stream(Camera.open("/dev/video0")):
        print(forecast.frame_index, forecast.surprise, forecast.z_future.shape)

Between two frames, `session.imagine(goal, deadline_ms=...)` predicts the outcome of many sequences
of actions and returns the best as a `Plan`.

Names are imported on first use, so that `import jetsight` stays fast.
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
from jetsight.version import __version__

if TYPE_CHECKING:
    from jetsight.bundle.bundle import Bundle
    from jetsight.cameras import Camera
    from jetsight.control.action import Action, ActionSource
    from jetsight.control.options import ControlOptions
    from jetsight.datasets.lerobot import LeRobotDataset
    from jetsight.planning.goal import Goal
    from jetsight.planning.limits import Limits
    from jetsight.planning.plan import Plan, PlanReason
    from jetsight.session import Session
    from jetsight.stream.frames import Forecast, Frame

__all__ = [
    "Action",
    "ActionSource",
    "ArtefactError",
    "Bundle",
    "BundleError",
    "Camera",
    "CameraError",
    "CheckpointError",
    "CollapseError",
    "ControlOptions",
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
    "Action": "jetsight.control.action",
    "ActionSource": "jetsight.control.action",
    "Bundle": "jetsight.bundle.bundle",
    "Camera": "jetsight.cameras",
    "ControlOptions": "jetsight.control.options",
    "Forecast": "jetsight.stream.frames",
    "Frame": "jetsight.stream.frames",
    "Goal": "jetsight.planning.goal",
    "LeRobotDataset": "jetsight.datasets.lerobot",
    "Limits": "jetsight.planning.limits",
    "Plan": "jetsight.planning.plan",
    "PlanReason": "jetsight.planning.plan",
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
