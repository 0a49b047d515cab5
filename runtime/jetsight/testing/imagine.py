"""A planner's graph in NumPy, on a linear world whose best plan has a closed form.

Shapes: C context, H horizon, B ticks per block, a size of one robot action, A = B * a, N samples,
M = N + 1 with the incumbent, Q kept elites, D latent size, P quantities, G hazards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jetsight.bundle.planner_spec import HeadSpec, PlannerSpec, graph_name
from jetsight.bundle.planner_tensors import INVALID_COST
from jetsight.bundle.runtime_spec import PlanSpec, StreamSpec
from jetsight.engine import NDArray

Arrays = Mapping[str, tuple[tuple[int, ...], type]]
_FLOOR = 0.1  # added to the std of MPPI, which would otherwise end its search


def tiny_planner(**changes: Any) -> PlannerSpec:
    """Make a CEM planner for `tiny_spec`: N=32, H=2, 6 elites, 12 iterations; with `changes`.

    The graph is named after kind, samples and horizon.
    """
    facts: dict[str, Any] = {
        "kind": "cem",
        "samples": 32,
        "horizon": 2,
        "elites": 6,
        "context": 3,
        "rate_limited": False,
        "iterations": 12,
        "std_start": (2.0, 2.0),
        **changes,
    }
    name = graph_name(facts["kind"], facts["samples"], facts["horizon"])
    return PlannerSpec(**{"graph": name, **facts})


def tiny_plan_spec(spec: StreamSpec, *planners: PlannerSpec, **changes: Any) -> PlanSpec:
    """Make a spec with actions from -8 to 8 for a model of two action numbers; with `changes`."""
    facts: dict[str, Any] = {
        "stream": spec,
        "names": ("x", "y"),
        "low": np.full(2, -8.0, np.float32),
        "high": np.full(2, 8.0, np.float32),
        "rate_per_tick": None,
        "heads": HeadSpec(),
        "planners": planners or (tiny_planner(),),
    }
    return PlanSpec(**{**facts, **changes})


@dataclass(frozen=True, slots=True)
class FakeImagine:
    """One planner iteration in a linear world: every tick adds `action @ push` to the latent.

    It has the properties of `imagine` graphs: sample 0 is the mean if its noise is zero, limits are
    applied inside, candidates that are not finite never count, feasible ones rank first, and the
    incumbent takes part in the best alone.

    Args:
        spec: of the model and the robot.
        planner: whose iteration it is.
        push: `[a, D]`; None moves every dimension by the first action number, as `FakeBackend`'s
            forecast does.
        probe: `[D, P]` quantities are `z @ probe`; None reads the first P dimensions.
        hazard: `[D, G]` logits are `z_next @ hazard`; None for the first G dimensions.
        spoil: changes latents `[M, H, D]` in place before they are judged, to plant NaN.
    """

    spec: PlanSpec
    planner: PlannerSpec
    push: NDArray | None = None
    probe: NDArray | None = None
    hazard: NDArray | None = None
    spoil: Callable[[NDArray], None] | None = None

    def arrays(self) -> tuple[Arrays, Arrays]:
        """Return inputs and outputs of the graph, as `FakeEngine` and `FakeTensorRt` take them."""
        tensors = self.spec.tensors[self.planner.graph]
        return (
            {name: (shape, np.float32) for name, shape in tensors.inputs.items()},
            {name: (shape, np.float32) for name, shape in tensors.outputs.items()},
        )

    def __call__(self, given: Mapping[str, NDArray], out: Mapping[str, NDArray]) -> None:
        """Run one iteration."""
        candidates = self._limited(self._candidates(given), given)
        z = self._rollout(candidates, given["z_hist"][-1])
        if self.spoil is not None:
            self.spoil(z)
        # NaN and infinity are planted on purpose.
        with np.errstate(all="ignore"):
            cost, violation = self._cost(z, given), self._violation(z, given)
        valid = np.isfinite(cost) & np.isfinite(violation) & np.isfinite(z).all(axis=(1, 2))
        self._best(candidates, z, cost, violation, valid, out)
        samples = slice(0, self.planner.samples)
        out["costs"][...] = np.where(valid, cost, INVALID_COST)[samples]
        if "violations" in out:
            out["violations"][...] = np.where(valid, violation, INVALID_COST)[samples]
        out["invalid"][0] = (~valid[samples]).sum()
        self._refit(
            candidates[samples], cost[samples], violation[samples], valid[samples], given, out
        )

    def _candidates(self, given: Mapping[str, NDArray]) -> NDArray:
        drawn = given["mean"] + given["std"] * given["noise"]
        if self.planner.kept:
            # The last ones, since sample 0 must stay the mean.
            drawn[-self.planner.kept :] = given["kept"]
        return np.concatenate([drawn, given["incumbent"][None]])

    def _limited(self, plans: NDArray, given: Mapping[str, NDArray]) -> NDArray:
        low, high = given["low"], given["high"]
        by_tick = np.clip(plans.reshape(len(plans), -1, len(low)), low, high)
        if self.planner.rate_limited:
            last = given["a_last"]
            for tick in range(by_tick.shape[1]):
                # Bounds after the rate: a last action outside of them returns in one step.
                now = np.clip(by_tick[:, tick], last - given["rate"], last + given["rate"])
                by_tick[:, tick] = last = np.clip(now, low, high)
        return by_tick.reshape(plans.shape)

    def _rollout(self, plans: NDArray, z: NDArray) -> NDArray:
        push = self.push
        if push is None:
            push = np.zeros((len(self.spec.low), len(z)), np.float32)
            push[0] = 1.0
        steps = plans.reshape(*plans.shape[:2], -1, len(push)).sum(axis=2) @ push
        future: NDArray = z + np.cumsum(steps, axis=1)
        return future.astype(np.float32)

    def _cost(self, z: NDArray, given: Mapping[str, NDArray]) -> NDArray:
        terminal, running, support = given["weights"]
        distance = ((z - given["z_goal"]) ** 2).sum(axis=2)
        cost = terminal * (distance @ given["when"]) + running * distance.mean(axis=1)
        if self.spec.heads.support:
            away = (z**2).mean(axis=2)
            cost = cost + support * np.maximum(away - 1, 0).mean(axis=1)
        if "probe_target" in given:
            probe = np.eye(z.shape[2])[:, : len(given["probe_target"])]
            probe = probe if self.probe is None else self.probe
            wanted = np.where(
                given["probe_given"] > 0, given["probe_target"], given["z_goal"] @ probe
            )
            error = (z @ probe - wanted) / np.asarray(self.spec.heads.scale)
            cost = cost + (given["probe_weight"] * error**2).sum(axis=2) @ given["when"]
        return np.asarray(cost, np.float32)

    def _violation(self, z: NDArray, given: Mapping[str, NDArray]) -> NDArray:
        if "hazard_limit" not in given:
            return np.zeros(len(z), np.float32)
        limit = given["hazard_limit"]
        hazard = np.eye(z.shape[2])[:, : len(limit)] if self.hazard is None else self.hazard
        over = np.maximum(z @ hazard - limit, 0)
        return np.asarray(over.sum(axis=(1, 2)), np.float32)

    def _best(
        self,
        plans: NDArray,
        z: NDArray,
        cost: NDArray,
        violation: NDArray,
        valid: NDArray,
        out: Mapping[str, NDArray],
    ) -> None:
        best = _order(cost, violation, valid)[0]
        out["actions"][...] = plans[best] if valid[best] else plans[-1]
        out["z_future"][...] = z[best]
        out["cost"][0] = cost[best] if valid[best] else INVALID_COST
        out["violation"][0] = violation[best] if valid[best] else 0.0

    def _refit(
        self,
        plans: NDArray,
        cost: NDArray,
        violation: NDArray,
        valid: NDArray,
        given: Mapping[str, NDArray],
        out: Mapping[str, NDArray],
    ) -> None:
        if self.planner.kind == "mppi":
            self._weigh(plans, cost, violation, valid, given, out)
            return
        order = _order(cost, violation, valid)
        elites = plans[order[: self.planner.elites]]
        elites = elites[: valid.sum()]
        if self.planner.kept:
            # Its size is fixed: with fewer valid elites the old ones remain.
            out["kept_next"][...] = given["kept"]
            out["kept_next"][: len(elites)] = elites[: self.planner.kept]
        # An unbiased spread needs two.
        if len(elites) < 2:
            out["mean_next"][...], out["std_next"][...] = given["mean"], given["std"]
        else:
            out["mean_next"][...] = elites.mean(axis=0)
            out["std_next"][...] = elites.std(axis=0, ddof=1)

    def _weigh(
        self,
        plans: NDArray,
        cost: NDArray,
        violation: NDArray,
        valid: NDArray,
        given: Mapping[str, NDArray],
        out: Mapping[str, NDArray],
    ) -> None:
        """Refit as MPPI: the weight of a feasible candidate falls exponentially with its cost."""
        feasible = valid & (violation <= 0)
        chosen, score = (feasible, cost) if feasible.any() else (valid, violation)
        if not chosen.any():
            out["mean_next"][...], out["std_next"][...] = given["mean"], given["std"]
            return
        # Relative to the best, or exp would underflow for all of them.
        lowest = score[chosen].min()
        weight = np.where(chosen, np.exp((lowest - score) / given["temperature"]), 0)
        weight = (weight / weight.sum())[:, None, None]
        mean = (weight * plans).sum(axis=0)
        out["mean_next"][...] = mean
        out["std_next"][...] = np.sqrt((weight * (plans - mean) ** 2).sum(axis=0)) + _FLOOR


def _order(cost: NDArray, violation: NDArray, valid: NDArray) -> NDArray:
    """Order feasible ones by cost, then infeasible ones by violation, then invalid ones."""
    kind = np.where(~valid, 2, (violation > 0).astype(int))
    # Values of invalid ones may be NaN, which has no order.
    key = np.where(kind == 2, 0, np.where(kind == 1, violation, cost))
    return np.lexsort((key, kind))
