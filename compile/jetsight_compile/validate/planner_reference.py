"""Plans of the float planners on held-out cases: inputs, draws and results to compare with.

A case is a place in a recording; its goal is the recorded latent H blocks later. Plans are made
as a session makes them: from the held action, with coloured draws.

Shapes: M cases, I iterations, N samples, H horizon, A action-block size, a action size,
C context, K history, P probe quantities, G hazards.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from jetsight.bundle.golden import planner_key
from jetsight.bundle.planner_spec import PlannerSpec
from jetsight.planning.limits import NO_LIMIT
from jetsight.planning.noise import Noise
from jetsight_compile.calibration.data import CalibrationWindows, spread
from jetsight_compile.planner_graph.signature import ImaginePorts
from jetsight_train.model.world_model import WorldModel
from jetsight_train.planning import cem, icem, mppi
from jetsight_train.planning.candidates import limited, proposed
from jetsight_train.planning.costs import hazards, scored
from jetsight_train.planning.problem import Problem, State

F32 = npt.NDArray[np.float32]
PLANNERS: dict[str, ModuleType] = {"cem": cem, "icem": icem, "mppi": mppi}
MOMENTS = 4
_FEEDS = {"mean": "mean", "std": "std", "actions": "incumbent", "kept": "kept"}


@dataclass(frozen=True)
class SplitLimits:
    """Limits that about half the candidates of a first iteration violate.

    The bundle's own limits may let all of them pass or none, which would compare nothing.

    Attributes:
        limit: `[G]` logits, none of them close to a candidate's.
        feasible: `[N]` True for candidates that keep the limits in the float model.
    """

    limit: F32
    feasible: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ReferencePlan:
    """One plan of the float planner.

    Attributes:
        problem: the planning problem.
        draws: `I` times `[N, H, A]`.
        states: before the first iteration and after each one, `I + 1`.
        start_cost: cost of the first mean, the plan before any search.
        split_limits: None for a model without hazards.
    """

    problem: Problem
    draws: list[Tensor]
    states: list[State]
    start_cost: float
    split_limits: SplitLimits | None

    def inputs(self, iteration: int) -> dict[str, F32]:
        """Return the inputs of the graph for an iteration of this plan."""
        return inputs_of(self.problem, self.states[iteration], self.draws[iteration])


@dataclass(frozen=True)
class Truth:
    """Plans of the float planner from several cases.

    Attributes:
        model: float model with its heads.
        facts: specification of the planner.
        cases: `M` plans.
    """

    model: WorldModel
    facts: PlannerSpec
    cases: list[ReferencePlan]

    @torch.inference_mode()
    def cost_of(self, case: ReferencePlan, actions: F32) -> float:
        """Cost of a plan `[H, A]` in the float model; infinite if it is not finite."""
        return _cost(self.model, case.problem, torch.from_numpy(actions))


@torch.inference_mode()
def truth_of(
    model: WorldModel,
    facts: PlannerSpec,
    windows: CalibrationWindows,
    most: int = MOMENTS,
) -> Truth:
    """Plan from cases evenly spread over the windows.

    Args:
        model: the float model.
        facts: specification of the planner.
        windows: recorded windows with latents of the float model.
        most: M.
    """
    draws = Noise(
        facts.iterations,
        facts.samples,
        facts.horizon,
        model.timing.action_block,
        len(model.action.names),
        facts.noise_beta,
    )
    cases = []
    for number, index in enumerate(spread(len(windows), most)):
        # By the case's number, so that a compile can be repeated.
        draws.use((0, 0, number))
        problem = _problem(model, facts, windows, int(index))
        cases.append(_planned(model, problem, facts, draws))
    return Truth(model, facts, cases)


def reference(truth: Truth) -> dict[str, F32]:
    """Return the reference data of `golden.npz`: the first iteration of the first case."""
    case, spec = truth.cases[0], truth.facts
    names = ImaginePorts.of(truth.model, spec).tensors.inputs
    inputs, after = case.inputs(0), case.states[1]
    arrays = {name: inputs[name] for name in names}
    arrays |= {"mean_next": after.mean.numpy(), "costs": after.costs.numpy()}
    return {planner_key(spec.graph, name): array[None] for name, array in arrays.items()}


def inputs_of(problem: Problem, state: State, noise: Tensor) -> dict[str, F32]:
    """Every possible input of an iteration; a graph has some of them."""
    values = {name: value for name, value in vars(problem).items() if isinstance(value, Tensor)}
    values |= {into: getattr(state, name) for name, into in _FEEDS.items()}
    return {name: value.numpy() for name, value in {**values, "noise": noise}.items()}


def _planned(
    model: WorldModel, problem: Problem, facts: PlannerSpec, noise: Noise
) -> ReferencePlan:
    for iteration in range(facts.iterations):
        noise.draw(iteration)
    # Copies, because the next case draws into the same buffer.
    draws = [torch.from_numpy(each.copy()) for each in noise.values]
    states = [_first(model, problem, facts, draws[0])]
    step = PLANNERS[facts.kind].step
    for draw in draws:
        states.append(step(model, problem, states[-1], draw))
    first = states[0]
    return ReferencePlan(
        problem=problem,
        draws=draws,
        states=states,
        start_cost=_cost(model, problem, first.mean),
        split_limits=_split_limits(model, problem, first, draws[0]),
    )


def _split_limits(
    model: WorldModel, problem: Problem, first: State, noise: Tensor
) -> SplitLimits | None:
    if model.heads.hazard is None:
        return None
    candidates = limited(problem, proposed(problem, first, noise))[:-1]
    z_hist, a_hist = (x.expand(len(noise), *x.shape) for x in (problem.z_hist, problem.a_hist))
    logits = hazards(model, problem, candidates, model.rollout(z_hist, a_hist, candidates))
    # One step over the limit forbids a candidate, so its worst step counts.
    worst = logits.amax(1).sort(0).values  # [N, G]
    # Each hazard alone forbids so many that all of them together forbid about half.
    rank = min(max(round(len(worst) * 0.5 ** (1 / worst.shape[1])), 1), len(worst) - 1)
    limit = (worst[rank - 1] + worst[rank]) / 2
    return SplitLimits(limit.numpy(), (logits.amax(1) <= limit).all(1).numpy())


def _first(model: WorldModel, problem: Problem, facts: PlannerSpec, noise: Tensor) -> State:
    """Start a new plan as the runtime's planner does."""
    ticks, kept = model.timing.action_block, facts.kept
    hold = facts.start == "hold"
    action = problem.a_last if hold else torch.tensor(model.action.neutral)
    mean = action.repeat(facts.horizon, ticks)
    std = torch.tensor(facts.std_start).repeat(facts.horizon, ticks)
    first = State.first(problem, mean, std, mean)
    # The last draws stand in for elites, which the first iteration does not have yet.
    return first.following(kept=mean + std * noise[-kept:]) if kept else first


