"""Distances of compiled latents and forecasts from the float model's, on held-out data.

Shapes: N frames, W windows, K history, H horizon, D latent size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from jetsight.errors import DataError
from jetsight_compile.calibration.data import (
    GATE_FRAMES,
    GATE_WINDOWS,
    CalibrationWindows,
    Side,
    samples,
    spread,
)
from jetsight_compile.calibration.run import Sample
from jetsight_train.model.world_model import WorldModel

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

_WORST = 1.0  # percent
MOST_DB = 200.0  # stands for no error at all, as a manifest has no infinity
_NO_FORECAST = 1e6  # the drift of forecasts that are not finite


@dataclass(frozen=True)
class Measurement:
    """A measured value, and where or how it was found."""

    value: float
    detail: str = ""

    def noting(self, detail: str) -> Measurement:
        """Return the same value with more detail."""
        return Measurement(self.value, "; ".join(filter(None, (self.detail, detail))))


@dataclass(frozen=True)
class FloatReference:
    """Held-out inputs and the float model's outputs for them.

    Attributes:
        encode: N inputs of `encode`.
        z: `[N, D]` their latents.
        mean: `[D]` of all held-out latents.
        std: `[D]` of all held-out latents.
        windows: W windows.
        history: `W * K` inputs of `encode`, the history of each window after the other.
        z_future: `[W, H, D]` float rollouts of the windows.
        cameras: names of the cameras of a frame; empty for one without a name.
    """

    encode: Sequence[Sample]
    z: F32
    mean: F32
    std: F32
    windows: CalibrationWindows
    history: Sequence[Sample]
    z_future: F32
    cameras: tuple[str, ...] = ()


def surprise(model: WorldModel, windows: CalibrationWindows, std: F32) -> F64:
    """Distance of each next latent from the float model's one-step forecast: `[W]`.

    RMS over D of (z - z_pred) / std, which the runtime then divides by its median.
    """
    k = windows.history
    with torch.inference_mode():
        z, blocks = torch.from_numpy(windows.z[:, :k]), torch.from_numpy(windows.blocks[:, :k])
        predicted = model.predict(z, blocks).numpy()
    off = (windows.z[:, k] - predicted).astype(np.float64) / std
    return np.asarray(np.sqrt(np.square(off).mean(1)))


def reference(model: WorldModel, held_out: Side) -> FloatReference:
    """Run the float model on held-out data.

    Raises:
        DataError: its latents do not change, so there is nothing to compare with.
    """
    chosen = spread(len(held_out.frames_u8), GATE_FRAMES)
    windows = held_out.windows.thinned(GATE_WINDOWS)
    std = held_out.z.std(0)
    # Both are divisors of the gates.
    if persistence(windows).min() <= 0.0 or std.min() <= 0.0:
        raise DataError(
            f"{held_out.digest.path_name}: the model's latents do not change over the held-out "
            "episodes; record a scene that moves, or train a model that has not collapsed"
        )
    return FloatReference(
        encode=samples(held_out.inputs(chosen)),
        z=held_out.z[chosen],
        mean=held_out.z.mean(0),
        std=std,
        windows=windows,
        history=samples(held_out.inputs(windows.rows[:, : windows.history].ravel())),
        z_future=rollout(model, windows),
        cameras=model.frame.cameras,
    )


def rollout(model: WorldModel, windows: CalibrationWindows) -> F32:
    """Forecasts of the float model `[W, H, D]`."""
    z, blocks = torch.from_numpy(windows.z), torch.from_numpy(windows.blocks)
    k = windows.history
    with torch.inference_mode():
        future: F32 = model.rollout(z[:, :k], blocks[:, : k - 1], blocks[:, k - 1 :]).numpy()
    return future


def persistence(windows: CalibrationWindows) -> F64:
    """E|z(t+k) - z(t)|^2 for k = 1..H."""
    k = windows.history
    moved = windows.z[:, k:] - windows.z[:, k - 1 : k]
    distance: F64 = np.square(moved, dtype=np.float64).sum(-1).mean(0)
    return distance


def standard_cosine(z: F32, truth: FloatReference) -> F64:
    """Cosine per frame `[N]` after removing the latents' mean and scale; -1 if not finite.

    A latent space has a mean; without removing it, the cosine of any two frames is close to one.
    """
    a, b = ((finite(x) - truth.mean) / truth.std for x in (z, truth.z))
    # A frame equal to the mean has no direction; the clamp below makes its cosine 0.
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = (a * b).sum(1) / np.maximum(norms, 1e-30)
    return np.where(np.isfinite(z).all(1), cosine, -1.0)


def sqnr_db(found: F32, expected: F32) -> float:
    """Variance of the expected over squared error, in dB; at most 200, -200 if not finite."""
    if not np.isfinite(found).all():
        return -MOST_DB
    # float64: at 80 dB, the limit of fp32, sums in float32 would be part of the result.
    signal = np.square(expected - expected.mean(0), dtype=np.float64).sum()
    noise = np.square(found.astype(np.float64) - expected).sum()
    return float(10.0 * np.log10(signal / max(noise, signal * 10.0 ** (-MOST_DB / 10.0))))


def drift(z_future: F32, truth: FloatReference) -> F64:
    """Compute the added squared error per step `[H]`, over persistence; huge if not finite."""
    if not np.isfinite(z_future).all():
        return np.full(z_future.shape[1], _NO_FORECAST)
    added = np.square(z_future.astype(np.float64) - truth.z_future).sum(-1).mean(0)
    return np.asarray(added / persistence(truth.windows))


def change(before: F32, after: F32) -> float:
    """Largest difference relative to the largest value; 0 if any value is not finite."""
    # 0 is the effect of an ignored input, which the gate refuses.
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        return 0.0
    return float(np.abs(after - before).max() / max(float(np.abs(before).max()), 1e-30))


def worst_percent(cosine: F64) -> float:
    """Cosine that one frame in a hundred does not reach."""
    return float(np.percentile(cosine, _WORST))


def finite(values: F32) -> F64:
    """Convert to float64, with 0 for values that are not finite; callers count those apart."""
    return np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
