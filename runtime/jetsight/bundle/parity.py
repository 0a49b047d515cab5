"""Parity of an engine with the reference data of its bundle, and its limits."""

from __future__ import annotations

import numpy as np

from jetsight.bundle.golden import planner_key
from jetsight.engine import Engine, NDArray

# The gates checked the precision when the bundle was compiled; these limits find an engine that
# deviates on this machine, e.g. through saturating INT8 kernels or a silent bfloat16.
_SMALLEST_COSINE = {"fp32": 0.9999, "fp16": 0.999}
_SMALLEST_COSINE_ELSE = 0.9
# Lower than for latents, because neighbours may change places.
_SMALLEST_AGREEMENT = {"fp32": 0.999, "fp16": 0.99}
_SMALLEST_AGREEMENT_ELSE = 0.9


def smallest_cosine(precision: str) -> float:
    """Return the smallest permitted cosine to PyTorch's float32 latents at that precision."""
    return _SMALLEST_COSINE.get(precision, _SMALLEST_COSINE_ELSE)


def worst_cosine(engine: Engine, golden: dict[str, NDArray], output: str) -> float:
    """Return the smallest cosine of `output` over all golden samples; NaN if one is not finite."""
    worst = 1.0
    for i, expected in enumerate(golden[output]):
        for name, array in engine.inputs.items():
            array.write(golden[name][i])
        engine.run()
        cosine = _cosine(engine.outputs[output].read(), expected)
        worst = cosine if not cosine >= worst else worst  # NaN wins
    return worst


def smallest_agreement(precision: str) -> float:
    """Return the smallest permitted rank correlation with PyTorch at that precision."""
    return _SMALLEST_AGREEMENT.get(precision, _SMALLEST_AGREEMENT_ELSE)


def rank_agreement(engine: Engine, golden: dict[str, NDArray], graph: str) -> float | None:
    """Return the smallest rank correlation of candidate costs with PyTorch's, over all problems.

    Returns:
        Spearman's; None without reference data for the graph; NaN if a cost is not finite.
    """
    reference = golden.get(planner_key(graph, "costs"))
    if reference is None:
        return None
    worst = 1.0
    for i, expected in enumerate(reference):
        for name, array in engine.inputs.items():
            array.write(golden[planner_key(graph, name)][i])
        engine.run()
        costs = engine.outputs["costs"].read()
        correlation = spearman(costs, expected) if np.isfinite(costs).all() else float("nan")
        worst = correlation if not correlation >= worst else worst  # NaN wins
    return worst


def spearman(a: NDArray, b: NDArray) -> float:
    """Compute Spearman's rank correlation of two vectors of finite numbers.

    Equal values share their mean rank, so the result does not depend on the order of the sort. It
    is 0 if all values of a vector are equal.

    Example:
        >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0, 15.0]))
        0.5
    """
    first, second = (ranks - ranks.mean() for ranks in map(_ranks, (a, b)))
    # One root of the product, not a product of roots: exactly 1 for vectors of the same order.
    size = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / size if size else 0.0


def _ranks(values: NDArray) -> NDArray:
    """Compute ranks from 1, in ascending order; equal values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray = (np.cumsum(counts) - (counts - 1) / 2.0)[place]
    return ranks


def _cosine(found: NDArray, expected: NDArray) -> float:
    """Compute the smallest cosine over the rows; NaN if a number is not finite."""
    if not np.isfinite(found).all():
        return float("nan")
    # float64: squares of large float32 numbers overflow in float32.
    a = np.atleast_2d(found).astype(np.float64)
    b = np.atleast_2d(expected).astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    # The floor gives a row of zeros the cosine 0, which fails, instead of NaN.
    return float(((a * b).sum(axis=1) / np.maximum(norms, 1e-12)).min())
