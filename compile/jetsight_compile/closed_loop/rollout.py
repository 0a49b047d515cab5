"""Rollout of one arm in one episode: replay to the start, let the agent act, judge every tick.

Shapes: T ticks, s state size, a action size, h, w frame size, H horizon, D latent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from jetsight.engine import NDArray
from jetsight.errors import DataError
from jetsight.simulators.environment import Environment
from jetsight.simulators.spec import Observation
from jetsight_compile.closed_loop.agents import Agent, AgentView
from jetsight_compile.closed_loop.episodes import EvalEpisode, Rules
from jetsight_compile.closed_loop.tasks.task import EvalTask, Judgement

_PLAN_VIEW = 64  # most future actions that an agent gets during the warm-up


@dataclass(frozen=True)
class EpisodeResult:
    """A row of the results; `results` explains the fields."""

    episode: int
    arm: str
    start_sha256: str
    start_tick: int
    kind: str
    success: bool
    also: Mapping[str, bool]
    success_tick: int | None
    ticks: int
    off: Mapping[str, float | None]
    uncomputed_ticks: int
    inside_ticks: int
    plans: int
    valid_plans: int
    held_ticks: int
    surprising_ticks: int
    no_plan_reasons: Mapping[str, int]
    plan_ms: tuple[float, ...]


@dataclass(frozen=True)
class EpisodeTrace:
    """Recording of an episode; `futures` and `costs` are keyed by tick since the start."""

    trial: EpisodeResult
    frames_u8: NDArray  # [T,h,w,3], one per tick acted on, and the last one seen
    goal_u8: NDArray  # [h,w,3]
    judgements: tuple[Judgement, ...]  # [T]
    futures: Mapping[int, NDArray]  # [H,D]
    costs: Mapping[int, float]


def run_episode(
    environment: Environment,
    task: EvalTask,
    arm: str,
    agent: Agent,
    episode: EvalEpisode,
    rules: Rules,
) -> EpisodeTrace:
    """Run `agent` from the start of `episode` until the goal is reached or the budget spent.

    A trial ends once every criterion holds.

    Raises:
        DataError: replaying the episode did not lead to the same state, bit for bit.
    """
    observation = _replay(environment, agent, episode)
    # A replay that is off by one bit may diverge later, and arms would start from different states.
    if environment.exact_state() != episode.start_bits:
        raise DataError(
            f"environment {rules.env_id!r} is not repeatable: episode {episode.number} replayed "
            "to its start differs from the recorded one, so arms cannot be compared; use a "
            "deterministic simulator"
        )
    observations, judgements = [observation], [task.judge(observation, episode.goal)]
    executed = episode.actions[episode.start - 1]
    for tick in range(episode.start, episode.start + rules.budget):
        executed = agent.act(_view(environment, tick, observation, executed, None))
        observation, _, over = environment.step(executed)
        observations.append(observation)
        judgements.append(task.judge(observation, episode.goal))
        if over or judgements[-1].final:
            break
    agent.end()
    inside = 0
    if rules.region is not None and task.region is not None:
        positions = task.region.positions(np.stack([each.state for each in observations[1:]]))
        inside = int(rules.region.contains(positions).sum())
    return EpisodeTrace(
        trial=_row(arm, agent, episode, judgements, inside),
        frames_u8=np.stack([each.frame_hwc_u8 for each in observations]),
        goal_u8=episode.goal_frame,
        judgements=tuple(judgements),
        futures={tick - episode.start: future for tick, future in agent.log.futures},
        costs={tick - episode.start: cost for tick, cost in agent.log.costs},
    )


def _replay(environment: Environment, agent: Agent, episode: EvalEpisode) -> Observation:
    """Replay the driver's actions from reset to start, while the agent watches."""
    observation = environment.reset(episode.reset_seed)
    agent.begin(episode)
    executed = None
    for tick, action in enumerate(episode.actions[: episode.start]):
        upcoming = episode.actions[tick : min(tick + _PLAN_VIEW, episode.start)]
        agent.watch(_view(environment, tick, observation, executed, upcoming))
        observation, _, _ = environment.step(action)
        executed = action
    return observation


def _view(
    environment: Environment,
    tick: int,
    observation: Observation,
    executed: NDArray | None,
    upcoming: NDArray | None,
) -> AgentView:
    state = dict(zip(environment.state_names, observation.state.tolist(), strict=True))
    return AgentView(tick, observation.frame_hwc_u8, executed, upcoming, state)


def _row(
    arm: str, agent: Agent, episode: EvalEpisode, judgements: list[Judgement], inside: int
) -> EpisodeResult:
    # Without the start: an episode whose start is already at the goal is no success yet.
    acted, last, log = judgements[1:], judgements[-1], agent.log
    reached = [tick for tick, judgement in enumerate(acted, 1) if judgement.success]
    return EpisodeResult(
        episode=episode.number,
        arm=arm,
        start_sha256=hashlib.sha256(episode.start_bits).hexdigest(),
        start_tick=episode.start,
        kind=episode.kind,
        success=bool(reached),
        also={name: any(each.also[name] for each in acted) for name in last.also},
        success_tick=reached[0] if reached else None,
        ticks=len(acted),
        off=dict(last.off),
        uncomputed_ticks=sum(not each.computable for each in acted),
        inside_ticks=inside,
        plans=log.plans,
        valid_plans=log.valid,
        held_ticks=log.held,
        surprising_ticks=log.surprises,
        no_plan_reasons=dict(sorted(log.reasons.items())),
        plan_ms=tuple(round(value, 3) for value in log.plan_ms),
    )
