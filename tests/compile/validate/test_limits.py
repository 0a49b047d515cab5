"""Every limit pinned, and the advice that follows a failed gate."""

from __future__ import annotations

import pytest

from jetsight.bundle.gates import MEANINGS
from jetsight_compile.config.precision import PRECISIONS
from jetsight_compile.validate.knobs import IMAGINE_KNOBS, KNOBS, next_knob
from jetsight_compile.validate.limits import (
    IMAGINE_LIMITS,
    IMAGINE_TABLE,
    LIMITS,
    TABLE,
    limit_of,
    within,
)

# A change here loosens or tightens what a bundle promises.
COLUMNS = ("fp32", "fp16", "bf16", "fp8", "int8", "int4", "nvfp4")
PINNED = {
    "latent_cosine": ("min", 0.999999, 0.9999, 0.999, 0.995, 0.995, 0.99, 0.99),
    "latent_cosine_worst": ("min", 0.99999, 0.999, 0.99, 0.95, 0.95, 0.93, 0.93),
    "latent_sqnr_db": ("min", 80.0, 40.0, 27.0, 20.0, 20.0, 17.0, 17.0),
    "encode_inside_cosine": ("min", 0.999999, 0.999, 0.99, 0.98, 0.98, 0.97, 0.97),
    "encode_inside_cosine_worst": ("min", 0.99999, 0.995, 0.95, 0.9, 0.9, 0.87, 0.87),
    "encode_inside_sqnr_db": ("min", 80.0, 30.0, 18.0, 15.0, 15.0, 12.0, 12.0),
    "forecast_inside_cosine": ("min", 0.999999, 0.999, 0.99, 0.98, 0.98, 0.97, 0.97),
    "forecast_inside_cosine_worst": ("min", 0.99999, 0.995, 0.95, 0.9, 0.9, 0.87, 0.87),
    "forecast_inside_sqnr_db": ("min", 80.0, 30.0, 18.0, 15.0, 15.0, 12.0, 12.0),
    "rollout_drift": ("max", 1e-06, 0.001, 0.005, 0.02, 0.02, 0.02, 0.02),
    "history_age_steps": ("max", 0.01, 0.05, 0.05, 0.2, 0.2, 0.2, 0.2),
    "inputs_matter": ("min", 0.001, 0.001, 0.001, 0.001, 0.001, 0.001, 0.001),
    "imagine_rank": ("min", 0.9999, 0.999, 0.995, 0.99, 0.99, 0.98, 0.98),
    "imagine_rank_narrow": ("min", 0.999, 0.99, 0.98, 0.95, 0.95, 0.9, 0.9),
    "imagine_elites": ("min", 0.99, 0.95, 0.9, 0.8, 0.8, 0.7, 0.7),
    "imagine_feasible": ("min", 0.995, 0.985, 0.968, 0.955, 0.955, 0.936, 0.936),
    "imagine_first_action": ("max", 0.01, 0.03, 0.05, 0.1, 0.1, 0.15, 0.15),
    "imagine_regret": ("max", 0.05, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05),
}


def test_every_limit_is_what_it_was() -> None:
    assert COLUMNS == PRECISIONS
    found = {
        name: (direction, *(limits[precision] for precision in COLUMNS))
        for name, (direction, limits) in {**LIMITS, **IMAGINE_LIMITS}.items()
    }
    assert found == PINNED
    assert list(found) == list(PINNED), "gates are measured and shown in this order"
    assert all(len(limits) == len(COLUMNS) for _, limits in {**LIMITS, **IMAGINE_LIMITS}.values())


def test_every_cell_names_its_origin() -> None:
    for name, row in {**TABLE, **IMAGINE_TABLE}.items():
        assert all(origin for _, origin in row.cells().values()), name


