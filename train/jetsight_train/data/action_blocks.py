"""Executed action blocks with the latents before and after each.

Shapes: M blocks, W windows, K history, C context, H horizon, B ticks per block, D latent,
A = B * action size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from jetsight.progress import progress
from jetsight_train.data.encoded import Tracks, finite
from jetsight_train.data.windows import WindowSampler
from jetsight_train.model.world_model import WorldModel

IntArray = npt.NDArray[np.int64]
ROLLOUTS_AT_ONCE = 512  # windows of one forward pass


@dataclass(frozen=True)
class Blocks:
    """Executed action blocks with the latents around them, encoded or imagined.

    Attributes:
        before: `[M, D]` latent before each block.
        actions: `[M, A]` action block, robot units.
        after: `[M, D]` latent after it.
        rows: `[M]` row of the recording before the block; the one after is B rows later.
        ahead: `[M]` number of blocks that `after` was imagined ahead; 0 where it was encoded.
    """

    before: Tensor
    actions: Tensor
    after: Tensor
    rows: IntArray
    ahead: IntArray


def encoded_blocks(model: WorldModel, tracks: Tracks) -> Blocks:
    """Take every executed block of the recording, with encoded latents."""
    sampler = WindowSampler(tracks.recording, 2, model.timing.action_block)
    rows = sampler.rows(sampler.firsts)
    before, after = (tracks.latents[torch.from_numpy(rows[:, i])] for i in (0, 1))
    ahead = np.zeros(len(rows), np.int64)
    return Blocks(before, sampler.blocks(rows)[:, 0], after, rows[:, 0], ahead)


@torch.no_grad()
def imagined_blocks(
    model: WorldModel, tracks: Tracks, most: int | None, seed: int = 0, context: int = 0
) -> Blocks:
    """Take executed blocks with imagined latents, as a planner reads them.

    Args:
        model: the frozen model.
        tracks: encoded episodes.
        most: number of windows to draw at random; None takes one window per block, side by side.
        seed: seed of the draw.
        context: C, encoded latents each rollout starts from; 0 for K.

    Returns:
        `W * H` blocks; those of one window follow one another.

    Raises:
        DataError: no episode is as long as a window.
    """
    horizon, context = model.config.horizon, context or model.config.history
    rows = window_rows(model, tracks, most, seed, context)
    sampler = _sampler(model, tracks, context)
    parts = []
    for first in progress(range(0, len(rows), ROLLOUTS_AT_ONCE), "imagine", "batch"):
        batch = rows[first : first + ROLLOUTS_AT_ONCE]
        z, a = tracks.latents[torch.from_numpy(batch[:, :context])], sampler.blocks(batch)
        future = model.rollout(z, a[:, : context - 1], a[:, context - 1 :])
        parts.append(torch.cat([z[:, -1:], future], dim=1))
    z = finite(torch.cat(parts), "imagined", tracks.recording.name)
    actions = sampler.blocks(rows)[:, context - 1 :]
    return Blocks(
        z[:, :-1].flatten(0, 1),
        actions.flatten(0, 1),
        z[:, 1:].flatten(0, 1),
        rows[:, context - 1 : -1].ravel(),
        np.tile(np.arange(1, horizon + 1), len(rows)),
    )


def window_rows(
    model: WorldModel, tracks: Tracks, most: int | None = None, seed: int = 0, context: int = 0
) -> IntArray:
    """Return the rows `[W, C + H]` of the windows that `imagined_blocks` rolls out."""
    sampler = _sampler(model, tracks, context)
    firsts = sampler.firsts
    if most is None:
        # Only starts at a multiple of B from the start of their episode: blocks side by side.
        starts = tracks.recording.starts
        episode = np.searchsorted(starts, firsts, side="right") - 1
        firsts = firsts[(firsts - starts[episode]) % sampler.block == 0]
    elif len(firsts) > most:
        firsts = np.sort(np.random.default_rng(seed).choice(firsts, most, replace=False))
    return sampler.rows(firsts)


def _sampler(model: WorldModel, tracks: Tracks, context: int) -> WindowSampler:
    length = (context or model.config.history) + model.config.horizon
    return WindowSampler(tracks.recording, length, model.timing.action_block)
