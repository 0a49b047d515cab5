"""Gymnasium environments as robots with a camera: frames, states, bounded actions.

Shapes: h, w frame size; s state size; a action size.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetsight.datasets.pyav import resize
from jetsight.errors import JetsightError, MissingDependency, UsageError, first_line
from jetsight.signals import deferred_signals
from jetsight.simulators import differential_drive
from jetsight_train.record.pusht import Scene

PUSHT = "gym_pusht/PushT-v0"


@dataclass(frozen=True)
class Observation:
    """Observation of one tick: `frame_hwc_u8` [h,w,3] RGB and `state` [s] float32."""

    frame_hwc_u8: NDArray[np.uint8]
    state: NDArray[np.float32]


class PixelEnvironment:
    """Any Gymnasium environment with pixels (observed or rendered) and a Box action space.

    Args:
        env_id: Gymnasium id, e.g. `"gym_pusht/PushT-v0"`; its namespace package is imported.
        size_hw: frame size to record; frames of another size are area-resampled to it.
        steps: longest episode, ticks; raises the time limit of the environment to it.

    Raises:
        MissingDependency: gymnasium or the package of the environment is not installed.
        UsageError: the environment is unknown, has no pixels or no Box actions.
    """

    def __init__(self, env_id: str, size_hw: tuple[int, int], steps: int) -> None:
        self.env_id = env_id
        self.size_hw = size_hw
        self._env = _make(env_id, self._options(), steps)
        space = self._env.action_space
        if type(space).__name__ != "Box" or len(space.shape) != 1:
            raise UsageError(
                f"environment {env_id!r} has actions {space}; "
                "expected a one-dimensional Box, so choose an environment with continuous actions"
            )
        self.action_low = np.asarray(space.low, dtype=np.float32)
        self.action_high = np.asarray(space.high, dtype=np.float32)
        metadata = self._env.metadata
        self.action_names = metadata.get("action_names") or [
            f"action_{i}" for i in range(space.shape[0])
        ]
        self.state_names = metadata.get("state_names") or _state_names(self._env.observation_space)
        rate = metadata.get("render_fps")
        self.fps: int | None = round(rate) if rate else None  # None if the metadata lacks it

    def _options(self) -> dict[str, Any]:
        return {"render_mode": "rgb_array"}

    def reset(self, seed: int) -> Observation:
        """Start the episode of `seed`."""
        with deferred_signals():
            raw, _ = self._env.reset(seed=seed)
            return self._observe(raw)

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool]:
        """Apply `action` [a] for one tick; returns observation, reward and end of episode."""
        # The simulator draws through C code that calls Python back and drops its exceptions.
        with deferred_signals():
            raw, reward, terminated, truncated, _ = self._env.step(action)
            return self._observe(raw), float(reward), bool(terminated or truncated)

    @property
    def unwrapped(self) -> Any:
        """The Gymnasium environment without its wrappers."""
        return self._env.unwrapped

    def close(self) -> None:
        """Release the simulator."""
        self._env.close()

    def _observe(self, raw: Any) -> Observation:
        frame = _pixels_of(raw)
        if frame is None:
            frame = self._env.render()
        if not isinstance(frame, np.ndarray) or frame.ndim != 3 or frame.shape[2] != 3:
            raise UsageError(
                f"environment {self.env_id!r} returns no RGB picture; "
                "expected an [h,w,3] uint8 observation or render_mode 'rgb_array'"
            )
        return Observation(resize(frame, *self.size_hw), self._state(raw))

    def _state(self, raw: Any) -> NDArray[np.float32]:
        parts = [np.asarray(v, dtype=np.float32).ravel() for v in _numeric_of(raw).values()]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)


class PushT(PixelEnvironment):
    """`gym_pusht/PushT-v0`, drawn once per tick at the camera's size, with the full state.

    Success does not end an episode, since the physics goes on. State: agent x, y, block x, y in px
    of 512, block angle in [0, 2 pi).
    """

    def __init__(self, env_id: str, size_hw: tuple[int, int], steps: int) -> None:
        super().__init__(env_id, size_hw, steps)
        self.action_names = ["target_x", "target_y"]
        self.state_names = ["agent_x", "agent_y", "block_x", "block_y", "block_angle"]

    def _options(self) -> dict[str, Any]:
        height, width = self.size_hw
        return {
            "render_mode": "rgb_array",
            "obs_type": "pixels",
            "observation_height": height,
            "observation_width": width,
        }

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool]:
        """Advance one tick of 0.1 s; success does not end the episode."""
        observation, reward, _ = super().step(action)
        return observation, reward, False

    def scene(self) -> Scene:
        """Return the current poses of agent and block."""
        world = self._env.unwrapped
        return Scene(
            np.array(world.agent.position, dtype=np.float64),
            np.array(world.block.position, dtype=np.float64),
            float(world.block.angle),
        )

    def physics(self) -> NDArray[np.float64]:
        """Read the exact state of the simulator: poses and velocities of agent and block [10].

        Equal numbers after equal actions from equal resets mean the same physical state.
        """
        world = self._env.unwrapped
        bodies = (world.agent, world.block)
        parts = [value for body in bodies for value in (*body.position, *body.velocity)]
        return np.array([*parts, world.block.angle, world.block.angular_velocity])

    def _state(self, raw: Any) -> NDArray[np.float32]:
        del raw
        scene = self.scene()
        # The simulator's angle goes on counting after a whole turn.
        angle = scene.angle % (2 * np.pi)
        return np.array([*scene.agent, *scene.block, angle], dtype=np.float32)


def open_environment(env_id: str, size_hw: tuple[int, int], steps: int) -> PixelEnvironment:
    """Open the environment `env_id` in the class made for it; see `PixelEnvironment`."""
    kind = PushT if env_id == PUSHT else PixelEnvironment
    return kind(env_id, size_hw, steps)


def _make(env_id: str, options: dict[str, Any], steps: int) -> Any:
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame would look for a screen
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # simulators warn about their own dependencies
        gymnasium = _import("gymnasium")
        if env_id.startswith("gym_pusht/"):
            _import("gym_pusht")
        elif env_id.startswith("jetsight/"):
            differential_drive.register()
        elif "/" in env_id:  # by convention a package registers the namespace of its own name
            with contextlib.suppress(ImportError):
                importlib.import_module(env_id.split("/")[0])
        try:
            return gymnasium.make(
                # One tick more than is recorded, so that the time limit never ends an episode.
                env_id,
                max_episode_steps=steps + 1,
                disable_env_checker=True,
                **options,
            )
        except (gymnasium.error.Error, ImportError, TypeError, ValueError) as problem:
            raise UsageError(
                f"cannot make environment {env_id!r}: {first_line(problem)}; "
                "expected an installed Gymnasium environment with render_mode 'rgb_array'"
            ) from problem


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as problem:
        raise MissingDependency(module, "sim", "recording a simulated robot") from problem
    except ImportError as problem:  # a system library is missing: OpenCV needs libGL
        raise JetsightError(
            f"Python package {module!r} is installed but does not load ({first_line(problem)}); "
            "install that library, on Debian and Ubuntu: sudo apt install libgl1 libglib2.0-0"
        ) from problem


def _pixels_of(raw: Any) -> NDArray[np.uint8] | None:
    """Find the picture in an observation, if there is one."""
    values = raw.values() if isinstance(raw, dict) else [raw]
    for value in values:
        if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 3:
            return value
    return None


def _numeric_of(raw: Any) -> dict[str, Any]:
    """Select the one-dimensional numeric parts of an observation, by name, in a fixed order."""
    named = raw if isinstance(raw, dict) else {"state": raw}
    return {key: named[key] for key in sorted(named) if np.ndim(named[key]) == 1}


def _state_names(space: Any) -> list[str]:
    parts = getattr(space, "spaces", None)
    named = dict(parts.items()) if isinstance(parts, dict) else {"state": space}
    names: list[str] = []
    for key in sorted(named):
        shape = getattr(named[key], "shape", None)
        if shape is not None and len(shape) == 1:
            names += [f"{key}_{i}" for i in range(shape[0])]
    return names