@pytest.mark.parametrize(("gate", "good"), [("latent_sqnr_db", 1.0), ("rollout_drift", -1.0)])
def test_a_value_at_its_limit_passes_and_one_beyond_does_not(gate, good) -> None:
    precision = {"encode": "fp16", "forecast": "fp16"}
    limit = limit_of(gate, precision)[1]
    assert within(gate, precision, limit)
    assert within(gate, precision, limit + good)
    assert not within(gate, precision, limit - good)
    assert not within(gate, precision, float("nan"))


def test_limits_tighten_with_precision() -> None:
    for name, (direction, limits) in {**LIMITS, **IMAGINE_LIMITS}.items():
        assert set(limits) == set(PRECISIONS), name
        for order in (("int4", "int8", "fp16", "fp32"), ("nvfp4", "fp8", "bf16", "fp32")):
            ordered = [limits[p] for p in order]
            assert ordered == sorted(ordered, reverse=direction == "max"), name
    assert set(KNOBS) == set(IMAGINE_KNOBS) == set(PRECISIONS)
    # `camera_path` has no table: its limit is measured in the same compile.
    assert set(MEANINGS) == {*LIMITS, *IMAGINE_LIMITS, "camera_path"}


@pytest.mark.parametrize(
    ("name", "precisions"),
    [
        ("latent_cosine", ("fp16", "fp16")),
        ("encode_inside_sqnr_db", ("fp16", "fp16")),
        ("forecast_inside_sqnr_db", ("int8", "int8")),
        ("rollout_drift", ("int8", "int8")),
        ("history_age_steps", ("int8", "int8")),
    ],
)
def test_each_gate_is_judged_by_the_precision_of_its_graphs(name, precisions) -> None:
    encode, forecast = "fp16", "int8"
    direction, limit = limit_of(name, {"encode": encode, "forecast": forecast})
    same = dict(zip(("encode", "forecast"), precisions, strict=True))
    assert (direction, limit) == limit_of(name, same)
    swapped = limit_of(name, {"encode": forecast, "forecast": encode})[1]
    assert (swapped != limit) == (name not in ("rollout_drift", "history_age_steps"))


@pytest.mark.parametrize(
    ("family", "name", "says"),
    [
        ("cpu-fp32", "latent_cosine", "report it"),
        ("cpu-int8", "latent_cosine", "--keep-float 'blocks.1[./]*', try another --method"),
        ("cpu-int8", "latent_cosine", "compile this graph in fp32"),
        ("trt-op20-fp16", "rollout_drift", "after blocks.1"),
        ("trt-op20-fp16", "latent_cosine", "in bf16, else in fp32: --precision encode=fp32"),
        ("trt-op23-fp16-int8", "latent_cosine", "in bf16"),
        ("trt-op23-fp16-int8", "rollout_drift", "(--precision auto finds what to keep)"),
        ("trt-op23-bf16", "forecast_inside_cosine", "forecast=fp32,encode=bf16"),
        ("trt-op23-fp8", "latent_cosine", "compile this graph in fp16"),
        ("trt-op23-int4", "latent_cosine", "nothing is calibrated in int4"),
        ("cpu-fp32", "imagine_rank", "report it"),
        ("cpu-int8", "imagine_rank", "--precision encode=int8,forecast=int8,imagine=fp32"),
        ("trt-op23-int8", "imagine_regret", "forecast=int8,imagine=fp16"),
        ("trt-op20-fp16-fp16-int8", "imagine_elites", "encode=fp16,forecast=fp16,imagine=fp16"),
        ("trt-op23-bf16", "imagine_rank", "forecast=bf16,imagine=fp32"),
        ("trt-op23-fp16-int4", "imagine_rank", "planners in fp32: --precision encode=fp16,fore"),
        ("trt-op23-nvfp4", "latent_cosine", "in fp8 or fp16"),
        ("trt-op20-auto", "latent_cosine", "after blocks.1); name a finer precision"),
        ("trt-op20-fp16-auto", "imagine_rank", "like --precision encode=fp16,forecast=int8"),
    ],
)
def test_the_next_knob_fits_the_precision(family, name, says) -> None:
    assert says in next_knob(family, name, "blocks.1")
