"""Fakes to test a robot with: a clock that is moved, cameras and engines that follow a script.

`FakeDevice` and `FakeTensorRt` stand in for a GPU, so that the TensorRT backend runs without one.
They are the ones jetsight's own tests use. Nothing here sleeps, and nothing needs a bundle.

Example: a camera that vanishes for a second must stop forecasts from being valid.
    >>> clock, spec = FakeClock(), tiny_spec()
    >>> backend = FakeBackend(spec)
    >>> session = Session(spec, backend.load(b"encode"), backend.load(b"forecast"), clock=clock)
    >>> camera = ScriptedCamera(spec, shots(30) + lost(10) + shots(30), clock)
    >>> modes = [str(forecast.mode) for forecast in session.stream(camera)]
    >>> "HOLD" in modes, modes[-1]
    (True, 'OK')
"""

from __future__ import annotations

from jetsight.testing.camera import ScriptedCamera, Shot, lost, shots
from jetsight.testing.clock import FakeClock
from jetsight.testing.device import FakeDevice
from jetsight.testing.engine import FakeArray, FakeBackend, FakeEngine, tiny_spec
from jetsight.testing.imagine import FakeImagine, tiny_plan_spec, tiny_planner
from jetsight.testing.overhead import Overhead, loop_memory, loop_overhead
from jetsight.testing.tensorrt import FakeTensorRt

__all__ = [
    "FakeArray",
    "FakeBackend",
    "FakeClock",
    "FakeDevice",
    "FakeEngine",
    "FakeImagine",
    "FakeTensorRt",
    "Overhead",
    "ScriptedCamera",
    "Shot",
    "loop_memory",
    "loop_overhead",
    "lost",
    "shots",
    "tiny_plan_spec",
    "tiny_planner",
    "tiny_spec",
]
