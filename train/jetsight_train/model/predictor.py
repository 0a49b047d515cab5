"""Windowed autoregressive predictor with AdaLN-zero action conditioning (LeWM's family).

One token per frame. Each block is modulated by the embedding of the action taken at that frame
(AdaLN-zero, Peebles & Xie, arXiv 2212.09748); attention is causal over the window, and the position
embedding counts from the start of the window. The two LayerNorms in series per branch (one bare and
modulated, one affine) are LeWorldModel's (arXiv 2603.19312) and must not be merged.

Shapes: N windows, T tokens <= K history, D latent size, A action-block size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from jetsight_train.model.config import PredictorConfig
from jetsight_train.model.encoder import Projector

# LeWorldModel's: the bare norm before the modulation, and the affine one of each branch.
MODULATION_EPS = 1e-6
BRANCH_EPS = 1e-5
ACTION_CODE = 10  # LeWM squeezes the action block to ten numbers before it is embedded


class ActionEmbedder(nn.Module):
    """Embedding of a normalised action block: `[..., A] -> [..., D]`."""

    def __init__(self, action_size: int, hidden: int, latent_size: int) -> None:
        super().__init__()
        self.code = nn.Linear(action_size, ACTION_CODE)
        self.embed = nn.Sequential(
            nn.Linear(ACTION_CODE, hidden), nn.SiLU(), nn.Linear(hidden, latent_size)
        )

    def forward(self, a: Tensor) -> Tensor:
        """Embed each action block on its own."""
        return self.embed(self.code(a))


class CausalAttention(nn.Module):
    """Multi-head attention whose inner size is independent of the token size."""

    def __init__(self, size: int, config: PredictorConfig) -> None:
        super().__init__()
        inner = config.heads * config.head_size
        self.heads, self.dropout = config.heads, config.dropout
        self.norm = nn.LayerNorm(size, eps=BRANCH_EPS)
        self.qkv = nn.Linear(size, 3 * inner, bias=False)
        self.out = nn.Sequential(nn.Linear(inner, size), nn.Dropout(config.dropout))

    def forward(self, x: Tensor) -> Tensor:
        """`[N, T, D] -> [N, T, D]`; a token attends to itself and to earlier ones."""
        n, t, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).view(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, dropout_p=self.dropout if self.training else 0.0
        )
        return self.out(mixed.transpose(1, 2).flatten(2))


class ConditionalBlock(nn.Module):
    """Transformer block whose two branches are shifted, scaled and gated by the action."""

    def __init__(self, size: int, config: PredictorConfig) -> None:
        super().__init__()
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(size, 6 * size))
        # AdaLN-zero: with zero gates every block starts as the identity.
        nn.init.zeros_(self.modulation[1].weight)
        nn.init.zeros_(self.modulation[1].bias)
        self.norm_attention = nn.LayerNorm(size, eps=MODULATION_EPS, elementwise_affine=False)
        self.norm_mlp = nn.LayerNorm(size, eps=MODULATION_EPS, elementwise_affine=False)
        self.attention = CausalAttention(size, config)
        self.mlp = nn.Sequential(
            nn.LayerNorm(size, eps=BRANCH_EPS),
            nn.Linear(size, config.mlp),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.mlp, size),
            nn.Dropout(config.dropout),
        )

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """`x, condition [N, T, D] -> [N, T, D]`."""
        # LeWorldModel's order, on which its weights depend.
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation(condition).chunk(6, -1)
        x = x + gate_a * self.attention(self.norm_attention(x) * (1 + scale_a) + shift_a)
        return x + gate_m * self.mlp(self.norm_mlp(x) * (1 + scale_m) + shift_m)


class Predictor(nn.Module):
    """Predictor of the latent that follows each frame of a window of latents and actions."""

    def __init__(
        self, config: PredictorConfig, latent_size: int, history: int, action_size: int
    ) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(1, history, latent_size) * 0.02)
        self.actions = ActionEmbedder(action_size, config.action_hidden, latent_size)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            ConditionalBlock(latent_size, config) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(latent_size)
        self.project: nn.Module = (
            Projector(latent_size, config.projector, latent_size)
            if config.projector
            else nn.Linear(latent_size, latent_size)
        )

    def forward(self, z: Tensor, a_normalised: Tensor) -> Tensor:
        """`z [N, T, D], a_normalised [N, T, A] -> z_next [N, T, D]`, causal over T."""
        condition = self.actions(a_normalised)
        # Positions count within the window, so one that is not full yet uses the first of them.
        x = self.dropout(z + self.positions[:, : z.shape[1]])
        for block in self.blocks:
            x = block(x, condition)
        n, t, d = x.shape  # BatchNorm1d of the projector takes a two-dimensional batch
        return self.project(self.norm(x).reshape(n * t, d)).view(n, t, d)
