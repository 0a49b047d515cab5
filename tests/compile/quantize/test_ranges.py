"""How far out a grid should reach: each method on data whose answer is known."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from helpers.compile.probes import graph_of, samples_of
from onnx import helper

from jetsight.errors import UsageError
from jetsight_compile.config.precision import TENSORRT_METHODS as METHODS
from jetsight_compile.quantize import ranges
from jetsight_compile.quantize.ranges import Seen, collect, find, rounded

GRIDS = ("int8", "fp8")
RNG = np.random.default_rng(0)
GAUSSIAN = RNG.standard_normal(100_000)
KNOWN = {
    "uniform": RNG.uniform(-1.0, 1.0, 100_000),
    "gaussian": GAUSSIAN,
    "outliers": np.concatenate([GAUSSIAN, [40.0, -37.0]]),
    "rectified": np.maximum(GAUSSIAN, 0.0),
}


def seen(values: np.ndarray) -> Seen:
    size = np.abs(values)
    return Seen(float(size.max()), np.histogram(size, 2048, (0.0, size.max()))[0].astype(float))


def reach(data: str, method: str, grid: str = "int8") -> float:
    """The range, in units of the largest value."""
    known = seen(KNOWN[data])
    return find(known, method, grid) / known.amax


def error(data: str, method: str, grid: str = "int8") -> float:
    values = KNOWN[data]
    return float(np.square(rounded(values, find(seen(values), method, grid), grid) - values).mean())


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("method", METHODS)
def test_what_is_uniform_is_not_clipped(method, grid) -> None:
    assert reach("uniform", method, grid) > (0.99 if grid == "int8" else 0.95)


def test_outliers_are_clipped_by_all_but_max() -> None:
    assert reach("outliers", "max") == 1.0
    four_sigma = 4.0 / 40.0
    assert reach("outliers", "percentile") == pytest.approx(four_sigma, rel=0.1)
    # Two outliers in 100 000 cost more squared error than the grid of everything else.
    assert reach("outliers", "mse") < 0.9


def test_fp8_keeps_its_outliers_because_its_grid_is_fine_near_zero() -> None:
    assert reach("outliers", "mse", "fp8") > 0.95
    assert error("outliers", "max", "fp8") < 0.1 * error("outliers", "percentile", "fp8")


@pytest.mark.parametrize("data", KNOWN)
def test_mse_has_the_smallest_error_of_all(data) -> None:
    for grid in GRIDS:
        errors = {method: error(data, method, grid) for method in METHODS}
        assert errors["mse"] <= 1.01 * min(errors.values()), (grid, errors)


def test_percentile_leaves_out_its_share() -> None:
    values = KNOWN["gaussian"]
    limit = find(seen(values), "percentile", "int8")
    outside = float((np.abs(values) > limit).mean())
    assert outside <= 1 - ranges.PERCENTILE / 100 < 20 * max(outside, 1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("grid", GRIDS)
def test_a_tensor_that_is_zero_throughout_has_a_range(method, grid) -> None:
    counts = np.zeros(2048)
    counts[0] = 1000
    limit = find(Seen(1e-6, counts), method, grid)
    assert 0 < limit <= 1e-6
    assert not rounded(np.zeros(4), limit, grid).any()


def test_the_int8_grid_has_256_steps_and_clips() -> None:
    values = np.array([-3.0, -1.28, -1.0, -0.004, 0.0, 0.006, 0.5, 1.27, 9.0])
    expected = [-1.28, -1.28, -1.0, 0.0, 0.0, 0.01, 0.5, 1.27, 1.27]
    np.testing.assert_allclose(rounded(values, 1.27, "int8"), expected, atol=1e-12)
    assert len(np.unique(rounded(np.linspace(-2, 2, 100_000), 1.27, "int8"))) == 256


def test_the_fp8_grid_is_e4m3() -> None:
    values = np.linspace(-448.0, 448.0, 9973)
    expected = values.astype(ml_dtypes.float8_e4m3fn).astype(np.float64)
    np.testing.assert_array_equal(rounded(values, 448.0, "fp8"), expected)
    assert np.abs(rounded(values, 448.0, "int8") - expected).max() > 1.0, "another grid"
    assert rounded(np.array([1e6]), 7.0, "fp8") == 7.0, "E4M3 itself would make it NaN"


def test_there_is_no_other_method() -> None:
    for method in ("median", "entropy"):
        with pytest.raises(
            UsageError, match=rf"no calibration method '{method}'; choose one of max, perc"
        ):
            find(seen(GAUSSIAN), method, "int8")


def chain() -> onnx.ModelProto:
    """`x -> 2x -> relu`, of which the middle is no output."""
    nodes = [
        helper.make_node("Add", ["x", "x"], ["twice"], name="twice"),
        helper.make_node("Relu", ["twice"], ["y"], name="relu"),
    ]
    return graph_of(nodes, {}, x=(3, 50), y=(3, 50))


def test_histograms_of_a_graph_are_those_of_its_values() -> None:
    data = np.random.default_rng(1).standard_normal((20, 3, 50)).astype(np.float32)
    found = collect(chain(), ["twice", "x", "twice", "y"], [{"x": sample} for sample in data])
    expected = {"x": np.abs(data), "twice": np.abs(data) * 2, "y": np.maximum(data, 0) * 2}
    assert set(found) == set(expected)
    for name, values in expected.items():
        known = found[name]
        assert known.amax == values.max()
        counts = np.histogram(values, 2048, (0.0, float(values.max())))[0]
        np.testing.assert_array_equal(known.counts, counts)
        assert known.counts.sum() == data.size
    assert not np.array_equal(found["twice"].counts, found["y"].counts)


def test_ranges_do_not_depend_on_the_order_of_the_samples() -> None:
    data = np.random.default_rng(2).standard_normal((6, 3, 50)).astype(np.float32)
    data[0] *= 30.0  # the first sample sets the limit of the histogram
    one = collect(chain(), ["twice"], [{"x": sample} for sample in data])["twice"]
    other = collect(chain(), ["twice"], [{"x": sample} for sample in data[::-1]])["twice"]
    assert one.amax == other.amax
    np.testing.assert_array_equal(one.counts, other.counts)


def test_a_dead_activation_does_not_stop_calibration() -> None:
    dead = collect(chain(), ["y"], [{"x": np.full((3, 50), -1.0, np.float32)}])["y"]
    for method in METHODS:
        assert 0 < find(dead, method, "int8") <= 1e-6


def test_values_inside_are_seen_without_touching_the_graph(exports) -> None:
    graph = exports.graph("vit", "encode")
    before = graph.SerializeToString()
    norm = next(n for n in graph.graph.node if n.op_type == "LayerNormalization")
    samples = samples_of(exports, "vit", "encode", 2)
    (first, _) = (
        values[norm.output[0]].copy() for values in ranges.observe(graph, [norm.output[0]], samples)
    )
    np.testing.assert_allclose(first.mean(-1), 0.0, atol=1e-5)
    np.testing.assert_allclose(first.std(-1), 1.0, atol=1e-2)
    assert graph.SerializeToString() == before
