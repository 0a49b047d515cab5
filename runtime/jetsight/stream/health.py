"""Health of a stream: one table of limits, four modes, slow recovery.

Limits are ratios of the frame period P, so that one table serves every rate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jetsight.engine import NDArray
from jetsight.stream.frames import Mode, Reason


@dataclass(frozen=True, slots=True)
class HealthLimits:
    """Thresholds of a stream; the defaults start from what openpilot and Autoware use.

    Args:
        stale_periods: age at which a frame is too old to act on.
        hold_periods: age at which the camera counts as lost.
        fault_periods: age at which holding the last action is given up.
        bad_in_a_row: broken latents or forecasts in a row that mean FAULT.
        engine_failures: failing engine calls in a row that end the stream.
        recovery_frames: good frames in a row that lead back to OK.
        drop_ratio: share of lost frames (10 s filter) that means DEGRADED.
        frozen_s: how long a physical camera may deliver the same pixels.
    """

    # Openpilot counts a message as alive for 10 periods, which is too lax for an actuator.
    stale_periods: float = 2.0
    hold_periods: float = 5.0
    fault_periods: float = 10.0
    bad_in_a_row: int = 10
    engine_failures: int = 3
    recovery_frames: int = 10
    drop_ratio: float = 0.2  # openpilot's limit for a lagging model
    frozen_s: float = 1.0


class HealthMonitor:
    """Judge of a stream by the age of its newest frame, never by a reader having returned.

    Modes worsen at once and improve only after `recovery_frames` better frames in a row.
    """

    def __init__(self, period_ns: int, limits: HealthLimits | None = None) -> None:
        self.limits = limits or HealthLimits()
        self.period_ns = period_ns
        self.mode = Mode.OK
        self.reason = Reason.OK
        self._lost = 0.0  # filtered number of frames lost per frame used
        self._good = 0
        self._bad = 0
        self._relapse = (Mode.OK, Reason.OK)  # worst of the good frames counted so far
        # First-order filter with a time constant of 10 s.
        self._gain = period_ns / (10e9 + period_ns)

    @property
    def alive(self) -> bool:
        """Frames arrive, and recent enough."""
        return self.mode < Mode.HOLD

    @property
    def drop_ratio(self) -> float:
        """Share of frames lost in about the last 10 s."""
        return self._lost / (1.0 + self._lost)

    @property
    def freq_ok(self) -> bool:
        """Few enough frames are lost."""
        return self.drop_ratio <= self.limits.drop_ratio

    def is_stale(self, age_ns: int) -> bool:
        """Decide whether a frame is too old to act on."""
        return age_ns > self.limits.stale_periods * self.period_ns

    def frame(self, age_ns: int, problem: Reason | None, lost: int, frozen: bool) -> None:
        """Account for one frame.

        Args:
            age_ns: its age when the forecast was ready.
            problem: why its latent or forecast is broken; None also while history fills.
            lost: frames lost since the one before.
            frozen: its pixels have not changed for longer than a live scene allows.
        """
        # One gap counts for at most 10 frames, so that a single stall is no overload (openpilot).
        self._lost += self._gain * (min(lost, 10) - self._lost)
        self._bad = self._bad + 1 if problem is not None else 0
        # Specific causes first, so that the reason names the fault and not its consequences.
        if problem is not None and self._bad >= self.limits.bad_in_a_row:
            self._judge(Mode.FAULT, problem)
        elif problem is not None:
            # One broken frame changes no mode, but it ends a recovery.
            self._good = 0
        elif self.is_stale(age_ns):
            self.stall(age_ns, Reason.FRAME_STALE)
        elif frozen:
            self._judge(Mode.DEGRADED, Reason.FROZEN)
        elif not self.freq_ok:
            self._judge(Mode.DEGRADED, Reason.OVERLOADED)
        else:
            self._judge(Mode.OK, Reason.OK)

    def stall(self, age_ns: int, reason: Reason) -> None:
        """Account for the newest frame being `age_ns` old without a newer one."""
        periods = age_ns / self.period_ns
        if periods > self.limits.fault_periods:
            self._judge(Mode.FAULT, reason)
        elif periods > self.limits.hold_periods:
            self._judge(Mode.HOLD, reason)
        elif periods > self.limits.stale_periods:
            self._judge(Mode.DEGRADED, reason)

    def _judge(self, mode: Mode, reason: Reason) -> None:
        """Take a worse mode at once, a better one after enough frames that were all better."""
        if mode >= self.mode:
            self.mode, self.reason = mode, reason
            self._good, self._relapse = 0, (Mode.OK, Reason.OK)
            return
        self._good += 1
        self._relapse = max(self._relapse, (mode, reason), key=lambda found: found[0])
        if self._good >= self.limits.recovery_frames:
            (self.mode, self.reason), self._good = self._relapse, 0
            self._relapse = (Mode.OK, Reason.OK)


class FrozenDetector:
    """Detector of a physical camera that keeps delivering exactly the same pixels.

    Sensor noise changes some pixel of every frame, so a repeated frame means a hung driver or ISP.
    Every pixel is compared, without allocating.

    Args:
        shape: of the frames, `uint8 [h, w, 3]`.
        limit_ns: how long the same pixels are tolerated.
    """

    def __init__(self, shape: tuple[int, ...], limit_ns: int) -> None:
        size = int(np.prod(shape))
        self._word = np.uint64 if size % 8 == 0 else np.uint8  # eight pixels at a time
        self._last = np.zeros(size, np.uint8).view(self._word)
        self._differs = np.zeros(self._last.shape, np.bool_)
        self._limit_ns = limit_ns
        self._since_ns: int | None = None

    def update(self, image_hwc_u8: NDArray, stamp_ns: int) -> bool:
        """Compare with the last frame; True when the pixels are the same for too long."""
        pixels = image_hwc_u8.reshape(-1).view(self._word)
        np.not_equal(pixels, self._last, out=self._differs)
        if self._since_ns is None or self._differs.any():
            self._last[:] = pixels
            self._since_ns = stamp_ns
        return stamp_ns - self._since_ns > self._limit_ns
