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
    found = dataset_stats.of_values(rows)
    assert np.allclose(found["mean"], rows.mean(axis=0), atol=1e-6)
    assert np.allclose(found["std"], rows.std(axis=0), atol=1e-6)
    assert np.array_equal(found["min"], rows.min(axis=0))
    assert np.allclose(found["q90"], np.quantile(rows, 0.9, axis=0), atol=1e-6)
    assert found["count"].tolist() == [50]


def test_scalars_and_booleans_become_one_column():
    found = dataset_stats.of_values(np.array([True, False, True, True]))
    assert found["mean"].tolist() == [0.75]
    assert found["max"].tolist() == [True]


def test_pictures_from_histogram(frames_u8):
    found = dataset_stats.of_histogram(dataset_stats.histogram(frames_u8), len(frames_u8))
    pixels = frames_u8.reshape(-1, 3) / 255.0
    assert all(found[name].shape == (3, 1, 1) for name in found if name != "count")
    assert np.allclose(found["mean"].ravel(), pixels.mean(axis=0))
    assert np.allclose(found["std"].ravel(), pixels.std(axis=0))
    assert np.allclose(found["min"].ravel(), pixels.min(axis=0))
    assert np.allclose(found["max"].ravel(), pixels.max(axis=0))
    quantile = np.quantile(pixels, 0.1, axis=0, method="inverted_cdf")
    assert np.allclose(found["q10"].ravel(), quantile)


def test_histograms_add_up_and_tell_pictures_apart(frames_u8):
    halves = dataset_stats.histogram(frames_u8[:2]) + dataset_stats.histogram(frames_u8[2:])
    assert np.array_equal(halves, dataset_stats.histogram(frames_u8))
    assert not np.array_equal(halves, dataset_stats.histogram(255 - frames_u8))
