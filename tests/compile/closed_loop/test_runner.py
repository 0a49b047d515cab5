"""Running many episodes: order, selection, processes, pictures."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from helpers.compile.eval_factory import (
    GRAPH,
    PUSHING,
    SIDE,
    fake_session,
    pusht,
    short_rules,
    trial,
)
from helpers.runtime.imagine_factory import make_recording
from helpers.train.gym_factory import needs_pusht

from jetsight.datasets.lerobot import LeRobotDataset
from jetsight.errors import DataError, UsageError
from jetsight.plan_report.nearest_frames import FrameIndex
from jetsight.simulators.spec import Observation
from jetsight_compile.closed_loop.agents import Deployed, baselines
from jetsight_compile.closed_loop.config import EvalConfig, PlanOptions
from jetsight_compile.closed_loop.lab import Lab
from jetsight_compile.closed_loop.results import BUNDLE
from jetsight_compile.closed_loop.rollout import EpisodeTrace
from jetsight_compile.closed_loop.runner import _Here, run_all
from jetsight_compile.closed_loop.tasks.criteria import FormulaTask
from jetsight_compile.closed_loop.tasks.formula import Formula
from jetsight_compile.closed_loop.tasks.region import Region, RegionFrame
from jetsight_compile.closed_loop.video import SIZE, Screen, chosen, encode, imagined_frames, views

SETTINGS = EvalConfig("b.jetsight", "gym_pusht/PushT-v0", episodes=4, seed=3)


def film_of(number: int, arm: str = BUNDLE, ticks: int = 3) -> EpisodeTrace:
    frames = np.full((ticks + 1, SIDE, SIDE, 3), 200, np.uint8)
    goal = np.array([100.0, 100.0, 300.0, 300.0, 0.1], np.float32)
    states = [goal + np.float32([90 - 40 * t, 0, 5, 0, 0.1]) for t in range(ticks + 1)]
    seen = [Observation(frames[0], state) for state in states]
    judged = tuple(PUSHING.judge(each, Observation(frames[0], goal)) for each in seen)
    futures = {0: np.float32([[0.0], [9.0]])}
    row = trial(number, arm, True, ticks=ticks, plans=2, inside_ticks=1)
    return EpisodeTrace(row, frames, frames[0], judged, futures, {0: 12.5})


class Scripted:
    """Has films only of the numbers in `known`; records the submitted numbers."""

    def __init__(self, *known: int) -> None:
        self.known, self.asked = known, []  # type: tuple[int, ...], list[int]

    def submit(self, number: int) -> Callable[[], list[EpisodeTrace]]:
        self.asked.append(number)
        return lambda: [film_of(number)] if number in self.known else []


def test_episodes_come_in_the_order_of_their_numbers() -> None:
    reported: list[int] = []
    runner = Scripted(*range(9))
    films = run_all(runner, SETTINGS, lambda rows: reported.append(rows[0].episode))
    assert [arms[0].trial.episode for arms in films] == reported == runner.asked == [0, 1, 2, 3]
    assert all(len(arms[0].frames_u8) == 0 for arms in films), "pictures without a use"


def test_episodes_of_no_interest_are_replaced_by_later_ones() -> None:
    settings = replace(SETTINGS, keep_out=True, films=1)
    films = run_all(Scripted(1, 2, 5, 7, 8), settings, lambda rows: None)
    assert [arms[0].trial.episode for arms in films] == [1, 2, 5, 7]
    assert [len(arms[0].frames_u8) > 0 for arms in films] == [True, False, False, False]


def test_too_few_episodes_of_interest_is_an_error_that_says_so() -> None:
    settings = replace(SETTINGS, keep_out=True)
    with pytest.raises(DataError, match="only 2 of 80 episodes have the region in their way"):
        run_all(Scripted(1, 70), settings, lambda rows: None)


@needs_pusht
def test_arms_are_paired_and_repeat_exactly() -> None:
    rules, settings = short_rules(), replace(SETTINGS, episodes=2)
    rows = []
    for _ in range(2):
        with pusht() as environment:
            arms = baselines(environment.action_low, environment.action_high, 3)
            agent = Deployed(fake_session(), PlanOptions(GRAPH, 2, seed=3))
            lab = Lab(environment, PUSHING, rules, {BUNDLE: agent, **arms})
            films = run_all(_Here(lab), settings, lambda rows: None)
        rows.append([replace(film.trial, plan_ms=()) for arms in films for film in arms])
    assert rows[0] == rows[1]
    for number in range(2):
        starts = {row.start_sha256 for row in rows[0] if row.episode == number}
        assert len(starts) == 1
    assert {row.arm for row in rows[0]} == {BUNDLE, "no-op", "random", "replay"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"episodes": 0}, "--episodes is 0"),
        ({"workers": 0}, "--workers is 0"),
        ({"use": PlanOptions(iterations=0)}, "--iterations is 0"),
        ({"use": PlanOptions(replan_every=0)}, "--replan-every is 0"),
        ({"use": PlanOptions(budget_ms=0.0)}, "--budget-ms is 0"),
        ({"use": PlanOptions(budget_ms=9.0, iterations=3)}, "exclude each other"),
        ({"region": Region(1, 2, 3)}, "add --keep-out"),
    ],
)
def test_settings_that_make_no_sense(changes: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        replace(SETTINGS, **changes)


def imagined() -> dict[int, list[np.ndarray]]:
    """One plan at the first tick that leads from a dark frame to a light one."""
    return {0: [np.full((SIDE, SIDE, 3), level, np.uint8) for level in (30, 230)]}


def test_imagined_latents_are_shown_by_the_nearest_recorded_frames(tmp_path: Path) -> None:
    data = LeRobotDataset.open(make_recording(tmp_path / "ds"))
    library = FrameIndex(np.float32([[9], [0], [5]]), [(1, 5), (0, 3), (2, 0)], np.ones(1))
    found = imagined_frames(film_of(0), library, data)
    assert list(found) == [0]
    expected = [list(data.frames(episode))[tick] for episode, tick in ((0, 3), (1, 5))]
    assert all(map(np.array_equal, found[0], expected))
    assert not np.array_equal(*expected)


def test_a_film_shows_what_was_imagined_and_stays_at_its_end() -> None:
    seen = list(views(film_of(0), imagined(), 5, 10))
    assert len(seen) == 4 - 1 + 15
    assert [tick for tick, _ in seen[0].imagined] == [5, 10]
    assert [int(picture[0, 0, 0]) for _, picture in seen[0].imagined] == [30, 230]
    assert (seen[0].reached, seen[-1].reached) == (False, True)
    assert seen[2].cost == 12.5
    assert not any(view.imagined for view in views(film_of(0), {}, 5, 10))


def test_a_film_shows_the_bundle_and_else_the_first_arm() -> None:
    arms = [film_of(0, "no-op"), film_of(0, BUNDLE)]
    assert [film.trial.arm for film in chosen(arms)] == [BUNDLE]
    assert [film.trial.arm for film in chosen(arms[:1])] == ["no-op"]


def test_a_picture_has_camera_goal_future_and_region() -> None:
    (view, *_) = views(film_of(0), imagined(), 5, 10)
    plain = Screen("tiny", PUSHING).draw(view)
    marked = Screen("tiny", PUSHING, Region(256, 256, 100)).draw(view)
    assert plain.shape == (SIZE[1], SIZE[0], 3)
    assert plain[300, 200].tolist() == plain[300, 600].tolist() == [200, 200, 200]
    assert plain[600, 60].tolist() == [30, 30, 30]
    assert not np.array_equal(plain, marked)


def test_a_picture_of_another_task_has_its_measures_and_its_region() -> None:
    """x to the right and y up, as a robot has them; a task without a picture has no disc."""
    formula = Formula.parse("hypot(x - goal_x, y - goal_y) < 0.1")
    task = FormulaTask(formula, ("x", "y"), "it", units=("m", "m"))
    judged = task.judge(*(Observation(film_of(0).goal_u8, np.float32([n, 1])) for n in (1, 2)))
    (first, *_) = views(film_of(0), {}, 5, 10)
    view = replace(first, judgement=judged)
    nearer = replace(view, judgement=replace(judged, off={"x_m": 0.2, "y_m": None}))
    region = Region(0.5, 0.5, 0.3)
    plain = Screen("tiny", task).draw(view)
    assert not np.array_equal(plain, Screen("tiny", task).draw(nearer)), "measures are shown"
    task.region = RegionFrame(("x", "y"), (0, 1))
    np.testing.assert_array_equal(plain, Screen("tiny", task, region).draw(view))
    task.region = replace(task.region, to_picture=lambda at: np.array([0.5, -0.5]) * at + (0, 1))
    rows, columns, _ = np.nonzero(Screen("tiny", task, region).draw(view) != plain)
    assert (rows.min(), rows.max()) == pytest.approx((88 + 0.6 * 360, 88 + 0.9 * 360), abs=3)
    assert columns.min() == pytest.approx(24 + 0.1 * 360, abs=3)


def test_a_film_is_a_video_of_its_pictures() -> None:
    screen = Screen("tiny", PUSHING)
    pictures = [screen.draw(view) for view in views(film_of(0), {}, 5, 2)]
    with av.open(io.BytesIO(encode(iter(pictures), 2))) as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    assert len(frames) == len(pictures)
    assert np.abs(frames[0].astype(int) - pictures[0]).mean() < 3
