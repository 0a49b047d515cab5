"""Quality of a model: prediction skill against persistence, and a linear probe of its latents.

Shapes: N windows, K history, H horizon, D latent size, S physical quantities.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from jetsight.errors import DataError
from jetsight_train.data.encoded import finite
from jetsight_train.data.normaliser import is_still
from jetsight_train.data.windows import Recording, WindowSampler
from jetsight_train.model.world_model import WorldModel

FloatArray = npt.NDArray[np.float64]
_TINY = 1e-12
RIDGE = 1e-3  # share of the mean squared feature; makes near-dependent latents solvable


@dataclass(frozen=True)
class Skill:
    """Squared latent errors per step ahead, averaged over windows: `[H]` each."""

    predicted: FloatArray
    persistence: FloatArray

    @property
    def skill(self) -> FloatArray:
        """`1 - predicted / persistence`: 0 copies the last latent, 1 is perfect."""
        return 1.0 - self.predicted / self.persistence


@torch.no_grad()
def prediction_skill(
    model: WorldModel, recording: Recording, latents: Tensor, stride: int = 3
) -> Skill:
    """Roll the predictor out over held-out windows and compare it with copying the last latent.

    skill_k = 1 - E|z_pred(t+k) - z(t+k)|^2 / E|z(t) - z(t+k)|^2.

    Args:
        model: the model, set to evaluation mode by this call.
        recording: held-out episodes.
        latents: `[F, D]` latents of its frames, from `encode_recording`.
        stride: spacing of the windows, in window starts.

    Raises:
        DataError: the latents never change, so that there is nothing to predict.
        DivergenceError: the predicted ones are not finite.
    """
    model.eval()
    history, horizon = model.config.history, model.config.horizon
    block = model.timing.action_block
    sampler = WindowSampler(recording, history + horizon, block)
    rows = sampler.rows(sampler.firsts[::stride])
    blocks = sampler.blocks(rows)
    z = latents[torch.from_numpy(rows)]
    predicted = model.rollout(z[:, :history], blocks[:, : history - 1], blocks[:, history - 1 :])
    finite(predicted, "imagined", recording.name)
    truth, last = z[:, history:], z[:, history - 1 : history]
    errors, moved = (
        (other - truth).square().sum(-1).mean(0).double().numpy() for other in (predicted, last)
    )
    if not (moved > 0.0).all():
        raise DataError(
            f"{recording.name}: the latents of its frames never change, so there is nothing to "
            "predict; measure on episodes in motion, with a model that has not collapsed"
        )
    return Skill(errors, moved)


def state_share(
    train_z: Tensor,
    train_states: npt.NDArray[np.float32],
    test_z: Tensor,
    test_states: npt.NDArray[np.float32],
) -> float:
    """Compute the share of the latents' variance that the state explains linearly, held out.

    Close to 1, the encoder reads little but the state, which is easier to predict than a picture.
    """
    inputs = [torch.from_numpy(np.ascontiguousarray(s)) for s in (train_states, test_states)]
    # Standardised by the ridge's own side: units of a state must not weigh its columns.
    mean, std = inputs[0].mean(0), inputs[0].std(0).clamp_min(1e-6)
    train_x, test_x = ((each - mean) / std for each in inputs)
    r2 = linear_probe_r2(train_x, train_z.numpy(), test_x, test_z.numpy())
    variance = np.square(test_z.double().numpy() - test_z.double().numpy().mean(0)).mean(0)
    # A dimension that never varies has no share, and no R².
    explained = np.clip(np.nan_to_num(r2), 0.0, 1.0)
    return float((explained * variance).sum() / max(variance.sum(), 1e-30))


def linear_probe_r2(
    train_z: Tensor,
    train_y: npt.NDArray[np.float32],
    test_z: Tensor,
    test_y: npt.NDArray[np.float32],
) -> FloatArray:
    """Compute R² per quantity of a ridge regression from latents, measured on held-out ones.

    Args:
        train_z: `[N, D]` latents to fit the probe on.
        train_y: `[N, S]` quantities.
        test_z: `[M, D]` held-out latents.
        test_y: `[M, S]` held-out quantities.

    Returns:
        `[S]` coefficients of determination; 1 is perfect, 0 is the mean, NaN for a quantity that
        never varies on the held-out episodes.
    """
    x, y = train_z.double().numpy(), train_y.astype(np.float64)
    x_mean, y_mean = x.mean(0), y.mean(0)
    x = x - x_mean
    # In float64, since the normal equations square the condition number.
    gram = x.T @ x
    # The second term is for latents that never vary, whose normal equations have no solution.
    gram += (RIDGE * np.trace(gram) / len(gram) + _TINY) * np.eye(len(gram))
    weights = np.linalg.solve(gram, x.T @ (y - y_mean))
    predicted = (test_z.double().numpy() - x_mean) @ weights + y_mean
    residual = np.square(test_y - predicted).sum(0)
    total = np.square(test_y - test_y.mean(0)).sum(0)
    unknown = np.full(total.shape, np.nan)
    return np.asarray(1.0 - np.divide(residual, total, out=unknown, where=~is_still(test_y)))
