"""A live Gymnasium environment as a camera on a robot that is driven by a policy.

Shapes: h, w frame size; n steps; a size of one robot action.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jetsight.cameras.source import Reading, SourceInfo, StreamRequest
from jetsight.engine import NDArray
from jetsight.errors import CameraError, DataError, UsageError
from jetsight.simulators.environment import Environment
from jetsight.simulators.policies import HeldRandom, UserPolicy
from jetsight.simulators.spec import EnvironmentSpec

Policy = Callable[[Any, int], NDArray]
"""`policy(environment, n) -> float32 [m, a]`, 1 <= m <= n: the planned actions from now on.

Only the first one is executed before the next call. The environment is the open
`jetsight.simulators.environment.Environment`."""

_MOST_SHORT = 10  # episodes in a row that end after one step


class GymSource:
    """Environment that is stepped once per frame; its actions are known.

    Args:
        env_id: see `EnvironmentSpec`, e.g. `gym_pusht/PushT-v0`.
        seed: of the environment and of the policy.
        policy: chooses the actions, or names a function that does as `module:function` (see
            `UserPolicy`), whose next action alone is known; held random ones by default.
        cameras: see `EnvironmentSpec`; those that a model of several cameras names by default.
    """

    def __init__(
        self,
        env_id: str,
        *,
        seed: int = 0,
        policy: Policy | str | None = None,
        cameras: Sequence[str] = (),
    ) -> None:
        self._id = env_id
        self._seed = seed
        self._policy = policy
        self._cameras = tuple(cameras)
        self._env: Environment | None = None
        self._plan: NDArray | None = None

    def start(self, request: StreamRequest) -> SourceInfo:
        """Make and reset the environment.

        Raises:
            MissingDependency: gymnasium or the environment's package is not installed.
            CameraError: it is unknown, has no picture, or does not fit the model.
        """
        self._request = request
        self._period_ns = round(1e9 / request.camera_hz)
        self._resets = self._ticks = self._short = 0
        self._length, self._done = 0, False
        self._executed: NDArray | None = None
        size_hw = (request.height_px, request.width_px)
        cameras = self._cameras or (request.cameras if len(request.cameras) > 1 else ())
        spec = EnvironmentSpec(self._id, size_hw, cameras, hz=request.camera_hz)
        try:
            self._env = Environment.open(spec)
            self._env.check_actions(request.recording_spec.action_names)
            self._state_places = _places(self._env, request.state_names)
            self._env.probe()
            self._seen = self._env.reset(self._seed)
            self._drive = self._driver(self._env)
            # Before the first frame, so that a policy that cannot drive is refused here.
            self._plan = self._planned(self._env)
        except (UsageError, DataError) as problem:
            raise CameraError(str(problem)) from problem
        return SourceInfo(
            f"gym:{self._id}",
            *size_hw,
            request.camera_hz,
            simulated=True,
            cameras=len(self._env.cameras),
            has_state=True,  # checked by name above
            reports_actions=True,
        )

    def read(self) -> Reading | None:
        """Take the picture, then execute the first planned action for the next one."""
        assert self._env is not None
        try:
            return self._read(self._env)
        except DataError as problem:
            raise CameraError(str(problem)) from problem

    def close(self) -> None:
        """Close the environment."""
        if self._env is not None:
            self._env.close()
            self._env = None

    def _read(self, env: Environment) -> Reading:
        cut = self._done
        if cut:
            self._restart(env)
        plan = self._planned(env) if self._plan is None else self._plan
        self._plan = None
        # The last action belongs to the episode before.
        executed, media_ns = None if cut else self._executed, self._ticks * self._period_ns
        reading = Reading(
            self._seen.frame_hwc_u8,
            media_ns,
            actions=executed,
            plan=plan,
            cut=cut,
            state=self._seen.state[self._state_places] if self._state_places else None,
        )
        self._seen, _, self._done = env.step(plan[0])
        self._executed = plan[:1]
        self._ticks += 1
        self._length += 1
        return reading

    def _restart(self, env: Environment) -> None:
        self._short = self._short + 1 if self._length < 2 else 0
        if self._short >= _MOST_SHORT:
            raise DataError(
                f"environment {self._id!r} ended {self._short} episodes in a row after one step, "
                "so there is nothing to forecast; correct it, or remove its time limit"
            )
        self._resets += 1
        self._length = 0
        # Another seed, or every episode would be the first one again.
        self._seen = env.reset(self._seed + self._resets)
        if isinstance(self._policy, str):
            self._drive = self._driver(env)

    def _planned(self, env: Environment) -> NDArray:
        plan = np.asarray(self._drive(env, self._request.plan_ticks), np.float32)
        if plan.ndim != 2 or not len(plan) >= 1:
            raise DataError(
                f"the policy's plan has shape {list(plan.shape)}, expected [n, "
                f"{self._request.step_size}] with at least one action; correct it"
            )
        return plan

    def _driver(self, env: Environment) -> Policy:
        """Make the policy of one episode."""
        if self._policy is None:
            hold = self._request.action_block
            return HeldRandom(env.action_low, env.action_high, hold, self._seed)
        if not isinstance(self._policy, str):
            return self._policy
        # One generator per episode, so that an episode is a function of its seed.
        rng = np.random.default_rng([self._seed, self._resets])
        user = UserPolicy(self._policy, env, rng)
        return lambda environment, n: user()[None]


def _places(env: Environment, names: Sequence[str]) -> list[int]:
    """Find the numbers that a model reads in the environment's state.

    Raises:
        UsageError: the state lacks one.
    """
    missing = [name for name in names if name not in env.state_names]
    if missing:
        raise UsageError(
            f"environment {env.env_id!r} has no {', '.join(missing)} in its state "
            f"({', '.join(env.state_names) or 'empty'}), which the model reads beside every frame; "
            "use the environment the model was trained in"
        )
    return [env.state_names.index(name) for name in names]
