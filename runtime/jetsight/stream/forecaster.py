"""Computations of a frame: encode it, judge the last forecast by it, forecast on.

Shapes: K history, H horizon, B action block, D latent, a size of one action, A = B * a.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from jetsight.bundle.runtime_spec import StreamSpec
from jetsight.clock import Clock
from jetsight.engine import Array, Engine, NDArray
from jetsight.errors import EngineError
from jetsight.stream.frames import Frame, Reason
from jetsight.stream.history import ActionLog, LatentRing, TickRing

_PATIENCE_S = 1.0  # a time line that stays behind for this long has really been set back


class Forecaster:
    """Histories of one stream, and the buffers that its engines read and write.

    Per frame call `advance`, `encode`, `surprise`, `forecast`, in this order, as `StreamLoop` does.
    Nothing is allocated that outlives a frame.

    Args:
        spec: sizes and statistics of the model.
        encode: engine with inputs `frame_hwc_u8` and, for a model that reads one, `state`, and
            output `z`.
        forecast: engine with inputs `z_hist`, `a_hist`, `actions` and output `z_future`.
        clock: the session's clock, for the engine times.

    Attributes:
        z: `[D]` latent of the newest frame.
        z_future: `[H, D]` newest forecast.
        encode_ns: time the encoder took for this frame.
        forecast_ns: time the forecast engine took for this frame, all calls together.
    """

    def __init__(self, spec: StreamSpec, encode: Engine, forecast: Engine, clock: Clock) -> None:
        check_engines(spec, encode, forecast)
        self._spec, self._clock = spec, clock
        self._encode, self._forecast = encode, forecast
        k, h, b, d = spec.history, spec.horizon, spec.action_block, spec.latent_size
        a = spec.step_size
        patience = max(1, round(_PATIENCE_S * spec.camera_hz))
        self._latents = LatentRing(k, b, d, patience)
        self._actions = ActionLog(k * b + 1, a)
        # By tick: the latent predicted one block before it, and the actions assumed for that.
        self._predicted = TickRing(b + 1, d)
        self._assumed = TickRing(b + 1, b * a)
        self.z = np.zeros(d, np.float32)
        self.z_future = np.zeros((h, d), np.float32)
        self._z_hist = np.zeros((k, d), np.float32)
        self._past = np.zeros(((k - 1) * b, a), np.float32)
        self._plan = np.zeros((h * b, a), np.float32)
        self._executed = np.zeros((b, a), np.float32)
        self._error = np.zeros(d, np.float32)
        self._scale = (1.0 / spec.latent_std).astype(np.float32)
        self.encode_ns = self.forecast_ns = 0
        self._no_latent = Reason.LATENT_NOT_FINITE  # why `z` is not finite, where it is not

    @property
    def resets(self) -> int:
        """Times that a gap or a clock set back emptied the history."""
        return self._latents.resets

    def advance(self, frame: Frame) -> bool:
        """Advance to a frame's tick, and log the actions executed before it.

        Returns:
            False when the frame is not newer than the last one and must be dropped.
        """
        if frame.action_since is not None:
            # Before the tick is judged: a dropped frame still reports what the robot did.
            self._actions.extend(frame.tick, frame.action_since)
        self.encode_ns = self.forecast_ns = 0
        return self._latents.advance(frame.tick)

    def encode(self, frame: Frame) -> Reason | None:
        """Compute `z`; a latent that is not finite enters no history."""
        # Before the engine: a latent of an assumed state would look like any other.
        if not write_frame(self._spec, self._encode, frame.image_hwc_u8, frame.state):
            self.z[:] = np.nan  # a planner must not start from the latent before
            self._no_latent = Reason.STATE_UNKNOWN
            return self._no_latent
        self._no_latent = Reason.LATENT_NOT_FINITE
        # The copy of the frame counts as overhead of the loop, not as time of the engine.
        start_ns = self._clock.now_ns()
        self._encode.run()
        self.encode_ns = self._clock.now_ns() - start_ns
        self._encode.outputs["z"].read(self.z)
        if not _finite(self.z):
            return self._no_latent
        # A broken latent leaves its tick empty, so the histories over it are refused.
        self._latents.put(frame.tick, self.z)
        return None

    def surprise(self, tick: int) -> float | None:
        """Measure how far `z` is from its prediction one block ago, given the executed actions.

        The forecast made then assumed a plan. If the robot executed other actions, the prediction
        is computed again from the same history with those: surprise is about the world, not about
        a change of plan.

        Returns:
            RMS over D of the error in units of each dimension's spread, divided by its typical
            size, so that 1.0 is normal; None when the history or the actions are not known.
        """
        before = tick - self._spec.action_block
        if self._actions.window(before, self._executed) > 0:
            return None
        expected = self._expected(tick)
        if expected is None:
            return None
        np.subtract(self.z, expected, out=self._error)
        np.multiply(self._error, self._scale, out=self._error)
        # A dot product needs no temporary array.
        mean_square = float(np.dot(self._error, self._error)) / self._error.size
        return math.sqrt(mean_square) / self._spec.surprise_scale

    def forecast(self, frame: Frame) -> Reason:
        """Compute `z_future` under the frame's plan; `OK` when it may be used."""
        reason = self._load_history(frame.tick)
        if reason is not None:
            return reason
        unknown = self._load_actions(frame.tick)
        planned = self._load_plan(frame.plan)
        self._run()
        if not _finite(self.z_future):
            return Reason.FORECAST_NOT_FINITE
        if unknown:
            return Reason.ACTIONS_UNKNOWN
        if self._spec.moves_held(self._past) or self._spec.moves_held(self._plan):
            return Reason.ACTION_UNTRAINED
        # Only with known past actions: a forecast from assumed ones is no measure of the world.
        self._predicted.put(frame.tick + self._spec.action_block, self.z_future[0])
        # Also if the plan was assumed: `_expected` compares it with what was executed.
        block = self._plan[: self._spec.action_block]
        self._assumed.put(frame.tick + self._spec.action_block, block.reshape(-1))
        return Reason.OK if planned else Reason.PLAN_UNKNOWN

    def context(
        self, tick: int, z_hist: NDArray, a_hist: NDArray, a_last: NDArray
    ) -> tuple[Reason | None, bool]:
        """Copy the newest latents and the actions between them, for a planner to start from.

        Args:
            tick: of the newest latent.
            z_hist: `[C, D]`, C <= K, filled with latents one block apart, oldest first.
            a_hist: `[(C - 1) * B, a]` filled with the actions between them.
            a_last: `[1, a]` filled with the action before `tick`.

        Returns:
            Why there are no such latents, None if there are; and whether the action before `tick`
            is known. Unknown actions in between are `ACTIONS_UNKNOWN`.
        """
        if not _finite(self.z):
            return self._no_latent, False
        # `window` leaves rows that are not known as they are.
        a_last[:] = self._spec.neutral
        known = self._actions.window(tick - 1, a_last) == 0
        reason = self._latents.history(tick, z_hist)
        if reason is None and self._actions.window(tick - len(a_hist), a_hist) > 0:
            reason = Reason.ACTIONS_UNKNOWN
        if reason is None and self._spec.moves_held(a_hist):
            reason = Reason.ACTION_UNTRAINED
        return reason, known

    def _expected(self, tick: int) -> NDArray | None:
        """Predict `tick` from the executed actions; None if the history is not known."""
        assumed, predicted = self._assumed.get(tick), self._predicted.get(tick)
        # Bit for bit: a plan that was executed as given needs no second run of the engine.
        if assumed is not None and np.array_equal(assumed, self._executed.reshape(-1)):
            return predicted
        before = tick - self._spec.action_block
        if self._load_history(before) is not None or self._load_actions(before):
            return None
        # Only the first block of the result is used, so the actions after it do not matter.
        self._load_plan(self._executed)
        self._run()
        return self.z_future[0] if _finite(self.z_future) else None

    def _load_history(self, tick: int) -> Reason | None:
        reason = self._latents.history(tick, self._z_hist)
        if reason is None:
            self._forecast.inputs["z_hist"].write(self._z_hist)
        return reason

    def _load_actions(self, tick: int) -> bool:
        """Write the actions between the latents of a history; True if some are not known."""
        if len(self._past) == 0:  # a model of K = 1 has no input for past actions
            return False
        # `window` leaves rows that are not known as they are.
        self._past[:] = self._spec.neutral
        unknown = self._actions.window(tick - len(self._past), self._past)
        a_hist = self._forecast.inputs["a_hist"]
        a_hist.write(self._past.reshape(a_hist.shape))
        return unknown > 0

    def _load_plan(self, plan: NDArray | None) -> bool:
        """Write the planned actions; a short plan goes on with its last action."""
        known = plan is not None and len(plan) > 0
        if plan is not None and known:
            count = min(len(plan), len(self._plan))
            self._plan[:count] = plan[:count]
            self._plan[count:] = plan[count - 1]
        else:
            self._plan[:] = self._spec.neutral
        actions = self._forecast.inputs["actions"]
        actions.write(self._plan.reshape(actions.shape))
        return known

    def _run(self) -> None:
        start_ns = self._clock.now_ns()
        self._forecast.run()
        self.forecast_ns += self._clock.now_ns() - start_ns
        self._forecast.outputs["z_future"].read(self.z_future)


