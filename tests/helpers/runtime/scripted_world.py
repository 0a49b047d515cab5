"""A world that `FakeBackend` predicts exactly, to stream on a fake clock.

The latent is the picture's brightness, and a unit of action makes it one brighter per tick. `world`
films exactly that, so an honest forecast has no surprise.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from jetsight.session import Session
from jetsight.stream.frames import Forecast
from jetsight.testing import FakeBackend, FakeClock, ScriptedCamera, Shot, tiny_spec

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
