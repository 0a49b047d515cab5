"""A world that `FakeBackend` predicts exactly, to stream on a fake clock.

The latent is the picture's brightness, and a unit of action makes it one brighter per tick. `world`
films exactly that, so an honest forecast has no surprise. A `BrightnessRobot` acts in it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np

from jetsight.bundle.planner_spec import PlannerSpec
from jetsight.control.action import Action
from jetsight.control.options import ControlOptions
from jetsight.planning.imagine import Planning
from jetsight.session import Session
from jetsight.stream.frames import Forecast
from jetsight.testing import (
    FakeBackend,
    FakeClock,
    ScriptedCamera,
    Shot,
    tiny_plan_spec,
    tiny_planner,
    tiny_spec,
)

NDArray = np.ndarray[Any, Any]

SPEC = tiny_spec()
B, K = SPEC.action_block, SPEC.history
SPAN = SPEC.span_ticks  # 10 ticks of history


def open_session(
    script: dict[str, dict[str, Any]] | None = None, clock: FakeClock | None = None, **spec: Any
) -> tuple[Session, FakeBackend, FakeClock]:
    """A session over fakes; `script` and `spec` change them."""
    facts, clock = tiny_spec(**spec), clock or FakeClock()
    backend = FakeBackend(facts, script)
    engines = backend.load(b"encode"), backend.load(b"forecast")
    return Session(facts, *engines, clock=clock), backend, clock


def run(script: list[Shot], engines: dict[str, dict[str, Any]] | None = None) -> list[Forecast]:
    """Everything published while the camera follows `script`."""
    session, _, clock = open_session(engines)
    camera = ScriptedCamera(SPEC, script, clock)
    published = [forecast.copy() for forecast in session.stream(camera)]
    assert camera.closed
    return published


def world(
    count: int, *, told: bool = True, change_at: int | None = None, deviate_at: int = 10**9
) -> list[Shot]:
    """A robot that brightens its world by 0 or 1 per tick, as planned, until `deviate_at`.

    From there on it does the opposite of its plan. `change_at` plants a change of scene.
    """
    rng = random.Random(3)
    plan = [float(rng.random() < 0.5) for _ in range(count + SPEC.plan_ticks)]
    brightness, script = 50.0, []
    done = 0.0
    for t in range(count):
        brightness += done + (60 if t == change_at else 0)
        upcoming = np.array([[p, 0.0] for p in plan[t : t + SPEC.plan_ticks]], np.float32)
        image = np.full((8, 8, 3), round(brightness), np.uint8)
        action = np.array([done, 0.0], np.float32)
        script.append(Shot(image, action if told else None, upcoming if told else None))
        done = plan[t] if t < deviate_at else 1.0 - plan[t]
    return script


def drop(script: list[Shot], seed: int, share: float) -> tuple[list[Shot], set[int]]:
    """`script` with a seeded share of its frames lost (their actions are not), and what is left."""
    rng = random.Random(seed)
    kept = {t for t in range(len(script)) if rng.random() >= share}
    thinned = [
        shot if t in kept else Shot(lost=True, action=shot.action) for t, shot in enumerate(script)
    ]
    return thinned, kept


START = 100.0
WARM_UP = SPEC.span_ticks  # ticks until the history is full
GRAPH = tiny_planner().graph


class BrightnessRobot:
    """A session over fakes, and the robot that it controls.

    Args:
        planners: of the bundle; CEM if none.
        script: of the engines, by graph.
        latency_ns: of one planner iteration.
        changes: of the `PlanSpec`.
    """

    def __init__(
        self,
        *planners: PlannerSpec,
        script: Mapping[str, Mapping[str, Any]] | None = None,
        latency_ns: int = 0,
        **changes: Any,
    ) -> None:
        self.clock, self.brightness = FakeClock(), START
        spec = tiny_plan_spec(SPEC, *planners, **changes)
        timed = {
            p.graph: {
                "clock": self.clock,
                "latency_ns": latency_ns,
                **(script or {}).get(p.graph, {}),
            }
            for p in spec.planners
        }
        self.backend = FakeBackend(SPEC, {**(script or {}), **timed}, spec)
        self.session = Session(
            SPEC,
            self.backend.load(b"encode"),
            self.backend.load(b"forecast"),
            clock=self.clock,
            planning=Planning(spec, self.backend, str.encode),
        )
        self.sent: list[NDArray] = []
        self.trace: list[float] = []

    def image(self) -> NDArray:
        """The picture of now; brightness is rounded as a camera does."""
        return np.full((SPEC.height_px, SPEC.width_px, 3), round(self.brightness), np.uint8)

    def tick(self, goal: Any, *, frame: Any = "image", **call: Any) -> Action:
        """One period: see, act, execute."""
        image = self.image() if isinstance(frame, str) else frame
        action = self.session.act(image, goal, **call)
        self.sent.append(action.values)
        self.execute(float(action.values[0]))
        return action

    def execute(self, push: float) -> None:
        """One period goes by."""
        self.brightness += push
        self.trace.append(self.brightness)
        # To the next tick of the grid, however long acting took.
        self.clock.sleep_ns(SPEC.period_ns - self.clock.now_ns() % SPEC.period_ns)

    def miss(self, goal: float) -> float:
        """Distance of the last ten ticks to a goal; the cost counts block ends alone, so single
        actions wobble by up to 8."""
        return abs(float(np.mean(self.trace[-10:])) - goal)

    def run(self, goal: Any, ticks: int, **call: Any) -> list[Action]:
        """Several periods."""
        return [self.tick(goal, **call).copy() for _ in range(ticks)]


def latent(value: float) -> NDArray:
    """The latent of a picture of this brightness."""
    return np.full(SPEC.latent_size, value, np.float32)


WAITING = ControlOptions(realtime=False)
