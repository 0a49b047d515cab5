"""From a bundle to a plan on real backends: loaded when needed, proven, and closed again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from helpers.runtime import live_bundle
from helpers.runtime.live_planner import (
    ACTIONS,
    PLANNER,
    golden_problem,
    make_planning_bundle,
    planner_graph,
)

from jetsight.bundle.bundle import Bundle
from jetsight.bundle.parity import rank_agreement, spearman
from jetsight.errors import EngineError, UsageError
from jetsight.planning.plan import PlanReason
from jetsight.session import Session
from jetsight.stream.frames import Frame

BACKENDS = ("onnxruntime", "openvino")
RNG = np.random.default_rng(2)
IMAGE = RNG.integers(1, 255, (8, 12, 3), np.uint8)
Z = live_bundle.encode(IMAGE)
SMALL = dataclasses.replace(PLANNER, graph="imagine_cem_8x2", samples=8)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_planning_bundle(tmp_path_factory.mktemp("bundle") / "tiny.jetsight")


def open_session(bundle: Bundle, backend: str | None = "onnxruntime") -> Session:
    session = Session.open(bundle, backend, "cpu-fp32", threads=1)
    session.step(Frame(IMAGE, 0, 0, session.clock.now_ns()))
    return session


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_bundle_plans(bundle: Bundle, backend: str) -> None:
    reachable = Z + np.tile([300.0, 200.0], 4).astype(np.float32).reshape(2, 4).sum(0) @ ACTIONS
    with open_session(bundle, backend) as session:
        session.load_planner()
        session.step(Frame(IMAGE, 1, 1, session.clock.now_ns()))
        plan = session.imagine(reachable.astype(np.float32), iterations=20)
        assert (plan.valid, plan.reason, plan.planner) == (True, PlanReason.OK, PLANNER.graph)
        assert plan.actions is not None
        assert plan.z_future is not None
        expected = Z + np.cumsum(plan.actions.reshape(2, 4) @ ACTIONS, axis=0)
        np.testing.assert_allclose(plan.z_future, expected, rtol=1e-4, atol=1e-4)
        distance = ((expected[-1] - reachable) ** 2).sum()
        assert plan.cost == pytest.approx(distance, rel=1e-2, abs=1e-5)
        assert plan.cost < plan.costs[0] / 2
        assert plan.parts_ms.keys() == {"load", "goal", "noise", "iterations", "result"}


def test_both_backends_find_the_same_plan(bundle: Bundle) -> None:
    found = []
    for backend in BACKENDS:
        with open_session(bundle, backend) as session:
            session.load_planner()
            session.step(Frame(IMAGE, 1, 1, session.clock.now_ns()))
            found.append(session.imagine(Z + 1, iterations=8, seed=5).copy())
    np.testing.assert_allclose(found[0].costs, found[1].costs, rtol=1e-3)
    np.testing.assert_allclose(found[0].actions, found[1].actions, rtol=1e-2, atol=0.5)


def test_nothing_is_loaded_for_those_who_do_not_plan(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    graph = Bundle.graph
    monkeypatch.setattr(Bundle, "graph", lambda self, f, n: read.append(n) or graph(self, f, n))
    with open_session(bundle) as session:
        assert read == ["encode", "forecast"]
        assert [planner.graph for planner in session.planners] == [PLANNER.graph]
        session.imagine(Z)
        session.imagine(Z)
        assert read == ["encode", "forecast", PLANNER.graph]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_planner_that_ranks_otherwise_is_refused(tmp_path: Path, backend: str) -> None:
    spoiled = make_planning_bundle(tmp_path / "x.jetsight", graph=planner_graph(scale=-1.0))
    with (
        open_session(spoiled, backend) as session,
        pytest.raises(EngineError, match=r"does not rank plans like PyTorch: .* -1\.0000"),
    ):
        session.load_planner()
    unproven = make_planning_bundle(tmp_path / "y.jetsight", reference=False)
    with open_session(unproven, backend) as session:
        session.load_planner()  # without reference data there is nothing to prove


def test_a_graph_of_other_sizes_is_refused(tmp_path: Path) -> None:
    other = planner_graph(planner=SMALL)
    bundle = make_planning_bundle(tmp_path / "x.jetsight", graph=other)
    with (
        open_session(bundle) as session,
        pytest.raises(EngineError, match=r"input 'noise' is float32 \[8, 2, 4\], but the manif"),
    ):
        session.load_planner()


def test_a_family_without_the_graph_has_no_planner(bundle: Bundle) -> None:
    with Session.open(bundle, "onnxruntime", "cpu-int8", threads=1) as session:
        assert session.planners == ()
        with pytest.raises(UsageError, match="for the family of this session"):
            session.imagine(Z)


def test_the_planner_for_a_deadline_is_measured_once_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    bundle = make_planning_bundle(tmp_path / "x.jetsight", SMALL, PLANNER, reference=False)
    loads: list[str] = []
    graph = Bundle.graph
    monkeypatch.setattr(Bundle, "graph", lambda self, f, n: loads.append(n) or graph(self, f, n))
    for expected in (["encode", "forecast", SMALL.graph, PLANNER.graph], ["encode", "forecast"]):
        loads.clear()
        with open_session(bundle) as session:
            choice = session.tune(1000.0)
            assert loads == expected
            assert (choice.planner, choice.iterations, choice.fits) == (PLANNER.graph, 8, True)
            plan = session.imagine(Z, deadline_ms=1000.0)
            assert plan.planner == PLANNER.graph
    (kept,) = tmp_path.glob("jetsight/planner-times/*.json")
    assert kept.stat().st_mode & 0o777 == 0o600
    kept.write_text("{")
    with open_session(bundle) as session:
        loads.clear()
        session.tune(1000.0)
        assert loads == [SMALL.graph, PLANNER.graph]


def test_rank_agreement_needs_reference_data_and_finite_costs(bundle: Bundle) -> None:
    with open_session(bundle) as session:
        planner = session._pool.planner()
        engine = planner._iterations._engine  # type: ignore[attr-defined]
        found = rank_agreement(engine, bundle.golden(), PLANNER.graph)
        assert found == pytest.approx(1.0)
        assert rank_agreement(engine, {}, PLANNER.graph) is None
        broken = {n: v.copy() for n, v in golden_problem(PLANNER).items()}
        broken[f"{PLANNER.graph}__z_goal"][:] = np.nan
        assert np.isnan(rank_agreement(engine, broken, PLANNER.graph))


def test_spearman_shares_ranks() -> None:
    values = np.float32([1, 2, 3, 4])
    assert spearman(values, values**3) == pytest.approx(1.0)
    assert spearman(values, -values) == pytest.approx(-1.0)
    assert spearman(values, np.ones(4, np.float32)) == 0.0


def test_ties_share_their_mean_rank_by_hand() -> None:
    """Ranks 1.5, 1.5, 3.5, 3.5 against 1, 2, 3, 4: 4 / sqrt(4 * 5), in any order of the ties."""
    tied = np.float32([1, 1, 2, 2])
    for values in ([1, 2, 3, 4], [2, 1, 3, 4], [2, 1, 4, 3]):
        assert spearman(np.float32(values), tied) == pytest.approx(4 / np.sqrt(20), abs=1e-12)
        assert spearman(tied, np.float32(values)) == pytest.approx(4 / np.sqrt(20), abs=1e-12)
    assert spearman(np.float32([3, 4, 1, 2]), tied) == pytest.approx(-4 / np.sqrt(20), abs=1e-12)
    # Three of a kind, by hand: ranks 2, 2, 2, 4 against 1, 2, 4, 3 have 1 / sqrt(3 * 5) * 1.
    three = spearman(np.float32([5, 5, 5, 9]), np.float32([1, 2, 4, 3]))
    assert three == pytest.approx(1 / np.sqrt(15), abs=1e-12)


def test_the_control_ranks_without_ties_depend_on_how_the_sort_left_them() -> None:
    """What two arg-sorts answer for the same ties: 1.0 or 0.6, where 0.894 is right."""
    tied = np.float32([1, 1, 2, 2])

    def by_place(values: np.ndarray) -> float:
        places = [np.argsort(np.argsort(v, kind="stable")) for v in (values, tied)]
        return float(np.corrcoef(*places)[0, 1])

    assert by_place(np.float32([1, 2, 3, 4])) == pytest.approx(1.0)
    assert by_place(np.float32([2, 1, 4, 3])) == pytest.approx(0.6)
