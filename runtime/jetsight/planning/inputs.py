"""A planner's input arrays, filled from one request and the newest state of a stream.

Shapes: h x w camera frame, C context, H horizon, B ticks per block, a size of one robot action,
D latent size, P probe quantities, G hazards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from jetsight.bundle.planner_spec import MOST_ITERATIONS, PlannerSpec
from jetsight.bundle.runtime_spec import PlanSpec, StreamSpec
from jetsight.engine import NDArray
from jetsight.errors import UsageError, unknown
from jetsight.planning.goal import Goal, PlanRequest
from jetsight.planning.limits import NO_LIMIT, Limits
from jetsight.planning.plan import OF_HISTORY, PlanReason
from jetsight.stream.frames import Reason
from jetsight.stream.loop import StreamState

_LATENT_WEIGHTS = ("terminal", "running", "support")
_CHANGING = ("mean", "std", "noise", "incumbent", "kept")  # written anew for every iteration


def check_request(request: PlanRequest, spec: PlanSpec) -> None:
    """Refuse a request that is wrong for every planner of a model.

    A goal that is not finite passes: it is measured like a frame, so it ends in a plan that gives
    the reason instead of in an exception.

    Raises:
        UsageError: goal, deadline, iterations or seed are wrong.
    """
    _check_goal(request.goal, spec.stream)
    deadline_ms, iterations, seed = request.deadline_ms, request.iterations, request.seed
    if deadline_ms is not None and not (math.isfinite(deadline_ms) and deadline_ms >= 0):
        raise UsageError(f"deadline_ms is {deadline_ms}, expected milliseconds from 0")
    if seed is not None and (not isinstance(seed, (int, np.integer)) or seed < 0):
        raise UsageError(f"seed is {seed!r}, expected an integer from 0")
    if iterations is not None and not (
        isinstance(iterations, (int, np.integer)) and 1 <= iterations <= MOST_ITERATIONS
    ):
        raise UsageError(f"iterations is {iterations}, expected 1 to {MOST_ITERATIONS}")


def _check_goal(goal: Goal, stream: StreamSpec) -> None:
    if goal.image_hwc_u8 is None and goal.z is None and not goal.targets:
        raise UsageError("the goal is empty; give an image, a latent or target values")
    if goal.image_hwc_u8 is not None and goal.z is not None:
        raise UsageError("the goal has both an image and a latent; give one of them")
    if goal.image_hwc_u8 is not None:
        image, wanted = goal.image_hwc_u8, stream.frame_shape
        if image.shape != wanted or image.dtype != np.uint8:
            raise UsageError(
                f"the goal image is {image.dtype} {list(image.shape)}, but the model takes "
                f"uint8 {list(wanted)}; take it with the same camera, or crop and resize it"
            )
    _check_goal_state(goal, stream.state_names)
    if goal.z is not None and goal.z.shape != (stream.latent_size,):
        raise UsageError(
            f"the goal latent has the shape {list(goal.z.shape)}, but the model's latents have "
            f"{[stream.latent_size]}"
        )


def _check_goal_state(goal: Goal, names: Sequence[str]) -> None:
    state, size = goal.state, len(names)
    if goal.image_hwc_u8 is not None and names and state is None:
        listed = ", ".join(names)
        raise UsageError(
            f"the model reads the state {listed} beside a frame, so a goal image needs the state "
            f"at the goal: Goal.image(frame, np.array([{listed}], np.float32)); or give a latent "
            "or target values"
        )
    if state is not None and (goal.image_hwc_u8 is None or np.shape(state) != (size,)):
        raise UsageError(
            f"the goal has a state of shape {list(np.shape(state))}, but the model reads "
            f"{f'{size} numbers' if size else 'no state'} beside a goal image; leave it out, or "
            "give what the model reads"
        )


class PlannerInputs(dict[str, NDArray]):
    """Inputs of a planner's graph that stay the same during one plan, by name.

    New ones hold values that an engine can be warmed up with.

    Args:
        spec: of the model and the robot.
        planner: whose graph it is.

    Attributes:
        past_actions: `[(C - 1) * B, a]` the same memory as `a_hist`.
    """

    def __init__(self, spec: PlanSpec, planner: PlannerSpec) -> None:
        shapes = spec.tensors[planner.graph].inputs
        super().__init__(
            {name: np.zeros(s, np.float32) for name, s in shapes.items() if name not in _CHANGING}
        )
        self._spec, self._planner = spec, planner
        # With a context of 1 the graph has no such input.
        past: NDArray = self.get("a_hist", np.zeros(0, np.float32))
        self.past_actions = past.reshape(-1, len(spec.low))
        # Bounds of 0 would turn every candidate of a warm-up into the same plan.
        self["low"][:], self["high"][:] = spec.low, spec.high
        self._hold()
        defaults = {"rate": NO_LIMIT, "hazard_limit": NO_LIMIT, "weights": 1.0}
        for name, value in {**defaults, "temperature": planner.temperature}.items():
            if name in self:
                self[name].fill(value)
        self["when"][-1] = 1.0

    def set_request(self, request: PlanRequest) -> None:
        """Write everything that the caller decides, except the goal's latent.

        Raises:
            UsageError: limits, targets, weights or arrival do not fit the model or the planner.
        """
        heads, block = self._spec.heads, self._spec.stream.action_block
        self._set_limits(request.limits)
        self._set_weights(request, self._set_targets(request.goal))
        self["when"][:] = arrival(self._planner.horizon, block, request.arrive_ticks)
        if "hazard_limit" in self:
            thresholds = [hazard.threshold for hazard in heads.hazards]
            # The constraint is part of the graph; a limit that no logit reaches turns it off.
            self["hazard_limit"][:] = thresholds if request.constrain else NO_LIMIT

    def set_state(self, state: StreamState) -> PlanReason | None:
        """Write latents and actions up to the newest frame; the reason if they are not known."""
        if state.tick < 0:
            return PlanReason.WARMING_UP
        if state.assumed:
            return PlanReason.ACTIONS_UNKNOWN
        planner, last = self._planner, self["a_last"].reshape(1, -1)
        reason, known = state.forecaster.context(
            state.tick, self["z_hist"], self.past_actions, last
        )
        # Only the rate limit and the start of `hold` depend on the last action.
        if reason is None and not known and (planner.rate_limited or planner.start == "hold"):
            reason = Reason.ACTIONS_UNKNOWN
        if reason is not None:
            return OF_HISTORY[reason]
        # One NaN in the past would make the cost of every candidate NaN.
        if not (np.isfinite(self.past_actions).all() and np.isfinite(last).all()):
            return PlanReason.ACTIONS_UNKNOWN
        # Last: a specific cause says more than the age that follows from it.
        return PlanReason.FRAME_STALE if state.stale else None

    def set_goal_latent(self, z: NDArray | None) -> PlanReason | None:
        """Write the goal's latent `[D]`, None for a goal of targets alone; reason if not finite."""
        z_goal = self["z_goal"]
        # Targets alone give the latent the weight 0, but 0 times an old NaN would still be NaN.
        z_goal[:] = 0.0 if z is None else z
        finite = np.isfinite(z_goal).all() and np.isfinite(self.get("probe_target", z_goal)).all()
        return None if finite else PlanReason.GOAL_NOT_FINITE

    def _set_limits(self, limits: Limits) -> None:
        spec, low, high, size = self._spec, self["low"], self["high"], len(self._spec.names)
        if limits.rate_per_s is not None and "rate" not in self:
            raise UsageError(
                f"planner {self._planner.graph} takes no rate limit; compile the bundle again with "
                "one that does, or give none"
            )
        low[:] = spec.low if limits.low is None else _sized("low", limits.low, size)
        high[:] = spec.high if limits.high is None else _sized("high", limits.high, size)
        if "rate" in self:
            self._set_rate(limits.rate_per_s, size)
        # Compared after rounding to float32: these are the numbers that the graph reads.
        _refuse(spec, low > high, "low", low, "is above high")
        _refuse(spec, low < spec.low, "low", low, "is below the robot's own")
        _refuse(spec, high > spec.high, "high", high, "is above the robot's own")
        self._hold()

    def _hold(self) -> None:
        """Narrow the limits of dimensions that never varied in training to the neutral action.

        Raises:
            UsageError: the request's limits leave the neutral action out.
        """
        spec, low, high, held = self._spec, self["low"], self["high"], self._spec.held
        neutral, why = spec.stream.neutral, "leaves out {:g}, where it never moved in training"
        for key, limit, leaves in (("low", low, neutral < low), ("high", high, neutral > high)):
            _refuse(spec, held & leaves, key, limit, why, neutral)
        np.copyto(low, neutral, where=held)
        np.copyto(high, neutral, where=held)

    def _set_rate(self, rate_per_s: Sequence[float] | NDArray | None, size: int) -> None:
        spec, rate = self._spec, self["rate"]
        rate[:] = NO_LIMIT if spec.rate_per_tick is None else spec.rate_per_tick
        if rate_per_s is None:
            return
        tighter = _sized("rate_per_s", rate_per_s, size)
        own, rate[:] = rate.copy(), tighter / np.float32(spec.stream.camera_hz)
        _refuse(spec, rate <= 0, "rate_per_s", tighter, "must be above 0")
        # The robot's own rate, given per second and divided in float32, must not be refused.
        _refuse(spec, rate > own * 1.00001, "rate_per_s", tighter, "is above the robot's own")

    def _set_targets(self, goal: Goal) -> NDArray:
        """Write the targets; `[P]` 1 where there is one."""
        quantities = self._spec.heads.quantities
        nothing = np.zeros(0, np.float32)  # without a probe the graph has no such input
        target, given = self.get("probe_target", nothing), self.get("probe_given", nothing)
        target.fill(0.0)
        given.fill(0.0)
        for name, value in goal.targets.items():
            for quantity, number in _targets_of(name, value, quantities):
                i = quantities.index(quantity)
                # An angle and its own cosine may both be named.
                if given[i]:
                    raise UsageError(f"the goal gives {quantity!r} twice")
                target[i], given[i] = number, 1.0
        return given

    def _set_weights(self, request: PlanRequest, given: NDArray) -> None:
        """Write the request's weights, else the planner's; targets alone leave out the latent."""
        planner, quantities = self._planner, self._spec.heads.quantities
        goal, wanted, known = request.goal, request.weights, (*_LATENT_WEIGHTS, *quantities)
        for name, weight in wanted.items():
            if name not in known:
                raise unknown("weight", name, known)
            if not (math.isfinite(weight) and weight >= 0):
                raise UsageError(f"the weight of {name!r} is {weight}, expected a number from 0")
        only_targets = goal.image_hwc_u8 is None and goal.z is None
        for name in ("terminal", "running"):
            if only_targets and wanted.get(name, 0.0) > 0.0:
                raise UsageError(
                    f"the weight of {name!r} is {wanted[name]}, but the goal has no latent to be "
                    "near to; give an image or a latent as well, or leave the weight out"
                )
        for i, name in enumerate(_LATENT_WEIGHTS):
            default = 0.0 if only_targets and name != "support" else getattr(planner.weights, name)
            self["weights"][i] = wanted.get(name, default)
        for i, name in enumerate(quantities):
            default = planner.probe_weight.get(name, 0.0)
            if given[i]:
                default = default or 1.0  # a target must count, also if the planner weighs it 0
            elif only_targets:
                default = 0.0
            self["probe_weight"][i] = wanted.get(name, default)


