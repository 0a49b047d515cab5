"""PyTorch behind the runtime's engines: the same numbers as the model and its planners."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.compile.tiny_model import BLOCK, HISTORY, HORIZON, LATENT, SIDE, model_of

from jetsight.bundle.planner_spec import HeadSpec
from jetsight.bundle.runtime_spec import PlanSpec, StreamSpec
from jetsight.errors import EngineError
from jetsight.testing import tiny_planner
from jetsight_compile.closed_loop import torch_engines
from jetsight_train.planning import cem
from jetsight_train.planning.problem import Problem, State

MODEL = model_of()
SPEC = StreamSpec(
    SIDE,
    SIDE,
    10.0,
    HISTORY,
    HORIZON,
    BLOCK,
    LATENT,
    np.zeros(2, np.float32),
    np.ones(LATENT, np.float32),
)
PLANNER = tiny_planner(samples=8, elites=3)
PLAN = PlanSpec(
    SPEC,
    MODEL.action.names,
    np.full(2, -3, np.float32),
    np.full(2, 3, np.float32),
    None,
    HeadSpec(),
    (PLANNER,),
)


def filled(engine: torch_engines.EagerEngine) -> dict[str, torch.Tensor]:
    """Random inputs, written; returned as tensors of their own."""
    rng = np.random.default_rng(0)
    given = {}
    for name, array in engine.inputs.items():
        value = rng.standard_normal(array.shape).astype(array.dtype)
        value = value if array.dtype == np.float32 else rng.integers(255, size=array.shape)
        array.write(value.astype(array.dtype))
        given[name] = torch.from_numpy(value.astype(array.dtype))
    return given


def test_encode_and_forecast_are_the_model() -> None:
    encode, forecast = (
        torch_engines.encode_engine(MODEL, SPEC),
        torch_engines.forecast_engine(MODEL, SPEC),
    )
    frame, given = filled(encode), filled(forecast)
    encode.run()
    forecast.run()
    with torch.no_grad():
        z = MODEL.encode(frame["frame_hwc_u8"][None])[0]
        future = MODEL.rollout(*(given[n][None] for n in ("z_hist", "a_hist", "actions")))[0]
    np.testing.assert_allclose(encode.outputs["z"].read(), z, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(forecast.outputs["z_future"].read(), future, rtol=1e-6, atol=1e-6)


def test_an_iteration_is_the_readable_reference() -> None:
    engine = torch_engines.EagerBackend(MODEL, PLAN).load(PLANNER.graph.encode())
    x = filled(engine)
    engine.run()
    problem = Problem(
        spec=PLANNER,
        z_hist=x["z_hist"],
        a_hist=x["a_hist"],
        z_goal=x["z_goal"],
        low=x["low"],
        high=x["high"],
        weights=x["weights"],
        a_last=x["a_last"],
        when=x["when"],
    )
    with torch.no_grad():
        after = cem.step(
            MODEL, problem, State.first(problem, x["mean"], x["std"], x["incumbent"]), x["noise"]
        )
    for name, wanted in (
        ("mean_next", after.mean),
        ("std_next", after.std),
        ("actions", after.actions),
        ("cost", after.cost),
        ("costs", after.costs),
        ("z_future", after.z_future),
    ):
        np.testing.assert_allclose(engine.outputs[name].read(), wanted, rtol=1e-5, atol=1e-5)
    before = np.array(engine.outputs["cost"].read())
    engine.inputs["z_goal"].write(np.full(LATENT, 9, np.float32))  # control: another goal
    engine.run()
    assert not np.allclose(engine.outputs["cost"].read(), before)


def test_eager_engines_are_not_chained() -> None:
    encode = torch_engines.encode_engine(MODEL, SPEC)
    with pytest.raises(EngineError, match="cannot be bound"):
        encode.bind("z", encode.outputs["z"])
