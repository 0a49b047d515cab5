"""stable-worldmodel's own CEM solver around its own LeWM classes, with the weights of our model.

Both of its interfaces are known: the released wheel's `stable_worldmodel.solver` (`model=`, the
first candidate actions belong to the given frames) and its main branch's
`stable_worldmodel.planning` (`cost=`, candidates are strictly future). With a history of one frame
both roll out windows of 1, 2, 3, 3, 3 latents. Its code encodes frame and goal once per plan and
keeps them; here both are given as latents, to it and to us.

The `__init__` of the package imports simulators, Lance and torchvision, none of which the solver or
the model uses; so the parent packages are entered without running it.

Shapes: N samples, H horizon, A action-block size, D latent size.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from jetsight.clock import Clock
from jetsight.errors import UsageError
from jetsight_train.model.predictor import Predictor
from jetsight_train.model.world_model import WorldModel
from planrace.problem import Problem

NAME = "stable_worldmodel"
Api = Literal["solver", "planning"]


@dataclass(frozen=True)
class Solved:
    """One plan.

    Attributes:
        mean: `[H, A]` after the last iteration.
        costs: `[N]` of every iteration.
        iterations_ms: time of every iteration; the first one's includes what happens before it.
    """

    mean: Tensor
    costs: list[Tensor]
    iterations_ms: list[float]


class Observer:
    """A callback of their solver that keeps the costs and the time of each iteration."""

    output_key = "observed"

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.history: list[Tensor] = []
        self.times_ns: list[int] = []

    def reset(self) -> None:
        """Begin a plan."""
        self.history, self.times_ns = [], [self.clock.now_ns()]

    def start_batch(self) -> None:
        """Nothing to do: there is one environment."""

    def __call__(self, *, costs: Tensor, **_: Any) -> None:
        """End an iteration."""
        self.history.append(costs[0])
        self.times_ns.append(self.clock.now_ns())

    def end_solve(self) -> None:
        """Nothing to do."""


def found_api() -> Api:
    """Tell which interface the installed stable-worldmodel has.

    Raises:
        UsageError: it is not installed.
    """
    enter_packages()
    for name in ("planning", "solver"):
        spec = importlib.util.find_spec(f"{NAME}.{name}")
        if spec is not None and spec.origin is not None:  # an empty folder has none
            return name  # type: ignore[return-value]
    raise UsageError(f"{NAME} has neither a solver nor a planning package; expected version 0.1.1")


def enter_packages() -> None:
    """Make modules of stable-worldmodel importable without running its package's `__init__`.

    Raises:
        UsageError: it is not installed.
    """
    if NAME in sys.modules:
        return
    spec = importlib.util.find_spec(NAME)
    if spec is None or spec.submodule_search_locations is None:
        raise UsageError(
            f"{NAME} is not installed here; run: make bench-plan, which makes an environment for it"
        )
    for name in ("", ".wm"):
        package = types.ModuleType(NAME + name)
        package.__path__ = [
            place + name.replace(".", "/") for place in spec.submodule_search_locations
        ]
        sys.modules[package.__name__] = package


def lewm(model: WorldModel) -> nn.Module:
    """Their LeWM with our weights; frames never reach it, so it has no encoder."""
    enter_packages()
    parts = importlib.import_module(f"{NAME}.wm.lewm.module")
    net = importlib.import_module(f"{NAME}.wm.lewm.lewm").LeWM
    ours, size = model.predictor, model.config.latent_size
    config = model.config.predictor
    predictor = parts.Predictor(
        num_frames=model.config.history,
        depth=config.depth,
        heads=config.heads,
        mlp_dim=config.mlp,
        input_dim=size,
        hidden_dim=size,
        dim_head=config.head_size,
        dropout=config.dropout,
    )
    hidden = ours.actions.embed[0].out_features
    actions = parts.Embedder(
        model.action_size, ours.actions.code.out_features, size, hidden // size
    )
    project = parts.MLP(size, config.projector, norm_fn=nn.BatchNorm1d)
    theirs: nn.Module = net(nn.Identity(), predictor, actions, pred_proj=project)
    theirs.load_state_dict(renamed(ours))
    return theirs.eval().requires_grad_(False)


def renamed(predictor: Predictor) -> dict[str, Tensor]:
    """Rename the predictor's weights to LeWM's names."""
    table = {
        "positions": "predictor.pos_embedding",
        "norm": "predictor.transformer.norm",
        "actions.code": "action_encoder.patch_embed",
        "actions.embed": "action_encoder.embed",
        "project.up": "pred_proj.net.0",
        "project.norm": "pred_proj.net.1",
        "project.down": "pred_proj.net.3",
    }
    for i in range(len(predictor.blocks)):
        to = f"predictor.transformer.layers.{i}"
        table |= {
            f"blocks.{i}.attention.norm": f"{to}.attn.norm",
            f"blocks.{i}.attention.qkv": f"{to}.attn.to_qkv",
            f"blocks.{i}.attention.out": f"{to}.attn.to_out",
            f"blocks.{i}.mlp": f"{to}.mlp.net",
            f"blocks.{i}.modulation": f"{to}.adaLN_modulation",
        }
    found = {}
    for name, tensor in predictor.state_dict().items():
        prefix = max((p for p in table if name == p or name.startswith(p + ".")), key=len)
        found[table[prefix] + name[len(prefix) :]] = tensor
    weight = "action_encoder.patch_embed.weight"
    found[weight] = found[weight][..., None]  # a convolution with kernel 1
    return found


def planner(problem: Problem, clock: Clock, *, compiled: bool = False) -> Callable[[int], Solved]:
    """Make a function from a seed to a plan by their solver.

    Args:
        problem: what to plan.
        clock: to time iterations with.
        compiled: with the rollout and cost under torch.compile.
    """
    api = found_api()
    cost = _Costs(_costable(api, problem), compiled)
    package = importlib.import_module(f"{NAME}.{api}")
    argument = {"model": cost} if api == "solver" else {"cost": cost}
    observer = Observer(clock)
    solver = package.CEMSolver(
        **argument,
        num_samples=problem.samples,
        n_steps=problem.iterations,
        topk=problem.elites,
        callbacks=[observer],
    )
    _configure(solver, problem)
    start = {
        "pixels": torch.zeros(1, 1, 1),  # counted, never looked at: one frame of history
        "goal": torch.zeros(1, 1, 1),
        "action": torch.zeros(1, 1, problem.model.action_size),
        "emb": problem.z[None],
    }
    if api == "solver":
        start["goal_emb"] = problem.goal[None]

    def plan(seed: int) -> Solved:
        solver.torch_gen.manual_seed(seed)
        with contextlib.redirect_stdout(io.StringIO()):  # it prints how long it took
            found = solver.solve(dict(start))
        times = np.diff(observer.times_ns) / 1e6
        return Solved(found["actions"][0], list(observer.history), times.tolist())

    return plan


def _configure(solver: Any, problem: Problem) -> None:
    from gymnasium.spaces import Box

    block = problem.model.timing.action_block
    size = problem.model.action_size // block
    # policy.PlanConfig, whose module imports torchvision; the solver reads these two of it.
    config = types.SimpleNamespace(horizon=problem.horizon, action_block=block)
    space = Box(-np.inf, np.inf, (1, size), np.float32)
    solver.configure(action_space=space, n_envs=1, config=config)


def _costable(api: Api, problem: Problem) -> Any:
    """Cost model for their solver, of either interface."""
    model = lewm(problem.model)
    if api == "solver":
        return model
    package = importlib.import_module(f"{NAME}.planning")
    goal = problem.goal[None]
    return package.ShootingCostEvaluator(
        model, package.GoalMSE(), encode_goal=lambda *_: goal.clone()
    )


class _Costs:
    """Their costs as they are, or compiled.

    Args:
        costs: has `get_cost(info, candidates)`.
        compiled: whether to put that under torch.compile. Their code adds entries to `info` in
            every iteration, at which torch.compile would start anew; it is given copies.
    """

    def __init__(self, costs: Any, compiled: bool) -> None:
        self._costs = costs
        self._call = torch.compile(self._fresh, dynamic=False) if compiled else costs.get_cost

    def parameters(self) -> Any:
        """Return the number format, where their solver looks for it."""
        return self._costs.parameters()

    def get_cost(self, info: dict[str, Tensor], candidates: Tensor) -> Tensor:
        """`[1, N]` costs of `candidates [1, N, H, A]`."""
        found: Tensor = self._call(info, candidates)
        return found

    def criterion(self, info: dict[str, Tensor], candidates: Tensor) -> Tensor:
        """Part of their contract that CEM never calls."""
        raise NotImplementedError("CEM asks for costs alone")

    def _fresh(self, info: dict[str, Tensor], candidates: Tensor) -> Tensor:
        found: Tensor = self._costs.get_cost(dict(info), candidates)
        return found
