"""Short episodes of the real simulator, and a session over fakes that drives in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from jetsight.bundle.planner_spec import HeadSpec
from jetsight.bundle.runtime_spec import StreamSpec
from jetsight.planning.imagine import Planning
from jetsight.session import Session
from jetsight.simulators.environment import Environment
from jetsight.simulators.registry import PUSHT
from jetsight.simulators.spec import EnvironmentSpec
from jetsight.testing import FakeBackend, tiny_plan_spec, tiny_planner, tiny_spec
from jetsight_compile.closed_loop.agents import EpisodeLog, TickClock
from jetsight_compile.closed_loop.episodes import Rules
from jetsight_compile.closed_loop.rollout import EpisodeResult
from jetsight_compile.closed_loop.tasks.pusht import JOINT, MOVES, RESTS, PushingTask

SPEC = tiny_spec(action_block=2, horizon=2)
SIDE = SPEC.height_px
STATE = ["agent_x", "agent_y", "block_x", "block_y", "block_angle"]
PUSHING = PushingTask(STATE, PUSHT)


def short_rules(**changes: Any) -> Rules:
    """Episodes of 30 ticks: 12 to warm up, the goal 6 ticks on, 8 to reach it; with `changes`."""
    facts: dict[str, Any] = {
        "env_id": PUSHT,
        "seed": 3,
        "size_hw": (SIDE, SIDE),
        "warm_up": 12,
        "goal_offset": 6,
        "budget": 8,
        "driver_ticks": 30,
        **changes,
    }
    return Rules(**facts)


@contextmanager
def pusht() -> Iterator[Environment]:
    environment = Environment.open(EnvironmentSpec(PUSHT, (SIDE, SIDE), steps=60))
    try:
        yield environment
    finally:
        environment.close()


def fake_session(
    script: Mapping[str, Mapping[str, Any]] | None = None,
    heads: HeadSpec | None = None,
    base: StreamSpec = SPEC,
) -> Session:
    """A model whose latent is the brightness of the picture, and CEM on top of it."""
    low, high = np.zeros(2, np.float32), np.full(2, 512, np.float32)
    spec = tiny_plan_spec(base, tiny_planner(), low=low, high=high, heads=heads or HeadSpec())
    backend = FakeBackend(base, script, spec)
    return Session(
        base,
        backend.load(b"encode"),
        backend.load(b"forecast"),
        clock=TickClock(),
        planning=Planning(spec, backend, str.encode),
    )


GRAPH = tiny_planner().graph


def trial(episode: int, arm: str, success: bool, **changes: Any) -> EpisodeResult:
    """A row of the results; with `changes`."""
    facts: dict[str, Any] = {
        "episode": episode,
        "arm": arm,
        "start_sha256": "0" * 64,
        "start_tick": 30,
        "kind": (MOVES, RESTS)[episode % 2],
        "success": success,
        "also": {JOINT: False},
        "success_tick": 7 if success else None,
        "ticks": 50,
        "off": {"agent_px": 10.0, "block_px": 5.0, "angle_rad": 0.1},
        "uncomputed_ticks": 0,
        "inside_ticks": 0,
        "plans": 0,
        "valid_plans": 0,
        "held_ticks": 0,
        "surprising_ticks": 0,
        "no_plan_reasons": {},
        "plan_ms": (),
    }
    return EpisodeResult(**{**facts, **changes})


class Steady:
    """An agent that always commands the same; remembers what it saw."""

    def __init__(self, action: tuple[float, float] = (256.0, 256.0)) -> None:
        self.log = EpisodeLog()
        self._action = np.asarray(action, np.float32)
        self.seen: list[tuple[int, bool]] = []
        self.ended = False

    def begin(self, episode: object) -> None:
        self.log, self.seen, self.ended = EpisodeLog(), [], False

    def watch(self, view: Any) -> None:
        self.seen.append((view.tick, False))

    def act(self, view: Any) -> Any:
        self.seen.append((view.tick, True))
        return self._action

    def end(self) -> None:
        self.ended = True