def _finite(values: NDArray) -> bool:
    """Check that all values are finite, without allocating: NaN and inf survive a dot product.

    A vector whose squared norm overflows float32 (1e19 per dimension) counts as broken as well.
    """
    flat = values.reshape(-1)
    return math.isfinite(float(np.dot(flat, flat)))


def write_frame(
    spec: StreamSpec, encode: Engine, image_hwc_u8: NDArray, state: NDArray | None
) -> bool:
    """Write a frame, and the state of a model that reads one, to the inputs of `encode`.

    Returns:
        False if the state is missing or not finite; then nothing may be run.

    Raises:
        EngineError: an array has another shape or type.
    """
    if spec.state_names:
        given = None if state is None else np.asarray(state, np.float32)
        if given is None or not _finite(given):
            return False
        encode.inputs["state"].write(given)
    encode.inputs["frame_hwc_u8"].write(image_hwc_u8)
    return True


def check_engines(spec: StreamSpec, encode: Engine, forecast: Engine) -> None:
    """Compare the arrays of both engines with the manifest, once.

    Raises:
        EngineError: an array is missing or of another shape or type.
    """
    k, h, d = spec.history, spec.horizon, spec.latent_size
    size = spec.action_block * spec.step_size
    wanted: list[tuple[str, Mapping[str, Array], str, tuple[int, ...], type]] = [
        ("encode", encode.inputs, "frame_hwc_u8", spec.frame_shape, np.uint8),
        ("encode", encode.outputs, "z", (d,), np.float32),
        ("forecast", forecast.inputs, "z_hist", (k, d), np.float32),
        ("forecast", forecast.inputs, "actions", (h, size), np.float32),
        ("forecast", forecast.outputs, "z_future", (h, d), np.float32),
    ]
    if spec.state_names:
        wanted.append(("encode", encode.inputs, "state", (len(spec.state_names),), np.float32))
    if k > 1:
        wanted.append(("forecast", forecast.inputs, "a_hist", (k - 1, size), np.float32))
    for graph, arrays, name, shape, dtype in wanted:
        array = arrays.get(name)
        found = "nothing" if array is None else f"{array.dtype} {list(array.shape)}"
        if array is None or array.shape != shape or array.dtype != dtype:
            raise EngineError(
                f"graph {graph!r}: {name!r} is {found}, but the manifest says "
                f"{np.dtype(dtype)} {list(shape)}; compile the bundle again"
            )
