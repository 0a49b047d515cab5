"""The world model and its operations on latents: `encode`, `predict`, `rollout` and `cost`.

Its inputs are camera pixels, and actions and states in robot units; preprocessing and normalisers
are part of the model.

Shapes: N batch, T time, K history, H horizon, D latent size, B action block, A = B * action size,
C cameras, s state size; frame is h, w, 3, or C, h, w, 3 with several cameras.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jetsight.bundle.model_spec import ActionSpec, FrameSpec, ModelSpec, StateSpec, TimingSpec
from jetsight.datasets.fit import RecordingSpec
from jetsight.errors import UsageError
from jetsight_train.model.config import ModelConfig
from jetsight_train.model.encoder import ConvEncoder, ViTEncoder
from jetsight_train.model.fusion import STATE_HIDDEN, FusedEncoder, StateEncoder
from jetsight_train.model.heads import Heads
from jetsight_train.model.predictor import Predictor
from jetsight_train.model.preprocess import Preprocess


class WorldModel(nn.Module):
    """Action-conditioned joint-embedding predictive model; it has no pixel decoder."""

    action_mean: Tensor
    action_std: Tensor

    def __init__(
        self,
        config: ModelConfig,
        frame: FrameSpec,
        timing: TimingSpec,
        action: ActionSpec,
        state: StateSpec | None = None,
        state_hidden: int = STATE_HIDDEN,
    ) -> None:
        super().__init__()
        self.config, self.frame, self.timing, self.action = config, frame, timing, action
        self.preprocess = Preprocess(frame)
        size = config.latent_size
        self.encoder = self._make_encoder(state, state_hidden)
        self.predictor = Predictor(config.predictor, size, config.history, self.action_size)
        self.heads = Heads()  # trained later, on the frozen model: `jetsight train --probe`
        block = timing.action_block
        for name, values in (("action_mean", action.mean), ("action_std", action.std)):
            # One normaliser per tick, repeated: a block is the actions of its ticks in a row.
            tiled = torch.tensor(values * block, dtype=torch.float32)
            # Not stored with the weights: the action spec in `model.json` has these numbers.
            self.register_buffer(name, tiled, persistent=False)

    @property
    def action_size(self) -> int:
        """Numbers in one action block, A."""
        return len(self.action.names) * self.timing.action_block

    @property
    def spec(self) -> ModelSpec:
        """Architecture, parameter count and sizes, as in a bundle's manifest."""
        return self.config.spec(self.action_size, sum(p.numel() for p in self.parameters()))

    def take_camera(self, frame: FrameSpec) -> None:
        """Take frames of another camera, which `frame` brings to those of training.

        Args:
            frame: made by `preprocess.of_camera`.
        """
        self.frame, self.preprocess = frame, Preprocess(frame)

    @property
    def recording_spec(self) -> RecordingSpec:
        """Cameras, rate, actions and state of the recordings that fit this model."""
        return RecordingSpec.taken_by(self.frame, self.timing, self.action, self.state)

    @property
    def state(self) -> StateSpec | None:
        """State that `encode` takes, with its normaliser; None for a model without."""
        encoder = self.state_encoder
        return None if encoder is None else encoder.normalise.spec

    @property
    def state_encoder(self) -> StateEncoder | None:
        """Encoder of the state; None for a model without."""
        return self.encoder.state if isinstance(self.encoder, FusedEncoder) else None

    def encode(self, frames_u8: Tensor, state: Tensor | None = None) -> Tensor:
        """Encode frames `uint8 [N, *frame]` and states `[N, s]` of a model that takes them.

        Returns:
            `[N, D]`.

        Raises:
            UsageError: a state is missing, or given to a model without one.
        """
        own = self.state_encoder
        if (state is None) != (own is None):
            names = None if own is None else list(own.normalise.spec.names)
            raise UsageError(
                f"the model encodes frames with the state {names}, but got "
                f"{'none' if state is None else 'one'}; call encode(frames"
                f"{'' if own is None else ', state'})"
            )
        if not isinstance(self.encoder, FusedEncoder):
            return self.encoder(self.preprocess(frames_u8))
        cameras = self.encoder.cameras
        x = self.preprocess(frames_u8.flatten(0, 1) if cameras > 1 else frames_u8)
        return self.encoder(x.unflatten(0, (-1, cameras)), state)

    def _make_encoder(self, state: StateSpec | None, hidden: int) -> nn.Module:
        config, cameras = self.config, max(1, len(self.frame.cameras))

        def trunk() -> nn.Module:
            if config.conv is not None:
                return ConvEncoder(config.conv, self.frame.resize, config.latent_size)
            assert config.vit is not None  # checked by the config
            return ViTEncoder(config.vit, self.frame.resize, config.latent_size)

        # Without fusion the modules are those of every checkpoint of one camera.
        if cameras == 1 and state is None:
            return trunk()
        return FusedEncoder(
            trunk,
            cameras,
            shared=config.shared_trunk,
            latent_size=config.latent_size,
            state=None if state is None else StateEncoder(state, hidden),
        )

    def predict(self, z: Tensor, a: Tensor) -> Tensor:
        """Predict the latent after a window: `z [N, T, D], a [N, T, A] -> [N, D]`, T <= K."""
        return self.predict_each(z, a)[:, -1]

    def predict_each(self, z: Tensor, a: Tensor) -> Tensor:
        """Predict the latent after every frame of a window: `[N, T, D], [N, T, A] -> [N, T, D]`."""
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
        keep = self.config.history  # the predictor has no position embedding beyond K tokens
        z, a = z_hist, torch.cat([a_hist, actions[:, :1]], dim=1)
        future = []
        for step in range(actions.shape[1]):
            future.append(self.predict(z[:, -keep:], a[:, -keep:]))
            z = torch.cat([z, future[-1][:, None]], dim=1)
            a = torch.cat([a, actions[:, step + 1 : step + 2]], dim=1)
        return torch.stack(future, dim=1)

    def cost(self, z: Tensor, z_goal: Tensor) -> Tensor:
        """Return the squared distance to the goal latent: `[..., D], [..., D] -> [...]`."""
        return (z - z_goal).square().sum(-1)
