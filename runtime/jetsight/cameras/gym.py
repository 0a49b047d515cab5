"""A live Gymnasium environment as a camera on a robot that is driven by a policy.

Shapes: h, w frame size; n steps; a size of one robot action.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from jetsight.cameras.source import Reading, SourceInfo, StreamRequest
from jetsight.datasets.fit import rates_agree
from jetsight.engine import NDArray
from jetsight.errors import CameraError, MissingDependency, first_line

Policy = Callable[[Any, int], NDArray]
"""`policy(environment, n) -> float32 [m, a]`, 1 <= m <= n: the planned actions from now on.

Only the first one is executed before the next call."""


class HeldRandom:
    """Random actions inside the bounds, each held for one block, known n steps ahead.

    Args:
        low: `[a]` smallest action; an unbounded side counts as -1.
        high: `[a]` largest action; an unbounded side counts as 1.
        hold: steps one action is held.
        seed: of the draw.
    """

    def __init__(self, low: NDArray, high: NDArray, hold: int, seed: int) -> None:
        # A uniform draw needs finite bounds.
        self._low = np.where(np.isfinite(low), low, -1.0)
        self._high = np.where(np.isfinite(high), high, 1.0)
        self._hold = hold
        self._rng = np.random.default_rng(seed)
        self._queue = np.zeros((0, len(low)), np.float32)

    def __call__(self, environment: Any, n: int) -> NDArray:
        """Plan the next `n` actions; every call advances by one step."""
        self._queue = self._queue[1:]
        while len(self._queue) < n:
            drawn = self._rng.uniform(self._low, self._high).astype(np.float32)
            self._queue = np.concatenate([self._queue, np.tile(drawn, (self._hold, 1))])
        return self._queue[:n]


class GymSource:
    """Environment that is stepped once per frame; its actions are known.

    Args:
        env_id: Gymnasium id, e.g. `gym_pusht/PushT-v0`, or `module:id` to import one first.
        seed: of the environment and of the random policy.
        policy: chooses the actions; held random ones by default.
    """

    def __init__(self, env_id: str, *, seed: int = 0, policy: Policy | None = None) -> None:
        self._id = env_id
        self._seed = seed
        self._policy = policy
        self._env: Any = None

    def start(self, request: StreamRequest) -> SourceInfo:
        """Make and reset the environment.

        Raises:
            MissingDependency: gymnasium or the environment's package is not installed.
            CameraError: it is unknown, has no picture, or does not fit the model.
        """
        self._request = request
        self._period_ns = round(1e9 / request.camera_hz)
        self._env = _make(self._id, request)
        self._resets, self._ticks = 0, 0
        self._done = False
        self._executed: NDArray | None = None
        observation, _ = self._env.reset(seed=self._seed)
        self._image = self._picture(observation)
        space = self._env.action_space
        if getattr(space, "shape", None) != (request.step_size,):
            raise CameraError(
                f"{self._id} takes actions {space}, but the model's actions are "
                f"{request.step_size} numbers; use the environment the model was trained in"
            )
        hold = request.action_block
        self._drive = self._policy or HeldRandom(space.low, space.high, hold, self._seed)
        fps = self._env.metadata.get("render_fps")
        # The rate is checked, not set: one step of the environment is one tick of the model.
        if fps is not None and not rates_agree(fps, request.camera_hz):
            raise CameraError(
                f"{self._id} runs at {fps:g} steps per second, but the model at "
                f"{request.camera_hz:g}; use the environment the model was trained in"
            )
        height, width = self._image.shape[:2]
        return SourceInfo(f"gym:{self._id}", height, width, request.camera_hz, reports_actions=True)

    def read(self) -> Reading | None:
        """Take the picture, then execute the first planned action for the next one."""
        cut = self._done
        if cut:
            self._restart()
        plan = np.asarray(self._drive(self._env, self._request.plan_ticks), np.float32)
        # The last action belongs to the episode before.
        executed, media_ns = None if cut else self._executed, self._ticks * self._period_ns
        reading = Reading(self._image, media_ns, actions=executed, plan=plan, cut=cut)
        self._execute(plan[0])
        return reading

    def close(self) -> None:
        """Close the environment."""
        if self._env is not None:
            self._env.close()
            self._env = None

    def _execute(self, action: NDArray) -> None:
        space = self._env.action_space
        observation, _, terminated, truncated, _ = self._env.step(action.astype(space.dtype))
        self._image = self._picture(observation)
        self._executed = action[None]
        self._ticks += 1
        self._done = bool(terminated or truncated)

    def _restart(self) -> None:
        self._resets += 1
        # Another seed, or every episode would be the first one again.
        observation, _ = self._env.reset(seed=self._seed + self._resets)
        self._image = self._picture(observation)

    def _picture(self, observation: Any) -> NDArray:
        values = observation.values() if isinstance(observation, dict) else [observation]
        for value in values:
            # A picture among the observations is preferred: it has the size that the model was
            # trained on.
            if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 3:
                return np.ascontiguousarray(value)
        image = self._env.render()
        if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3:
            raise CameraError(
                f"{self._id} has no picture; choose an environment with pixel observations or "
                "render_mode 'rgb_array'"
            )
        return np.ascontiguousarray(image)


def _make(env_id: str, request: StreamRequest) -> Any:
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame must not open a window
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # simulators warn about their own dependencies
        gymnasium = _import("gymnasium")
        module, _, name = env_id.rpartition(":")
        # Imported by name, so that a missing package is reported with the extra to install.
        if name.startswith("gym_pusht/"):
            _import("gym_pusht")
        try:
            _register(module, name)
            # A time limit would cut the scene; -1 removes it.
            options = _options(gymnasium, name, request)
            return gymnasium.make(name, disable_env_checker=True, max_episode_steps=-1, **options)
        except (gymnasium.error.Error, ImportError, TypeError, ValueError) as error:
            raise CameraError(
                f"cannot make environment {env_id!r} ({first_line(error)}); give the id "
                "of an installed Gymnasium environment that supports render_mode 'rgb_array'"
            ) from error


def _register(module: str, name: str) -> None:
    """Import the module that registers `name`: `module`, or the package of its namespace."""
    if module:
        importlib.import_module(module)
    elif "/" in name:
        with contextlib.suppress(ImportError):  # a namespace need not be a package
            importlib.import_module(name.split("/")[0])


def _options(gymnasium: Any, env_id: str, request: StreamRequest) -> dict[str, Any]:
    """Choose pixels of the model's size if the environment has PushT's options for them."""
    entry = gymnasium.spec(env_id).entry_point
    maker = gymnasium.envs.registration.load_env_creator(entry) if isinstance(entry, str) else entry
    size = {"observation_height": request.height_px, "observation_width": request.width_px}
    pixels = {"obs_type": "pixels", **size}
    supported = pixels.keys() <= inspect.signature(maker).parameters.keys()
    return {"render_mode": "rgb_array", **(pixels if supported else {})}


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingDependency(module, "sim", "a simulated camera") from None
