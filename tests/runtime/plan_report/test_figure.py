"""The picture of a plan: everything it must say, whatever there is to say."""

from __future__ import annotations

import dataclasses
import io

import av
import numpy as np
import pytest
from helpers.runtime.plan_reports import ACTION, COSTS, RNG, report
from helpers.runtime.planner_factory import KINDS

from jetsight.plan_report import figure
from jetsight.plan_report.figure import FigureImages
from jetsight.plan_report.nearest_frames import Neighbour
from jetsight.plan_report.report import PlanReport
from jetsight.planning.goal import Goal
from jetsight.planning.limits import Limits
from jetsight.planning.plan import Plan, PlanReason

IMAGE = RNG.integers(0, 255, (8, 8, 3), np.uint8)


def words(found: PlanReport, shown: FigureImages | None = None) -> str:
    return figure.draw(found, shown or FigureImages(IMAGE, IMAGE), "svg").decode()


def test_it_says_what_was_planned_and_how_it_went() -> None:
    text = words(report())
    for part in (
        "nano: imagine_cem_32x2 on openvino cpu-int8, 3 iterations in 12.5 ms",
        "from now.png (a scene at rest: one image repeated",
        "to goal.png",
        "feasible (32)",
        "the plan: 1.",
        "feasible by cost",
        "spread (% of start)",
        "seconds from now",
        ">px<",
        ">x<",
        ">y<",
        "out of bounds",
        "planned",
        "name a dataset with --library",
        ">goal<",
    ):
        assert part in text, part
    assert "no plan" not in text


def test_candidates_are_told_apart() -> None:
    costs, violations = COSTS.copy(), np.zeros(32, np.float32)
    costs[[3, 7]] = violations[[3, 7]] = 3e38
    violations[[0, 1, 5, 9]] = 0.5
    plan = {"candidate_costs": costs, "candidate_violations": violations}
    for part in ("feasible (26)", "infeasible (4)", "invalid (2)", "elites (6)"):
        assert part in words(report(plan))
    assert "feasible (30)" in words(report(plan, request={"constrain": False}))
    worst = {"violation": 2.0, "valid": False, "actions": None, "reason": PlanReason.INFEASIBLE}
    text = words(report({**worst, "candidate_violations": np.full(32, 2.0)}))
    for part in ("infeasible (32)", "least violation", "no plan: infeasible", "no path"):
        assert part in text
    assert "elites" not in words(report(plan, facts=KINDS["mppi"]))


def test_a_library_fills_the_path() -> None:
    near = [Neighbour(3, 5, 0.25), Neighbour(4, 6, 0.5)]
    found = report(neighbours=near, library="some/ds")
    text = words(found, FigureImages(IMAGE, IMAGE, [IMAGE, IMAGE]))
    for part in ("imagined, +0.5 s", "imagined, +1 s", "frame 0.25 off", "some/ds nearest"):
        assert part in text
    assert "--library" not in text


def test_a_goal_of_targets_is_written_out() -> None:
    text = words(
        report(z_goal=None, request={"goal": Goal.probe(block_x=300.0)}), FigureImages(IMAGE)
    )
    assert "block_x = 300" in text
    assert "to goal 4" not in text


def test_nothing_but_a_reason_is_a_picture_too() -> None:
    plan = Plan(reason=PlanReason.DEADLINE)
    text = words(report(plan=dataclasses.asdict(plan)))
    assert text.count("no iteration was run") == 2
    assert "no plan: deadline" in text


def test_numbers_of_different_units_share_an_axis_by_their_bounds() -> None:
    action = dataclasses.replace(ACTION, units=("rad", "mm"), low=(-8.0, 0.0), neutral=(0.0, 0.0))
    text = words(report(action=action, request={"limits": Limits(low=[-8.0, 0.0])}))
    assert "share of bounds" in text
    assert "y (0 to 8 mm)" in text


@pytest.mark.parametrize("costs", [[1e30, 1e20, 1e-20], [5, 5, 5], [0, 0, 0], [3e38, 3e38, 2]])
def test_any_costs_can_be_drawn(costs: list[float]) -> None:
    values = np.resize(np.array(costs, np.float32), 32)
    plan = {"costs": np.array(costs, np.float32), "candidate_costs": values, "cost": costs[-1]}
    assert "The search" in words(report(plan))


def test_paths_are_no_formulas() -> None:
    assert "$dir$/a_b.png" in words(report(frame_source="$dir$/a_b.png", goal_source="$x^2.png"))


def test_equal_plans_give_equal_pictures() -> None:
    found = report()
    first, again = (figure.draw(found, FigureImages(IMAGE, IMAGE)) for _ in range(2))
    assert first == again
    start = dataclasses.replace(found.start, actions=np.ones((15, 2), np.float32))
    other = dataclasses.replace(found, start=start)
    assert first != figure.draw(other, FigureImages(IMAGE, IMAGE))


def test_no_file_says_when_it_was_made() -> None:
    for kind in ("png", "svg", "pdf"):
        data = figure.draw(report(), FigureImages(IMAGE, IMAGE), kind)
        assert not any(word in data for word in (b"CreationDate", b"dc:date", b"Software"))


def test_a_png_is_a_picture_with_the_frame_in_it() -> None:
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    counts = []
    for image in (red, IMAGE):
        data = figure.draw(report(), FigureImages(image, IMAGE))
        with av.open(io.BytesIO(data)) as file:
            pixels = next(file.decode(video=0)).to_ndarray(format="rgb24")
        assert pixels.shape == (1320, 1650, 3)
        counts.append(int((pixels == (255, 0, 0)).all(axis=-1).sum()))
    assert counts[0] > 200 * 200
    assert counts[1] < 1000
