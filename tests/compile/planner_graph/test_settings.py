"""`--planner` and its settings file, read and made into specifications."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest
from helpers.compile.planner_world import imagining_model
from helpers.compile.tiny_model import model_of

from jetsight.bundle.manifest import GRAPHS
from jetsight.bundle.planner_spec import CostWeights, HazardSpec, PlannerSpec, check_planners
from jetsight.errors import UsageError
from jetsight_compile.planner_graph import settings as planners
from jetsight_compile.planner_graph.settings import (
    DEFAULT,
    PlannerPreset,
    PlannerSettings,
    elites_of,
    parse,
    specs,
)
from jetsight_compile.planner_graph.signature import head_spec


@pytest.fixture(scope="module")
def model():
    return imagining_model(horizon=4)


def one(model, text: str, **settings) -> PlannerSpec:
    (spec,) = specs([parse(text)], model, PlannerSettings(**settings))
    return spec


def from_file(model, path: Path) -> PlannerSpec:
    (spec,) = specs([parse("icem:32")], model, planners.load_settings(path))
    return spec


@pytest.mark.parametrize(
    ("text", "preset"),
    [
        ("icem:256x5", PlannerPreset("icem", 256, 5)),
        ("cem:300", PlannerPreset("cem", 300)),
        ("mppi", PlannerPreset("mppi", 256)),
        *((f"{preset.kind}:{preset.samples}", preset) for preset in DEFAULT),
    ],
)
def test_a_preset_is_read_and_printed(text: str, preset: PlannerPreset) -> None:
    assert parse(text) == parse(str(preset)) == preset


@pytest.mark.parametrize(
    "text", ["", "ICEM", "icem:", "icem:x5", "icem:256x", "icem:-3", "cma:256", "icem:256x5x2"]
)
def test_what_is_no_planner_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError, match="expected cem, icem, mppi with a size") as caught:
        parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["icem:0", "cem:1", "mppi:0x5", "icem:256x0"])
def test_a_size_of_nothing_is_refused_and_not_the_default(text: str) -> None:
    with pytest.raises(UsageError, match="expected at least 2 and 1") as caught:
        parse(text)
    assert text in str(caught.value)


def test_defaults_depend_on_size_kind_and_model(model) -> None:
    spec = one(model, "icem:256")
    assert (spec.horizon, spec.context, spec.elites, spec.kept, spec.momentum) == (4, 3, 26, 8, 0.1)
    assert (spec.start, spec.noise_beta, spec.iterations) == ("hold", 2.0, 10)
    assert spec.std_start == pytest.approx(model.action.std)
    assert spec.probe_weight == {"x": 1.0, "y": 1.0}
    assert 0.0 < spec.weights.terminal < 0.1, "with a probe, the latent only breaks ties"
    small, cem, mppi = (one(model, text) for text in ("icem:20x2", "cem:20x2", "mppi:20x2"))
    assert (small.elites, small.kept) == (4, 1)
    assert (cem.kept, cem.momentum, cem.noise_beta) == (0, 0.0, 0.0)
    assert mppi.elites == 0
    assert one(model_of(), "icem:256").weights == CostWeights(1.0)


def test_facts_fit_the_manifest_and_the_graph(model) -> None:
    heads = head_spec(model)
    assert heads is not None
    assert heads.quantities == ("x", "y")
    assert heads.hazards == (HazardSpec("hit", 0.0, 0.1), HazardSpec("out", 0.0, 0.1))
    assert heads.support
    assert head_spec(model_of()) is None
    every = tuple(one(model, text) for text in ("icem:16", "cem:16x2", "mppi:16x1"))
    check_planners(every, heads, history=3, horizon=4, step_size=2)
    assert [each.graph for each in every] == [
        "imagine_icem_16x4",
        "imagine_cem_16x2",
        "imagine_mppi_16x1",
    ]
    assert not {each.graph for each in every} & set(GRAPHS)


def test_a_settings_file_overrides(model, tmp_path: Path) -> None:
    path = tmp_path / "planner.toml"
    path.write_text(
        "[planner]\nelites = 5\nkept = 2\nmomentum = 0.3\ncontext = 1\nrate_limited = true\n"
        'start = "neutral"\nnoise_beta = 1.0\niterations = 4\nstd_start = [0.5, 2.0]\n'
        "temperature = 3.0\n[planner.weights]\nrunning = 0.5\n[planner.probe_weight]\nx = 2.0\n"
    )
    spec = from_file(model, path)
    assert (spec.elites, spec.kept, spec.momentum, spec.context) == (5, 2, 0.3, 1)
    assert spec.rate_limited
    assert (spec.start, spec.noise_beta, spec.iterations) == ("neutral", 1.0, 4)
    assert spec.temperature == 3.0
    assert spec.std_start == pytest.approx((0.5 * 1.7, 2.0 * 1.4))
    assert (spec.weights, spec.probe_weight) == (CostWeights(1.0, 0.5), {"x": 2.0})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[planner]\nelits = 3\n", "elits.*elites"),
        ("elites = 3\n", "elites"),
        ("[planner\n", "not a readable TOML"),
        ('[planner]\nstart = "here"\n', "hold"),
        (
            "[planner]\nmomentum = 1.5\n",
            "icem:32 with its settings: momentum of icem is 1.5, expected 0 to below 1",
        ),
        ("[planner]\ncontext = 4\n", "context of planner imagine_icem_32x4 is 4, expected 1 to 3"),
        ("[planner]\nelites = 1\n", "elites is 1, expected 2 to 32"),
        ("[planner]\nnoise_beta = -1.0\n", "noise_beta is -1.0"),
        ("[planner]\niterations = 0\n", "iterations"),
        ("[planner]\nstd_start = [1.0]\n", "std_start has 1 numbers, an action has 2"),
        (
            "[planner.probe_weight]\nz = 1.0\n",
            "weighs 'z', which is no quantity of the probe; it reads x, y",
        ),
    ],
)
def test_settings_that_make_no_planner_are_refused(model, tmp_path, text: str, says: str) -> None:
    path = tmp_path / "planner.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=says) as caught:
        from_file(model, path)
    assert "\n" not in str(caught.value)


def test_a_planner_the_model_cannot_have_is_refused(model, tmp_path) -> None:
    with pytest.raises(UsageError, match="looks 5 blocks ahead, but the model was trained for 4"):
        one(model, "icem:32x5")
    presets = [parse("icem:32"), parse("icem:32x4")]
    assert len(specs(presets, model, PlannerSettings())) == 1, "the same one twice is one"
    with pytest.raises(UsageError, match="no such file"):
        planners.load_settings(tmp_path / "nothing.toml")


def test_a_robots_rate_limits_are_obeyed_unless_told_otherwise(model) -> None:
    assert not one(model, "icem:32").rate_limited
    limited = imagining_model(horizon=4)
    object.__setattr__(limited.action, "rate_limit_per_s", (1.0, 1.0))
    assert one(limited, "icem:32").rate_limited
    assert not one(limited, "icem:32", rate_limited=False).rate_limited


@pytest.mark.parametrize(
    ("text", "elites", "expected"),
    [
        ("cem:65000", None, 6500),
        ("cem:4000", 3841, 3841),
        ("icem:20", None, 4),
        ("cem:3", None, 3),
        ("mppi:65000", 100, 0),
    ],
)
def test_elites_are_known_before_the_model_is(text: str, elites: int | None, expected: int) -> None:
    assert elites_of(parse(text), PlannerSettings(elites=elites)) == expected


def test_examples_of_the_docstrings_are_true() -> None:
    found = doctest.testmod(planners)
    assert (found.attempted, found.failed) == (1, 0)
