"""The world model and its three verbs on the latent: `encode`, `predict`, `cost`.

Everything outside speaks camera pixels and the robot's own action units; preprocessing and the
action normaliser are inside.

Shapes: N batch, T time, K history, H horizon, D latent size, B action block, A = B * action size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jetsight_train.model.config import ModelConfig
from jetsight_train.model.encoder import ConvEncoder, ViTEncoder
from jetsight_train.model.heads import Heads
from jetsight_train.model.predictor import Predictor
from jetsight_train.model.preprocess import FrameSpec, Preprocess


@dataclass(frozen=True)
class ActionSpec:
    """One environment step's action: names, units, limits and the normaliser, all per dimension.

    Attributes:
        names: what each dimension is called.
        units: unit of each dimension.
        low: smallest value the robot accepts.
        high: largest value the robot accepts.
        rate_limit_per_s: largest change per second, or None where the robot declares none.
        neutral: the value assumed when the real action is not known.
        mean: mean over the training set.
        std: standard deviation over the training set.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    rate_limit_per_s: tuple[float, ...] | None
    neutral: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse lists of different lengths and a normaliser that divides by zero."""
        per_dimension = (
            self.units,
            self.low,
            self.high,
            self.neutral,
            self.mean,
            self.std,
            self.rate_limit_per_s or self.names,
        )
        if any(len(values) != len(self.names) for values in per_dimension):
            raise ValueError(f"every action list must have {len(self.names)} entries")
        if any(value <= 0.0 for value in self.std):
            raise ValueError(f"action std {self.std} must be positive: an action never varies")


@dataclass(frozen=True)
class TimingSpec:
    """Camera rate and the number of camera frames per model step."""

    camera_hz: float
    action_block: int


class WorldModel(nn.Module):
    """Action-conditioned joint-embedding predictive model; nothing in it makes a pixel."""

    action_mean: Tensor
    action_std: Tensor

    def __init__(
        self, config: ModelConfig, frame: FrameSpec, timing: TimingSpec, action: ActionSpec
    ) -> None:
        super().__init__()
        self.config, self.frame, self.timing, self.action = config, frame, timing, action
        self.preprocess = Preprocess(frame)
        size = config.latent_size
        self.encoder: nn.Module
        if config.conv is not None:
            self.encoder = ConvEncoder(config.conv, frame.resize, size)
        elif config.vit is not None:
            self.encoder = ViTEncoder(config.vit, frame.resize, size)
        self.predictor = Predictor(config.predictor, size, config.history, self.action_size)
        self.heads = Heads()  # trained later, on the frozen model: `jetsight train --probe`
        block = timing.action_block
        for name, values in (("action_mean", action.mean), ("action_std", action.std)):
            tiled = torch.tensor(values * block, dtype=torch.float32)
            self.register_buffer(name, tiled, persistent=False)

    @property
    def action_size(self) -> int:
        """A: numbers in one action block."""
        return len(self.action.names) * self.timing.action_block

    def encode(self, frames_u8: Tensor) -> Tensor:
        """Camera frames to latents: `uint8 [N, h, w, 3] -> [N, D]`."""
        return self.encoder(self.preprocess(frames_u8))

    def predict(self, z: Tensor, a: Tensor) -> Tensor:
        """The latent after a window: `z [N, T, D], a [N, T, A] -> [N, D]`, T <= K."""
        return self.predict_each(z, a)[:, -1]

    def predict_each(self, z: Tensor, a: Tensor) -> Tensor:
        """The latent after every frame of a window: `[N, T, D], [N, T, A] -> [N, T, D]`."""
        return self.predictor(z, (a - self.action_mean) / self.action_std)

    def rollout(self, z_hist: Tensor, a_hist: Tensor, actions: Tensor) -> Tensor:
        """Imagine H steps, each from the last K latents, predicted ones included.

        Args:
            z_hist: `[N, K, D]` latents at block spacing, newest last.
            a_hist: `[N, K-1, A]` action blocks between them.
            actions: `[N, H, A]` action blocks to imagine.

        Returns:
            `[N, H, D]` latents after each block.
        """
        keep = self.config.history
        z, a = z_hist, torch.cat([a_hist, actions[:, :1]], dim=1)
        future = []
        for step in range(actions.shape[1]):
            future.append(self.predict(z[:, -keep:], a[:, -keep:]))
            z = torch.cat([z, future[-1][:, None]], dim=1)
            a = torch.cat([a, actions[:, step + 1 : step + 2]], dim=1)
        return torch.stack(future, dim=1)

    def cost(self, z: Tensor, z_goal: Tensor) -> Tensor:
        """Squared distance to the goal latent: `[..., D], [..., D] -> [...]`."""
        return (z - z_goal).square().sum(-1)