def arrival(horizon: int, block: int, ticks: int | None = None) -> NDArray:
    """Weight each step of a plan for the goal, `[H]`: those at its end, equally.

    The first that counts is the last one that ends in time. A later one would put off the goal by
    the missing part of a step, and again with the next plan.

    Args:
        horizon: H.
        block: ticks of a step.
        ticks: until the goal is due, and kept from then on; None, or more, for the last step alone.

    Raises:
        UsageError: `ticks` is no integer from 1.
    """
    if ticks is None:
        ticks = horizon * block
    if not isinstance(ticks, (int, np.integer)) or ticks < 1:
        raise UsageError(f"arrive_ticks is {ticks!r}, expected an integer from 1")
    first = min(max(int(ticks) // block, 1), horizon) - 1
    when: NDArray = np.zeros(horizon, np.float32)
    when[first:] = 1.0 / (horizon - first)
    return when


def _targets_of(name: str, value: float, known: Sequence[str]) -> list[tuple[str, float]]:
    """Resolve a name to quantities: itself, or cosine and sine of an angle."""
    if name in known:
        return [(name, float(value))]
    cosine, sine = f"cos {name}", f"sin {name}"
    if cosine in known and sine in known:
        finite = math.isfinite(value)
        return [
            (cosine, math.cos(value) if finite else math.nan),
            (sine, math.sin(value) if finite else math.nan),
        ]
    raise unknown("quantity", name, [*known, *(n[4:] for n in known if n.startswith("cos "))])


def _sized(name: str, values: Sequence[float] | NDArray, size: int) -> NDArray:
    array: NDArray = np.asarray(values, np.float32)
    if array.shape != (size,):
        raise UsageError(f"limits: {name} has the shape {list(array.shape)}, expected {[size]}")
    return array


def _refuse(
    spec: PlanSpec,
    wrong: NDArray,
    key: str,
    values: NDArray,
    why: str,
    about: NDArray | None = None,
) -> None:
    about = values if about is None else about  # numbers that `why` may have a place for
    for name, is_wrong, value, each in zip(spec.names, wrong, values, about, strict=True):
        if is_wrong:
            raise UsageError(f"limits: {key} of {name!r} is {value:g}, which {why.format(each)}")
