"""Parameters of a stream and its planners, taken from a manifest once.

Shapes: K history, H horizon, B action block, a size of one robot action, D latent size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from jetsight.bundle.model_spec import frame_shape
from jetsight.bundle.planner_spec import HeadSpec, PlannerSpec
from jetsight.bundle.planner_tensors import PlannerTensors
from jetsight.engine import NDArray

if TYPE_CHECKING:
    from jetsight.bundle.manifest import Manifest

_HELD_SHARE = 1e-3  # of the limits' range; wider than the noise that training took for no motion


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """Frame size, time grid, actions and latents of one model.

    Args:
        height_px: camera frame height the model was trained on.
        width_px: camera frame width.
        camera_hz: rate of the time grid; one tick is one period.
        history: K, latents in the predictor's input.
        horizon: H, action blocks it predicts.
        action_block: B, ticks between two latents of a history, and actions in a block.
        latent_size: D.
        neutral: `[a]` action assumed where the executed one is not known.
        latent_std: `[D]` spread of each latent dimension on held-out data.
        surprise_scale: typical one-block prediction error in units of that spread.
        surprise_limit: normalised surprise that one held-out frame in a thousand exceeds.
        action_names: of the dimensions of one robot action; empty if not known.
        resample: rule for the actions of a faster recording, see `ActionSpec.resample`.
        cameras: names of the cameras in the order of a frame; empty for one without a name.
        state_names: of the numbers that `encode` takes beside the frame; empty without a state.
        held_within: `[a]` distance from `neutral` within which an action counts as held, infinite
            for dimensions that varied in training; None if all did.
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
    resample: str = "hold"
    cameras: tuple[str, ...] = ()
    state_names: tuple[str, ...] = ()
    held_within: NDArray | None = None

    @classmethod
    def from_manifest(cls, manifest: Manifest) -> StreamSpec:
        """Take the parameters of a stream from `manifest`."""
        action = manifest.action
        ranges = np.subtract(action.high, action.low)
        within = np.where(action.held, _HELD_SHARE * ranges, np.inf).astype(np.float32)
        return cls(
            height_px=manifest.frame.height_px,
            width_px=manifest.frame.width_px,
            camera_hz=manifest.timing.camera_hz,
            history=manifest.model.history,
            horizon=manifest.model.horizon,
            action_block=manifest.timing.action_block,
            latent_size=manifest.model.latent_size,
            neutral=np.asarray(action.neutral, np.float32),
            latent_std=np.asarray(manifest.latent.std, np.float32),
            surprise_scale=manifest.latent.surprise_scale,
            surprise_limit=manifest.latent.surprise_quantiles.p999,
            action_names=action.names,
            resample=action.resample,
            cameras=manifest.frame.cameras,
            state_names=() if manifest.state is None else manifest.state.names,
            held_within=within if action.fixed else None,
        )

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of a frame: `(h, w, 3)`, or `(C, h, w, 3)` with C > 1 cameras."""
        return frame_shape(self.cameras, self.height_px, self.width_px)

    @property
    def period_ns(self) -> int:
        """Nanoseconds of one tick."""
        return round(1e9 / self.camera_hz)

    @property
    def step_size(self) -> int:
        """Numbers in one robot action (a)."""
        return int(self.neutral.shape[0])

    @property
    def span_ticks(self) -> int:
        """Ticks between the oldest and the newest latent of one history."""
        return (self.history - 1) * self.action_block

    @property
    def plan_ticks(self) -> int:
        """Ticks that one forecast predicts."""
        return self.horizon * self.action_block

    def moves_held(self, actions: NDArray) -> bool:
        """Check whether `actions [n, a]` move along a dimension that never varied in training."""
        within = self.held_within
        return within is not None and bool((np.abs(actions - self.neutral) > within).any())


@dataclass(frozen=True, slots=True)
class PlanSpec:
    """Parameters of planning beside those of the stream: limits, heads and planners.

    Args:
        stream: of the same model.
        names: of the numbers of one robot action.
        low: `[a]` smallest allowed action.
        high: `[a]` largest.
        rate_per_tick: `[a]` largest change from one tick to the next; None without a limit.
        heads: that the graphs contain.
        planners: one per imagine graph.

    Attributes:
        tensors: inputs and outputs of each planner's graph, by its name.
    """

    stream: StreamSpec
    names: tuple[str, ...]
    low: NDArray
    high: NDArray
    rate_per_tick: NDArray | None
    heads: HeadSpec
    planners: tuple[PlannerSpec, ...]
    tensors: Mapping[str, PlannerTensors] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        stream, step = self.stream, len(self.low)
        tensors = {
            planner.graph: PlannerTensors.of(
                planner,
                latent_size=stream.latent_size,
                action_size=stream.action_block * step,
                step_size=step,
                quantities=len(self.heads.quantities),
                hazards=len(self.heads.hazards),
            )
            for planner in self.planners
        }
        object.__setattr__(self, "tensors", tensors)  # once: a load reads them several times

    @property
    def held(self) -> NDArray:
        """`[a]` true for the dimensions that plans hold at the neutral action."""
        within = self.stream.held_within
        return np.zeros(len(self.low), bool) if within is None else np.isfinite(within)

    @classmethod
    def from_manifest(cls, manifest: Manifest, family: str | None = None) -> PlanSpec:
        """Take them from `manifest`; with a `family`, only the planners whose graphs it has."""
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
