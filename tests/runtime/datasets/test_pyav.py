"""Pictures keep their pixels on the way through PyAV, and are resized by averaging areas."""

from __future__ import annotations

import numpy as np

from jetsight.datasets.pyav import resize


def test_resizing_averages_areas() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, ::2] = 200
    small = resize(image, 20, 30)
    assert small.shape == (20, 30, 3)
    assert np.abs(small.astype(int) - 100).max() <= 2


def test_resizing_to_the_same_size_changes_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    assert np.array_equal(resize(image, 40, 60), image)
