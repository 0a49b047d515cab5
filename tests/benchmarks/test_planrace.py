"""What the planner benchmark counts and compares; the race itself is `make bench-plan`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.compile import tiny_model
from helpers.paths import ROOT
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from jetsight.errors import UsageError

BENCHMARKS = ROOT / "benchmarks"
Load = Callable[[str], Any]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Import a part of the benchmark, which is no package of ours, and forget it afterwards."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield lambda name: importlib.import_module(f"planrace.{name}")
    for name in [n for n in sys.modules if n.startswith(("planrace", "stable_worldmodel"))]:
        del sys.modules[name]


def _model() -> Any:
    return tiny_model.model_of(projector=24)


def _counted(call: Callable[[], object]) -> int:
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter, torch.inference_mode():  # fused ones go uncounted
        call()
    return counter.get_total_flops()


def test_their_arithmetic_is_what_torch_counts(load: Load) -> None:
    model, samples = _model(), 3
    d, a = model.config.latent_size, model.action_size
    windows = [
        _counted(
            lambda t=t: model.predictor(torch.zeros(samples, t, d), torch.zeros(samples, t, a))
        )
        for t in (1, 2, 3, 3)
    ]
    one_action = _counted(lambda: model.predictor.actions(torch.zeros(samples, a)))
    repeated = (1 + 2 + 3 + 3) - 4  # actions that later windows embed again; they do not
    expected = sum(windows) - repeated * one_action
    assert load("flop").theirs(model, samples, 4) == expected
    assert load("flop").theirs(model, samples, 3) < expected


def test_every_weight_has_its_name_in_their_model(load: Load) -> None:
    predictor = _model().predictor
    found = load("theirs").renamed(predictor)
    assert len(found) == len(predictor.state_dict())
    assert found["action_encoder.patch_embed.weight"].ndim == 3
    last = "predictor.transformer.layers.1.mlp.net.4.weight"
    assert torch.equal(found[last], predictor.state_dict()["blocks.1.mlp.4.weight"])


def test_rank_and_overlap_notice_another_order(load: Load) -> None:
    part = load("agreement")
    costs = torch.tensor([3.0, 1.0, 2.0, 5.0, 4.0])
    assert part.rank_correlation(costs, 10 * costs + 1) == pytest.approx(1.0)
    assert part.rank_correlation(costs, -costs) == pytest.approx(-1.0)
    tied = torch.tensor([1.0, 1.0, 2.0, 2.0])
    for order in ([1.0, 2.0, 3.0, 4.0], [2.0, 1.0, 4.0, 3.0]):
        assert part.rank_correlation(torch.tensor(order), tied) == pytest.approx(4 / 20**0.5)
    assert part.overlap(costs, costs.square(), 2) == 1.0
    assert part.overlap(costs, -costs, 2) == 0.0
    broken = torch.tensor([3.0, 1.0, float("nan"), 5.0, 4.0])
    assert part.rank_correlation(costs, broken) == float("-inf")


def _package(folder: Path, *inside: str) -> None:
    """A stable-worldmodel whose own `__init__` must not run."""
    for name in ("", "wm", *inside):
        (folder / "stable_worldmodel" / name).mkdir(parents=True, exist_ok=True)
        (folder / "stable_worldmodel" / name / "__init__.py").touch()
    (folder / "stable_worldmodel" / "__init__.py").write_text("raise SystemExit('was run')\n")


@pytest.mark.parametrize(
    ("inside", "api"), [(("solver",), "solver"), (("planning", "solver"), "planning")]
)
def test_both_interfaces_are_told_apart(
    inside: tuple[str, ...], api: str, load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _package(tmp_path, *inside)
    (tmp_path / "stable_worldmodel" / "planning").mkdir(exist_ok=True)  # empty: no interface
    monkeypatch.syspath_prepend(tmp_path)
    assert load("theirs").found_api() == api


def test_what_is_not_installed_is_said(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="make bench-plan"):
        load("theirs").found_api()
    _package(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match="neither a solver nor a planning"):
        load("theirs").found_api()


def _contestant(run: Any, name: str, ms: float, busy_ms: float, mean: float = 0.0) -> Any:
    made = run.Contestant(name, "fp32", 1, lambda: None)
    for recorder, value in ((made.plans_ms, ms), (made.iterations_ms, ms), (made.busy_ms, busy_ms)):
        recorder.add(value)
    made.agreed = load_agreement(mean)
    return made


def load_agreement(mean: float) -> Any:
    return importlib.import_module("planrace.agreement").Agreement(mean, 1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("busy_ms", "mean", "met"), [(100.0, 1e-6, [True, True]), (200.0, 1e-3, [False, False])]
)
def test_a_bar_counts_processor_time_and_the_same_plan(
    busy_ms: float, mean: float, met: list[bool], load: Load
) -> None:
    run, report = load("run"), load("report")
    eager = _contestant(run, run.EAGER, 1000.0, 300.0)
    ours = _contestant(run, "jetsight openvino cpu-fp32", 100.0, busy_ms, mean)
    results = run.Results("solver", [eager, ours], {"fp32": 1.0}, {"x": {"Gemm": (1.0, 2)}})
    assert [row.met for row in report.rows(results)] == met
    assert any("MISSED" in line for line in report.lines(results)) is not all(met)
    assert report.as_dict(results)["bars"][0]["met"] is met[0]
