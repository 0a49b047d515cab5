"""Fusion of several cameras and a state into one latent.

Each camera is encoded to D features, by one trunk for all or by one of its own; the state passes
a small MLP; a projector maps all features, in the order of the cameras and the state last, to the
latent.

Shapes: N frames, C cameras, H W model input, s numbers of a state, S state features, D latent size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from jetsight.bundle.model_spec import StateSpec
from jetsight_train.model.encoder import Projector
from jetsight_train.model.preprocess import NormaliseState

STATE_HIDDEN = 64  # S unless the recipe says otherwise


class StateEncoder(nn.Module):
    """States in the robot's units to features: normaliser, then an MLP with one hidden layer."""

    def __init__(self, spec: StateSpec, hidden: int) -> None:
        super().__init__()
        self.normalise = NormaliseState(spec)
        self.mlp = Projector(len(spec.names), hidden, hidden)

    def forward(self, state: Tensor) -> Tensor:
        """`[N, s] -> [N, S]`."""
        return self.mlp(self.normalise(state))


class FusedEncoder(nn.Module):
    """Encoder of C cameras and an optional state; a model of one camera alone does not use it.

    Args:
        trunk: makes an encoder `[N, 3, H, W] -> [N, D]`.
        cameras: C.
        shared: one trunk for all cameras.
        latent_size: D.
        state: encoder of the state; None for a model without.
    """

    def __init__(
        self,
        trunk: Callable[[], nn.Module],
        cameras: int,
        *,
        shared: bool,
        latent_size: int,
        state: StateEncoder | None,
    ) -> None:
        super().__init__()
        self.cameras = cameras
        self.trunks = nn.ModuleList(trunk() for _ in range(1 if shared else cameras))
        self.state = state
        size = cameras * latent_size + (0 if state is None else state.mlp.down.out_features)
        self.fusion = Projector(size, size, latent_size)

    def trunk_of(self, camera: int) -> nn.Module:
        """Return the encoder of a camera."""
        return self.trunks[camera % len(self.trunks)]

    def forward(self, x: Tensor, state: Tensor | None = None) -> Tensor:
        """`x [N, C, 3, H, W], state [N, s] -> [N, D]`."""
        if len(self.trunks) == 1:
            # In one batch: BatchNorm must see in training the mixture of cameras that its running
            # statistics describe afterwards.
            features = [self.trunks[0](x.flatten(0, 1)).view(len(x), -1)]
        else:
            features = [self.trunk_of(i)(x[:, i]) for i in range(self.cameras)]
        # As in the trunks, training in bfloat16 ends before the small products.
        with torch.autocast(x.device.type, enabled=False):
            features = [each.float() for each in features]
            if self.state is not None:
                features.append(self.state(state))
            return self.fusion(torch.cat(features, dim=1))
