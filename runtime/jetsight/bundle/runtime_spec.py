"""The numbers a stream and its planners run by, taken from a manifest once.

Shapes: K history, H horizon, B action block, A = B * a, a size of one robot action, D latent size,
C context, N samples, Q kept elites, P quantities, G hazards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from jetsight.bundle.planner_spec import HeadSpec, PlannerSpec
from jetsight.engine import NDArray

if TYPE_CHECKING:
    from jetsight.bundle.manifest import Manifest


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """Frame size, time grid, action and latent facts of one model.

    Args:
        height_px: camera frame height the model was trained on.
        width_px: camera frame width.
        camera_hz: rate of the time grid; one tick is one period.
        history: K, latents the predictor looks back on.
        horizon: H, action blocks it looks ahead.
        action_block: B, ticks between two latents of a history, and actions in a block.
        latent_size: D.
        neutral: `[a]` action assumed where the executed one is not known.
        latent_std: `[D]` spread of each latent dimension on held-out data.
        surprise_scale: typical one-block prediction error in units of that spread.
        surprise_limit: normalised surprise that one held-out frame in a thousand exceeds.
        action_names: of the dimensions of one robot action; empty if not known.
    """

    height_px: int
    width_px: int
    camera_hz: float
    history: int
    horizon: int
    action_block: int
    latent_size: int
    neutral: NDArray
    latent_std: NDArray
    surprise_scale: float = 1.0
    surprise_limit: float = float("inf")
    action_names: tuple[str, ...] = ()

    @classmethod
    def from_manifest(cls, manifest: Manifest) -> StreamSpec:
        """The facts of `manifest` a running stream needs."""
        return cls(
            height_px=manifest.frame.height_px,
            width_px=manifest.frame.width_px,
            camera_hz=manifest.timing.camera_hz,
            history=manifest.model.history,
            horizon=manifest.model.horizon,
            action_block=manifest.timing.action_block,
            latent_size=manifest.model.latent_size,
            neutral=np.asarray(manifest.action.neutral, np.float32),
            latent_std=np.asarray(manifest.latent.std, np.float32),
            surprise_scale=manifest.latent.surprise_scale,
            surprise_limit=manifest.latent.surprise_quantiles.p999,
            action_names=manifest.action.names,
        )

    @property
    def period_ns(self) -> int:
        """Nanoseconds of one tick."""
        return round(1e9 / self.camera_hz)

    @property
    def step_size(self) -> int:
        """a: numbers in one robot action."""
        return int(self.neutral.shape[0])

    @property
    def span_ticks(self) -> int:
        """Ticks between the oldest and the newest latent of one history."""
        return (self.history - 1) * self.action_block

    @property
    def plan_ticks(self) -> int:
        """Ticks one forecast looks ahead."""
        return self.horizon * self.action_block


@dataclass(frozen=True, slots=True)
class PlanSpec:
    """What planning needs beside a stream: the robot's limits, the heads, and the planners.

    Args:
        stream: of the same model.
        names: of the numbers of one robot action.
        low: `[a]` smallest allowed action.
        high: `[a]` largest.
        rate_per_tick: `[a]` largest change from one tick to the next; None without a limit.
        heads: what the graphs can read out of a latent.
        planners: one per imagine graph.
    """

    stream: StreamSpec
    names: tuple[str, ...]
    low: NDArray
    high: NDArray
    rate_per_tick: NDArray | None
    heads: HeadSpec
    planners: tuple[PlannerSpec, ...]

    @classmethod
    def from_manifest(cls, manifest: Manifest, family: str | None = None) -> PlanSpec:
        """What `manifest` says; with a `family`, only the planners whose graphs it has."""
        action = manifest.action
        rate = action.rate_limit_per_s
        hz = manifest.timing.camera_hz
        families = [f for f in manifest.families if family in (None, f.name)]
        carried = {graph for f in families for graph in f.precision}
        return cls(
            stream=StreamSpec.from_manifest(manifest),
            names=action.names,
            low=np.asarray(action.low, np.float32),
            high=np.asarray(action.high, np.float32),
            rate_per_tick=None if rate is None else np.asarray(rate, np.float32) / np.float32(hz),
            heads=manifest.heads or HeadSpec(),
            planners=tuple(p for p in manifest.planners if p.graph in carried),
        )

    def inputs(self, planner: PlannerSpec) -> dict[str, tuple[int, ...]]:
        """Name and shape of every input of a planner's graph, all of them float32."""
        stream, plan = self.stream, (planner.horizon, self.stream.action_block * len(self.low))
        step, count = (len(self.low),), (len(self.heads.quantities),)
        every = {
            "z_hist": (planner.context, stream.latent_size),
            "a_hist": (planner.context - 1, plan[1]),
            "a_last": step,
            "z_goal": (stream.latent_size,),
            "mean": plan,
            "std": plan,
            "noise": (planner.samples, *plan),
            "incumbent": plan,
            "kept": (planner.kept, *plan),
            "temperature": (int(planner.kind == "mppi"),),
            "low": step,
            "high": step,
            "rate": step if planner.rate_limited else (0,),
            "weights": (3,),
            "when": (planner.horizon,),
            "probe_target": count,
            "probe_given": count,
            "probe_weight": count,
            "hazard_limit": (len(self.heads.hazards),),
        }
        return {name: shape for name, shape in every.items() if 0 not in shape}

    def outputs(self, planner: PlannerSpec) -> dict[str, tuple[int, ...]]:
        """Name and shape of every output of a planner's graph, all of them float32."""
        plan = self.inputs(planner)["mean"]
        every = {
            "mean_next": plan,
            "std_next": plan,
            "actions": plan,
            "cost": (1,),
            "violation": (1,),
            "costs": (planner.samples,),
            "violations": (planner.samples * bool(self.heads.hazards),),
            "z_future": (planner.horizon, self.stream.latent_size),
            "invalid": (1,),
            "kept_next": (planner.kept, *plan),
        }
        return {name: shape for name, shape in every.items() if 0 not in shape}
