"""Dataset statistics equal NumPy's on the raw values."""

from __future__ import annotations

import numpy as np
import pytest

from jetsight_train.record import dataset_stats


@pytest.fixture
def frames_u8() -> np.ndarray:
    return np.random.default_rng(3).integers(10, 240, (6, 8, 5, 3), dtype=np.uint8)


def test_values():
    rows = np.random.default_rng(4).normal(size=(50, 3)).astype(np.float32)
    stats = dataset_stats.of_values(rows)
    assert np.allclose(stats["mean"], rows.mean(axis=0), atol=1e-6)
    assert np.allclose(stats["std"], rows.std(axis=0), atol=1e-6)
    assert np.array_equal(stats["min"], rows.min(axis=0))
    assert np.allclose(stats["q90"], np.quantile(rows, 0.9, axis=0), atol=1e-6)
    assert stats["count"].tolist() == [50]


def test_scalars_and_booleans_become_one_column():
    stats = dataset_stats.of_values(np.array([True, False, True, True]))
    assert stats["mean"].tolist() == [0.75]
    assert stats["max"].tolist() == [True]


def test_pictures_from_histogram(frames_u8):
    stats = dataset_stats.of_histogram(dataset_stats.histogram(frames_u8), len(frames_u8))
    pixels = frames_u8.reshape(-1, 3) / 255.0
    assert all(stats[name].shape == (3, 1, 1) for name in stats if name != "count")
    assert np.allclose(stats["mean"].ravel(), pixels.mean(axis=0))
    assert np.allclose(stats["std"].ravel(), pixels.std(axis=0))
    assert np.allclose(stats["min"].ravel(), pixels.min(axis=0))
    assert np.allclose(stats["max"].ravel(), pixels.max(axis=0))
    quantile = np.quantile(pixels, 0.1, axis=0, method="inverted_cdf")
    assert np.allclose(stats["q10"].ravel(), quantile)


def test_histograms_add_up_and_tell_pictures_apart(frames_u8):
    halves = dataset_stats.histogram(frames_u8[:2]) + dataset_stats.histogram(frames_u8[2:])
    assert np.array_equal(halves, dataset_stats.histogram(frames_u8))
    assert not np.array_equal(halves, dataset_stats.histogram(255 - frames_u8))
