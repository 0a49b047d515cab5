"""Planners and sessions over fakes, in a world where every tick adds its action to the latent.

The scripted robot rests in front of a grey camera, so its latent is 101 in every dimension at the
end of an even number of frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jetsight.bundle.planner_spec import PlannerSpec
from jetsight.bundle.runtime_spec import PlanSpec, StreamSpec
from jetsight.planning.imagine import Planning
from jetsight.planning.iterations import HostIterations
from jetsight.planning.noise import Noise
from jetsight.planning.planner import Planner
from jetsight.session import Session
from jetsight.testing import (
    FakeBackend,
    FakeClock,
    FakeEngine,
    ScriptedCamera,
    Shot,
    shots,
    tiny_plan_spec,
    tiny_planner,
    tiny_spec,
)

NDArray = np.ndarray[Any, Any]
SPEC = tiny_spec()
HERE = 101.0  # the latent of the last of 20 frames
KINDS = {
    "cem": tiny_planner(),
    "icem": tiny_planner(kind="icem", kept=3, noise_beta=2.0),
    "mppi": tiny_planner(kind="mppi", elites=0, temperature=1.0),
}


def latent(value: float) -> NDArray:
    """Make a goal whose dimensions all have this value."""
    return np.full(SPEC.latent_size, value, np.float32)


def bare_planner(
    engine: FakeEngine, facts: PlannerSpec, spec: PlanSpec, clock: FakeClock | None = None
) -> Planner:
    """Make a planner without a session, at `HERE` with a goal 10 farther."""
    block = spec.stream.action_block
    sizes = (facts.iterations, facts.samples, facts.horizon, block, len(spec.low))
    noise = Noise(*sizes, facts.noise_beta)
    iterations = HostIterations(engine, noise)
    planner = Planner(spec, facts, iterations, noise, clock or FakeClock())
    planner.inputs["z_hist"][:], planner.inputs["z_goal"][:] = HERE, HERE + 10
    planner.inputs["weights"][:] = 1, 0, 0
    return planner


class Rig:
    """A session over fakes that has seen `frames`.

    Args:
        planners: of the bundle; CEM if none.
        script: of the engines, by graph.
        frames: of the camera; 20 grey frames of a robot at rest by default.
        stream: of the model.
        changes: of the `PlanSpec`.
    """

    def __init__(
        self,
        *planners: PlannerSpec,
        script: Mapping[str, Mapping[str, Any]] | None = None,
        frames: list[Shot] | None = None,
        latency_ns: int = 0,
        stream: StreamSpec = SPEC,
        **changes: Any,
    ) -> None:
        self.clock = FakeClock()
        self.spec: PlanSpec = tiny_plan_spec(stream, *planners, **changes)
        timed = {
            p.graph: {"clock": self.clock, "latency_ns": latency_ns} for p in self.spec.planners
        }
        both = {name: {**timed.get(name, {}), **more} for name, more in (script or {}).items()}
        self.backend = FakeBackend(stream, {**timed, **both}, self.spec)
        self.session = Session(
            stream,
            self.backend.load(b"encode"),
            self.backend.load(b"forecast"),
            clock=self.clock,
            planning=Planning(self.spec, self.backend, str.encode),
        )
        self.watch(shots(20) if frames is None else frames)

    def watch(self, frames: list[Shot]) -> None:
        """Stream these frames."""
        for _ in self.session.stream(ScriptedCamera(SPEC, frames, self.clock)):
            pass

    @property
    def graph(self) -> str:
        """Name of the first planner's graph."""
        return self.spec.planners[0].graph

    @property
    def runs(self) -> int:
        """Number of runs of the first planner's engine."""
        return self.backend.engines[self.graph].runs
