"""Encoders from one camera frame to one latent vector.

Shapes: N frames, C channels, D latent size, P patch tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from jetsight_train.model.config import ConvConfig, ViTConfig

MOMENTS = 3  # per point: mean x, mean y, spread


class ConvEncoder(nn.Module):
    """Strided convolutional encoder that keeps positions: no pooling over the last map.

    The last map is flattened, or reduced to coordinates by a spatial softmax; the coordinates
    retain the position of a small object and the angle of a block.
    """

    def __init__(self, config: ConvConfig, input_hw: tuple[int, int], latent_size: int) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        previous = 3
        for width, kernel, stride in zip(
            config.widths, config.kernels, config.strides, strict=True
        ):
            # A large stride in the stem: the first two full-resolution layers of the usual pyramid
            # would cost more than all the others together.
            # No bias in the convolution: BatchNorm adds the offset.
            layers += [
                nn.Conv2d(previous, width, kernel, stride, (kernel - 1) // 2, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            previous = width
        self.trunk = nn.Sequential(*layers)
        with torch.no_grad():
            self.trunk.eval()  # the zeros of this shape probe must not enter the BatchNorm averages
            shape = self.trunk(torch.zeros(1, 3, *input_hw)).shape
            self.trunk.train()
        flat = shape.numel()
        self.read: nn.Module = nn.Flatten()
        if config.points:
            self.read = SpatialSoftmax(previous, config.points, (shape[2], shape[3]))
            flat = config.points * MOMENTS
        if config.hidden:
            self.head = nn.Sequential(
                nn.Linear(flat, config.hidden, bias=False),
                nn.BatchNorm1d(config.hidden),
                nn.ReLU(),
                nn.Linear(config.hidden, latent_size),
            )
        else:
            self.head = nn.Sequential(nn.BatchNorm1d(flat), nn.Linear(flat, latent_size))

    def forward(self, x: Tensor) -> Tensor:
        """`[N, 3, H, W] -> [N, D]`."""
        # NHWC is the layout oneDNN convolves fastest in.
        x = self.trunk(x.contiguous(memory_format=torch.channels_last))
        # Training may run the convolutions in bfloat16, whose 8 bits are too few for a coordinate.
        with torch.autocast(x.device.type, enabled=False):
            return self.head(self.read(x.float()))


class SpatialSoftmax(nn.Module):
    """Position and spread of learned features: moments of a softmax over the map.

    Levine et al., arXiv 1504.00702, section 5.2, with the spread beside the mean. Coordinates run
    from -1 to 1 over the map.
    """

    grid: Tensor

    def __init__(self, channels: int, points: int, map_hw: tuple[int, int]) -> None:
        super().__init__()
        self.score = nn.Conv2d(channels, points, 1)
        rows, columns = (torch.linspace(-1.0, 1.0, side) for side in map_hw)
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        grid = torch.stack([x, y, x.square() + y.square()], dim=-1).reshape(-1, MOMENTS)
        # Made from sizes of the recipe, so it is not stored with the weights.
        self.register_buffer("grid", grid, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, h, w] -> [N, 3 * points]`: mean x, mean y and spread of every point."""
        # Var(x) + Var(y) = E[x^2 + y^2] - |mean|^2, so one product with the grid gives all three.
        moments = torch.softmax(self.score(x).flatten(2), dim=-1) @ self.grid
        mean = moments[..., :2]
        spread = moments[..., 2:] - mean.square().sum(-1, keepdim=True)
        return torch.cat([mean, spread], dim=-1).flatten(1)


class ViTBlock(nn.Module):
    """Pre-norm transformer block with exact GELU and fused query/key/value projection."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm_attention = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.norm_mlp = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = nn.Sequential(
            nn.Linear(config.width, config.mlp), nn.GELU(), nn.Linear(config.mlp, config.width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[N, P, W] -> [N, P, W]`."""
        n, p, w = x.shape
        qkv = self.qkv(self.norm_attention(x)).view(n, p, 3, self.heads, w // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(mixed.transpose(1, 2).reshape(n, p, w))
        return x + self.mlp(self.norm_mlp(x))


class ViTEncoder(nn.Module):
    """Vision transformer whose class token, projected, is the latent.

    With the `lewm` recipe this is LeWorldModel's encoder and projector (arXiv 2603.19312):
    ViT-tiny, patch 14, 224 px, then an MLP 192 -> 2048 -> BatchNorm -> GELU -> 192.
    """

    def __init__(self, config: ViTConfig, input_hw: tuple[int, int], latent_size: int) -> None:
        super().__init__()
        rows, columns = (side // config.patch for side in input_hw)
        self.patch_embed = nn.Conv2d(3, config.width, config.patch, config.patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.positions = nn.Parameter(torch.zeros(1, rows * columns + 1, config.width))
        nn.init.trunc_normal_(self.class_token, std=0.02)
        nn.init.trunc_normal_(self.positions, std=0.02)
        self.blocks = nn.ModuleList(ViTBlock(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.projector = Projector(config.width, config.projector, latent_size)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, 3, H, W] -> [N, D]`."""
        tokens = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(len(x), -1, -1), tokens], dim=1) + self.positions
        for block in self.blocks:
            x = block(x)
        # LayerNorm acts on each token alone, so normalising the class token is enough.
        return self.projector(self.norm(x[:, 0]))


class Projector(nn.Module):
    """MLP with one BatchNorm, the projector of LeWorldModel's encoder and predictor."""

    def __init__(self, size_in: int, hidden: int, size_out: int) -> None:
        super().__init__()
        self.up = nn.Linear(size_in, hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.down = nn.Linear(hidden, size_out)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, size_in] -> [N, size_out]`."""
        return self.down(functional.gelu(self.norm(self.up(x))))
