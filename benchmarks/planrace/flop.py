"""Arithmetic of one iteration: theirs counted by hand, ours from its graph's products.

Multiplications and additions of linear layers and of attention's two products; norms, softmax and
activations are left out, as is the custom.
"""

from __future__ import annotations

import onnx

from jetsight_compile.export.onnx_graph import graph_flop
from jetsight_train.model.world_model import WorldModel


def theirs(model: WorldModel, samples: int, horizon: int) -> int:
    """Every step computes its whole window through all blocks and the head, and keeps one token.

    Shapes: D latent size, S inner attention size, T window.
    """
    config, keep = model.config.predictor, model.config.history
    d, s = model.config.latent_size, config.heads * config.head_size
    linear = 3 * d * s + s * d + 2 * d * config.mlp + 6 * d * d  # qkv, out, MLP, modulation
    token = config.depth * linear + 2 * d * config.projector
    embed = model.predictor.actions
    action = embed.code.weight.numel() + sum(embed.embed[i].weight.numel() for i in (0, 2))
    windows = [min(step + 1, keep) for step in range(horizon)]
    # A window's attention is a full T x T product in both directions; the mask hides half of it.
    attention = sum(2 * config.depth * window * window * s for window in windows)
    return 2 * samples * (sum(windows) * token + attention + horizon * action)


def ours(graph: onnx.ModelProto) -> int:
    """Products of the float graph; attention is elementwise there and so not counted."""
    return graph_flop(graph.SerializeToString())
