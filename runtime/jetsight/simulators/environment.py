"""One adapter to Gymnasium for `collect`, `run` and `eval`: frames, states, actions, names, rate.

What an environment cannot do for one of them it is refused for by all, in the same words.

Shapes: C cameras, h, w frame size, s state size, a action size.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetsight.bundle.model_spec import labels
from jetsight.errors import ArtefactError, DataError, JetsightError, UsageError, first_line
from jetsight.signals import deferred_signals
from jetsight.simulators import registry
from jetsight.simulators.actions import ActionVector
from jetsight.simulators.cameras import CameraSet
from jetsight.simulators.observations import InfoReader, StateReader, kept_column, parts_of
from jetsight.simulators.pusht import PushTWrapper
from jetsight.simulators.spec import EnvironmentMetadata, EnvironmentSpec, Observation

_log = logging.getLogger("jetsight")
_NEARLY_BLACK = 16  # of 255: no larger value in two pictures is a scene
_MOST_BLACK = 50  # black frames in a row before the simulator is taken to draw no more
_TRIES = 3  # seeds whose first step ends the episode before all are taken to
_WRAPPERS = {registry.PUSHT: PushTWrapper}


class Environment:
    """A Gymnasium environment with a camera and continuous actions; make one with `open`.

    Attributes:
        spec: requirements it was opened with.
        env_id: its Gymnasium id.
        hz: ticks per second.
        cameras: names of its cameras.
        action_low, action_high: `[a]` bounds; infinite where there are none.
        action_names, action_units: of the actions; units are empty where none are known.
        state_names, state_units: of the state; empty without one.
        keep: entries of `info` that are kept.
        notes: one line per fact that a user must know; `probe` logs them.
        observation: of the newest tick.
    """

    def __init__(self, spec: EnvironmentSpec, env: Any) -> None:
        self.spec, self.env_id, self._env = spec, spec.env_id, env
        metadata = EnvironmentMetadata(getattr(env, "metadata", None))
        self._actions = _actions_of(env, spec, metadata)
        self.action_low, self.action_high = self._actions.low, self._actions.high
        self.action_names, self.action_units = self._actions.names, self._actions.units
        self.hz, notes = metadata.rate(spec.hz)
        self._cameras = CameraSet(env.observation_space, spec.cameras, spec.size_hw)
        self.cameras = self._cameras.names
        self._state = StateReader(parts_of(env.observation_space))
        self.state_names = metadata.names("state_names", len(self._state.names))
        self.state_names = self.state_names or self._state.names
        _check_labels(self.state_names)
        self.state_units = metadata.names("state_units", len(self.state_names))
        self._info = InfoReader(spec.keep or metadata.names("keep"))
        self.keep = self._info.names
        self.notes = (*notes, *self._cameras.notes)
        self.observation: Observation
        self._ticks = self._black = 0

    @classmethod
    def open(cls, spec: EnvironmentSpec) -> Environment:
        """Open the environment of `spec`.

        Raises:
            MissingDependency: gymnasium or the package of the environment is not installed.
            UsageError: it is unknown, or has no usable picture, action, rate or name.
        """
        env = registry.make(spec.env_id, spec.size_hw, spec.steps)
        env = _WRAPPERS.get(spec.env_id.rpartition(":")[2], lambda inner: inner)(env)
        try:
            with _named(spec.env_id):
                return cls(spec, env)
        except BaseException:
            env.close()
            raise

    @property
    def unwrapped(self) -> Any:
        """The Gymnasium environment without its wrappers."""
        return self._env.unwrapped

    def reset(self, seed: int) -> Observation:
        """Start the episode of `seed`.

        Raises:
            DataError: the environment failed, or a number it returned is not finite.
        """
        self._ticks = 0
        with self._reported("reset"), deferred_signals():
            raw, info = self._env.reset(seed=seed)
            return self._observe(raw, info, start=True)

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool]:
        """Apply `action [a]` for one tick; returns observation, reward and end of the episode.

        Raises:
            DataError: the action is unusable, the environment failed, or a number it returned is
                not finite.
        """
        self._ticks += 1
        # The simulator draws through C code that calls Python back and drops its exceptions.
        with self._reported(f"step {self._ticks}"), deferred_signals():
            given = self._actions.to_space(action)
            raw, reward, terminated, truncated, info = self._env.step(given)
            observation = self._observe(raw, info, start=False)
            return observation, _finite_reward(reward), bool(terminated or truncated)

    def probe(self) -> None:
        """Try a reset and a step, so that what cannot be used is refused before any work.

        Raises:
            UsageError: pictures are black, an episode ends at once, or the environment fails.
        """
        try:
            for seed in range(_TRIES):
                first = self.reset(seed)
                second, _, over = self.step(self._actions.neutral)
                with self._reported("reset and step 1"):
                    for name in self.keep:
                        kept_column(name, [first.kept[name], second.kept[name]])
                if not over:
                    break
        except DataError as problem:
            raise UsageError(str(problem)) from problem
        if over:
            raise UsageError(
                f"environment {self.env_id!r} ended {_TRIES} episodes of {_TRIES} after one step, "
                "which leaves nothing to learn or forecast; correct it, or remove its time limit"
            )
        both = np.maximum(*(_brightest(each.frame_hwc_u8) for each in (first, second)))
        if both.min() < _NEARLY_BLACK:
            raise UsageError(f"environment {self.env_id!r}: {self._darkness(both)}")
        self.notes += tuple(self._cameras.squeezed())
        for note in self.notes:
            _log.warning("%s: %s", self.env_id, note)

    def check_actions(self, names: Sequence[str]) -> None:
        """Refuse a model whose actions have other names or another number.

        Raises:
            UsageError: with both.
        """
        if len(names) != len(self.action_names):
            raise UsageError(
                f"environment {self.env_id!r} takes {len(self.action_names)} numbers as action, "
                f"but the model's actions are {len(names)} numbers; use the environment the model "
                "was trained in"
            )
        # Made-up names carry no order that could be compared.
        made = [f"action_{i}" for i in range(len(names))]
        if self._actions.named and list(names) not in (made, self.action_names):
            raise UsageError(
                f"environment {self.env_id!r} takes the actions {self.action_names}, but the model "
                f"{list(names)} in this order; use the environment the model was trained in"
            )

    def check_action(self, action: Any) -> NDArray[np.float32]:
        """Return `action` as `float32 [a]` inside the bounds; see `step`.

        Raises:
            DataError: it has another size, is not finite, or leaves the bounds.
        """
        return self._actions.check(action)

    def exact_state(self) -> bytes:
        """Serialize the whole state of the simulator if it offers that, else what is observed.

        Equal bytes after equal actions from equal resets mean the same physical state. An
        environment offers it by a method of this name.
        """
        for each in (self._env, self.unwrapped):
            exact = getattr(each, "exact_state", None)
            if callable(exact):
                return bytes(exact())
        seen = self.observation
        return seen.state.tobytes() + hashlib.sha256(seen.frame_hwc_u8.tobytes()).digest()

    def close(self) -> None:
        """Release the simulator."""
        self._env.close()

    def _observe(self, raw: Any, info: Any, *, start: bool) -> Observation:
        frame = self._cameras.frame(raw, self._env.render)
        brightest = _brightest(frame)
        self._black = 0 if brightest.all() else self._black + 1
        if self._black >= _MOST_BLACK:
            raise DataError(self._darkness(brightest))
        kept = self._info.read(info, start=start)
        self.observation = Observation(
            frame, self._state.read(raw), kept, raw, info, self._env.unwrapped
        )
        return self.observation

    def _darkness(self, brightest: NDArray[np.uint8]) -> str:
        camera = int(brightest.argmin())
        return (
            f"its pictures of {self.cameras[camera]!r} are black or codes (largest value "
            f"{brightest[camera]} of 255); check that it can draw here, or choose another picture "
            "with --camera"
        )

    @contextlib.contextmanager
    def _reported(self, when: str) -> Iterator[None]:
        try:
            yield
        except DataError as problem:
            raise DataError(f"environment {self.env_id!r}, {when}: {problem}") from problem
        except JetsightError:
            raise
        except Exception as problem:  # an environment is foreign code and may raise anything
            raise DataError(
                f"environment {self.env_id!r} failed in {when} ({type(problem).__name__}: "
                f"{first_line(problem)}); correct the environment"
            ) from problem


def _brightest(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the largest value of each camera, `[C]`."""
    return np.asarray(frame.reshape(-1, *frame.shape[-3:]).max(axis=(1, 2, 3)))


def _actions_of(env: Any, spec: EnvironmentSpec, metadata: EnvironmentMetadata) -> ActionVector:
    names = spec.action_names or metadata.names("action_names")
    # Units of the metadata belong to its names, not to others.
    units = spec.action_units or ([] if spec.action_names else metadata.names("action_units"))
    flat = importlib.import_module("gymnasium.spaces.utils").unflatten
    return ActionVector(env.action_space, names, units, flat)


def _check_labels(state_names: Sequence[str]) -> None:
    try:
        labels("state names", state_names)
    except ArtefactError as problem:
        raise UsageError(f"{problem}; declare others as state_names of its metadata") from None


def _finite_reward(reward: Any) -> float:
    try:
        value = float(reward)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"reward is {reward}, expected a finite number; correct the environment")
    return value


@contextlib.contextmanager
def _named(env_id: str) -> Iterator[None]:
    """Put the id in front of messages that begin with `it` or `its`."""
    try:
        yield
    except UsageError as problem:
        raise UsageError(f"environment {env_id!r}: {problem}") from problem
