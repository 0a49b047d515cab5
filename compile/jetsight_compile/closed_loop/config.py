"""Settings of an evaluation, checked before the simulation begins."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jetsight.errors import UsageError
from jetsight_compile.closed_loop.tasks.choose import parse_success
from jetsight_compile.closed_loop.tasks.region import Region


@dataclass(frozen=True)
class PlanOptions:
    """Options of an evaluation's plan requests.

    Args:
        planner: graph of the bundle; None for its first.
        iterations: fixed number, so that results repeat; None for the planner's default.
        budget_ms: time limit of a plan instead of `iterations`; makes results machine-dependent.
        replan_every: ticks of a plan that are executed before the next one.
        arrive: ticks until the goal is due, counted down over the plans, then as soon as possible;
            0: one horizon after each plan.
        constrain: respect the bundle's hazards.
        seed: of the evaluation; arms with equal seeds draw equal noise.
    """

    planner: str | None = None
    iterations: int | None = None
    budget_ms: float | None = None
    replan_every: int = 1
    constrain: bool = True
    seed: int = 0
    arrive: int = 25


@dataclass(frozen=True)
class EvalConfig:
    """One evaluation.

    Args:
        bundle: path of the bundle.
        env_id: Gymnasium id.
        episodes: number of episodes.
        seed: base seed of all randomness.
        against: checkpoint to run in PyTorch eager beside the bundle; None for no such arm.
        baselines: also run no-op, random and replay.
        keep_out: choose episodes with the region in the way, and also run the bundle without its
            constraint.
        region: keep-out region; None to take it from the checkpoint of `against`.
        use: options of the plan requests.
        backend: as in `Session.open`.
        family: as in `Session.open`.
        threads: CPU threads of every engine and of torch; more make results depend on the machine.
        workers: processes that share the episodes.
        films: number of first episodes whose pictures are kept.
        cameras: observations to take frames from; see `EnvironmentSpec`.
        success: formula or `module:function`; None for the environment's own task.
        driver: policy that reaches the goals: scripted, random or `module:function`.
        goal_ticks: ticks from start to goal in the driver's episode.
        ticks: that an arm has to reach the goal.
        region_columns: two state columns that hold the robot's position; empty for the task's own.

    Raises:
        UsageError: a number is out of range, or two settings exclude each other.
    """

    bundle: str
    env_id: str
    episodes: int
    seed: int
    against: str | None = None
    baselines: bool = True
    keep_out: bool = False
    region: Region | None = None
    use: PlanOptions = field(default_factory=PlanOptions)
    backend: str | None = None
    family: str | None = None
    threads: int = 1
    workers: int = 1
    films: int = 0
    cameras: tuple[str, ...] = ()
    success: str | None = None
    driver: str = "scripted"
    goal_ticks: int = 25
    ticks: int = 50
    region_columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, value, least in (
            ("episodes", self.episodes, 1),
            ("seed", self.seed, 0),
            ("workers", self.workers, 1),
            ("threads", self.threads, 1),
            ("iterations", self.use.iterations, 1),
            ("replan-every", self.use.replan_every, 1),
            ("goal-ticks", self.goal_ticks, 1),
            ("ticks", self.ticks, 1),
        ):
            if value is not None and value < least:
                raise UsageError(f"--{name} is {value}, expected at least {least}")
        if self.use.budget_ms is not None and not self.use.budget_ms > 0:
            raise UsageError(f"--budget-ms is {self.use.budget_ms:g}, expected more than 0")
        if self.use.budget_ms is not None and self.use.iterations is not None:
            raise UsageError("--budget-ms and --iterations exclude each other; give one of them")
        if self.region is not None and not self.keep_out:
            raise UsageError("--region is for a keep-out run; add --keep-out")
        if self.region_columns and not self.keep_out:
            raise UsageError("--region-columns is for a keep-out run; add --keep-out")
        parse_success(self.success)

    def facts(self) -> dict[str, Any]:
        """Return the settings for the results, without paths, which have no meaning later."""
        region, use = self.region, self.use
        return {
            "env": self.env_id,
            "cameras": list(self.cameras),
            "episodes": self.episodes,
            "seed": self.seed,
            "baselines": self.baselines,
            "keep_out": self.keep_out,
            "region": None if region is None else [region.x, region.y, region.radius],
            "planner": use.planner,
            "iterations": use.iterations,
            "budget_ms": use.budget_ms,
            "replan_every": use.replan_every,
            "arrive": use.arrive,
            "constrain": use.constrain,
            "success": self.success,
            "region_columns": list(self.region_columns),
            "threads": self.threads,
            "workers": self.workers,
        }
