"""Per-feature statistics of a LeRobot dataset: exact, over every value and every pixel.

All statistics of pictures follow from a 256-bin histogram per channel, which adds up over episodes;
they are of values in [0, 1] with shape [3,1,1].
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
Stats = dict[str, NDArray[Any]]


def of_values(values: NDArray[Any]) -> Stats:
    """Compute statistics over axis 0 of `values` [T,n] (or [T], taken as [T,1])."""
    rows = values.reshape(len(values), -1)
    real = rows.astype(np.float64)
    stats: Stats = {"min": rows.min(axis=0), "max": rows.max(axis=0)}
    stats |= {"mean": real.mean(axis=0), "std": real.std(axis=0), "count": np.array([len(rows)])}
    if rows.dtype == np.bool_:
        rows = rows.astype(np.int64)
    quantiles = np.quantile(rows.astype(np.float64), list(QUANTILES.values()), axis=0)
    return stats | dict(zip(QUANTILES, quantiles, strict=True))


def histogram(frames_u8: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count how often each value occurs per channel [3,256] in `frames_u8` [...,3]."""
    return np.stack(
        [np.bincount(frames_u8[..., c].ravel(), minlength=256) for c in range(3)]
    ).astype(np.int64)


def of_histogram(counts: NDArray[np.int64], frames: int) -> Stats:
    """Compute picture statistics from `counts` [3,256]: values in [0,1], shape [3,1,1]."""
    levels = np.arange(256) / 255.0
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ levels
    # E[x^2] - E[x]^2 of pictures of one colour may round to just below zero.
    std = np.sqrt(np.maximum(share @ levels**2 - mean**2, 0.0))
    below = np.cumsum(share, axis=1)
    used = counts > 0
    stats = {"min": levels[used.argmax(axis=1)], "max": levels[255 - used[:, ::-1].argmax(axis=1)]}
    stats |= {"mean": mean, "std": std}
    for name, q in QUANTILES.items():
        stats[name] = levels[(below >= q - 1e-12).argmax(axis=1)]
    shaped: Stats = {name: value.reshape(3, 1, 1) for name, value in stats.items()}
    return shaped | {"count": np.array([frames])}