def _problem(
    model: WorldModel, facts: PlannerSpec, windows: CalibrationWindows, index: int
) -> Problem:
    newest, size, heads = windows.history, len(model.action.names), model.heads
    z, blocks = torch.from_numpy(windows.z[index]), torch.from_numpy(windows.blocks[index])
    names = () if heads.probe_spec is None else heads.probe_spec.quantities
    rate = model.action.rate_limit_per_s
    low, high = model.action.planned_range
    given: dict[str, Any] = {
        # Per tick, which is what the graph limits; a robot's limit is per second.
        "rate": [NO_LIMIT] * size if rate is None else [r / model.timing.camera_hz for r in rate],
        "probe_target": [0.0] * len(names),
        "probe_given": [0.0] * len(names),
        "probe_weight": [facts.probe_weight.get(name, 0.0) for name in names],
        "hazard_limit": [hazard.threshold for hazard in heads.hazards],
        "temperature": [facts.temperature],
        "low": low,
        "high": high,
        "weights": (facts.weights.terminal, facts.weights.running, facts.weights.support),
    }
    return Problem(
        facts,
        z_hist=z[newest - facts.context : newest],
        a_hist=blocks[newest - facts.context : newest - 1],
        # Before a window of one frame nothing is recorded; assume its first action was held.
        a_last=(blocks[newest - 2, -size:] if newest > 1 else blocks[0, :size]).clone(),
        z_goal=z[newest - 1 + facts.horizon],
        **{name: torch.tensor(value) for name, value in given.items()},
    )


def _cost(model: WorldModel, problem: Problem, actions: Tensor) -> float:
    plan = actions[None]
    scores = scored(model, problem, plan, plan)
    return float(scores.cost[0]) if scores.valid[0] else float("inf")
