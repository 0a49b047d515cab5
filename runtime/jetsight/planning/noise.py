"""Random numbers of a planner: coloured over time, drawn ahead, reproducible in any order.

Shapes: I iterations, N samples, H horizon, B ticks per block, T = H * B ticks, a size of one robot
action, A = B * a.
"""

from __future__ import annotations

import math

import numpy as np

from jetsight.engine import NDArray

Key = tuple[int, ...]  # seeds the draws of one plan, e.g. a seed and the number of the plan


class Noise:
    """Standard normal draws for the iterations of one plan, `float32 [I, N, H, A]`.

    Every action dimension of every sample is a signal over the T ticks of the horizon whose power
    falls as `1 / f**beta`: neighbouring actions are similar, so that plans cover distance (iCEM,
    arXiv 2008.06389). Each tick has variance 1. Sample 0 of every iteration is zero, so that the
    mean itself is a candidate.

    An iteration's draw depends on key and iteration alone, so it is the same whether `prepare` drew
    it ahead or `draw` does when it is needed.

    Args:
        iterations: I, how many are kept at once.
        samples: N.
        horizon: H.
        block: B.
        step_size: a.
        beta: exponent; 0 is white noise.

    Attributes:
        values: `[I, N, H, A]`; `slot` is the row of an iteration.
        by_tick: the same as `[I, N, T, a]`.
    """

    def __init__(
        self, iterations: int, samples: int, horizon: int, block: int, step_size: int, beta: float
    ) -> None:
        ticks = horizon * block
        shape = (iterations, samples, horizon, block * step_size)
        self.values: NDArray = np.zeros(shape, np.float32)
        self.by_tick: NDArray = self.values.reshape(iterations, samples, ticks, step_size)
        self._white = np.empty((samples, ticks, step_size), np.float32)
        self._colour = colouring(ticks, beta) if beta > 0 else None
        self._key: Key | None = None
        self._held = np.full(iterations, -1, np.int64)  # which iteration each slot holds

    def slot(self, iteration: int) -> int:
        """Return the row of `values` that holds the draw of `iteration`."""
        return iteration % len(self.values)

    def use(self, key: Key) -> None:
        """Draw for `key` from now on; forgets draws of another one."""
        if key != self._key:
            self._key = key
            self.forget()

    def forget(self) -> None:
        """Draw everything again, e.g. when copies of the draws on a device may be incomplete."""
        self._held.fill(-1)

    def draw(self, iteration: int) -> bool:
        """Draw the noise of `iteration` unless it was drawn ahead.

        Returns:
            True if it had to be drawn.
        """
        slot = self.slot(iteration)
        if self._held[slot] == iteration:
            return False
        assert self._key is not None
        # A generator for each iteration, so that the order of drawing does not matter.
        generator = np.random.default_rng([*self._key, iteration])
        if self._colour is None:
            generator.standard_normal(out=self.by_tick[slot], dtype=np.float32)
        else:
            generator.standard_normal(out=self._white, dtype=np.float32)
            np.matmul(self._colour, self._white, out=self.by_tick[slot])
        # After colouring, in place: the mean itself is a candidate.
        self.by_tick[slot, 0] = 0.0
        self._held[slot] = iteration
        return True

    def prepare(self) -> int | None:
        """Draw the first iteration that is missing; returns it, or None if none is."""
        if self._key is None:
            return None
        for iteration in range(len(self.values)):
            if self.draw(iteration):
                return iteration
        return None


def colouring(ticks: int, beta: float) -> NDArray:
    """Compute the matrix `[T, T]` that colours white noise over time to a power of `1 / f**beta`.

    It is the inverse Fourier transform of T independent coefficients whose spread falls with their
    frequency (Timmer and Koenig, 1995), the constant one as large as the slowest wave, with every
    tick scaled to variance 1.
    """
    # In float64, rounded once at the end: it is computed once per planner.
    time = np.arange(ticks) / ticks
    columns = []
    for wave in range(ticks // 2 + 1):
        # The power of frequency 0 would be infinite.
        size = max(wave, 1) ** (-beta / 2)
        alone = wave == 0 or 2 * wave == ticks  # the sine of these is zero at every tick
        angle = 2 * math.pi * wave * time
        # One coefficient instead of two carries half the variance.
        columns.append(size * math.sqrt(0.5 if alone else 1.0) * np.cos(angle))
        if not alone:
            columns.append(size * np.sin(angle))
    matrix = np.stack(columns, axis=1)
    unit: NDArray = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    return unit.astype(np.float32)
