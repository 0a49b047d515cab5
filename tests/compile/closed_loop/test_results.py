"""From rows to a summary, a file and a table."""

from __future__ import annotations

import json
from typing import Any

import pytest
from helpers.compile.eval_factory import PUSHING, trial

from jetsight.errors import UsageError
from jetsight.storage import strict_json
from jetsight_compile.closed_loop.report import report_lines
from jetsight_compile.closed_loop.results import (
    BUNDLE,
    FORMAT,
    FREE,
    VERSION,
    EvalResults,
    summarize,
)
from jetsight_compile.closed_loop.rollout import EpisodeResult
from jetsight_compile.closed_loop.runner import task_facts


def rows_of(arm: str, solved: list[int], of: int = 10, **changes: Any) -> list[EpisodeResult]:
    return [trial(i, arm, i in solved, **changes) for i in range(of)]


def results_of(rows: list[EpisodeResult], *, region: bool = False) -> EvalResults:
    summary = summarize(rows, seed=0, region=region, kinds=PUSHING.kinds)
    settings = {"task": task_facts(PUSHING, None)}
    return EvalResults(FORMAT, VERSION, settings, {}, {}, {}, None, summary, tuple(rows))


def test_arms_are_counted_by_kind_of_episode() -> None:
    rows = rows_of(BUNDLE, [0, 2, 3])
    arm = summarize(rows, seed=0, region=False, kinds=PUSHING.kinds).arms[BUNDLE]
    assert (arm.success.count, arm.success.of) == (3, 10)
    moves, rests = arm.by_kind.values()
    assert (moves.count, moves.of) == (2, 5)
    assert (rests.count, rests.of) == (1, 5)
    assert (arm.mean_off["agent_px"], arm.mean_success_tick, arm.plan_ms) == (10.0, 7.0, None)
    assert arm.violation is None


def test_the_bundle_is_paired_with_every_other_arm_whatever_their_order() -> None:
    rows = [*rows_of("no-op", [9]), *rows_of(BUNDLE, [0, 1, 2, 3])]
    (pair,) = summarize(rows, seed=0, region=False).pairs
    assert (pair.first, pair.second) == (BUNDLE, "no-op")
    assert (pair.comparison.only_first, pair.comparison.only_second) == (4, 1)
    assert pair.comparison.difference == pytest.approx(0.3)


def test_plans_latencies_and_reasons_add_up() -> None:
    rows = [
        trial(
            i,
            BUNDLE,
            False,
            plans=2,
            valid_plans=1,
            held_ticks=5,
            plan_ms=(1.0 + i, 9.0),
            no_plan_reasons={"all_invalid": 1},
        )
        for i in range(4)
    ]
    arm = summarize(rows, seed=0, region=False).arms[BUNDLE]
    assert (arm.plans, arm.valid_plans, arm.held_ticks) == (8, 4, 20)
    assert arm.no_plan_reasons == {"all_invalid": 4}
    assert arm.plan_ms is not None
    assert (arm.plan_ms.max, arm.plan_ms.p99 <= 9.0) == (9.0, True)


def keep_out_rows(inside: int) -> list[EpisodeResult]:
    free = [trial(i, FREE, True, inside_ticks=5 if i < 8 else 0) for i in range(10)]
    bound = [trial(i, BUNDLE, True, inside_ticks=2 if i < inside else 0) for i in range(10)]
    return [*bound, *free]


@pytest.mark.parametrize(("inside", "reduction", "ticks"), [(0, 1.0, 1.0), (2, 0.75, 0.9)])
def test_keep_out_compares_violations_with_and_without(
    inside: int, reduction: float, ticks: float
) -> None:
    summary = summarize(keep_out_rows(inside), seed=0, region=True)
    violation = summary.arms[FREE].violation
    assert violation is not None
    assert (violation.count, violation.of) == (8, 10)
    assert summary.keep_out is not None
    assert summary.keep_out.episodes.reduction == pytest.approx(reduction)
    assert summary.keep_out.ticks_reduction == pytest.approx(ticks)
    assert summary.keep_out.comparison.only_first == 8 - inside


def test_nothing_is_reduced_when_nothing_was_entered() -> None:
    rows = [trial(i, arm, True) for arm in (BUNDLE, FREE) for i in range(4)]
    found = results_of(rows, region=True)
    assert found.summary.keep_out is not None
    assert found.summary.keep_out.episodes.reduction is None
    assert any("nothing to reduce" in line for line in report_lines(found))


def test_the_file_is_strict_json_with_every_row() -> None:
    rows = [*rows_of(BUNDLE, [1]), *rows_of("no-op", [])]
    file = json.loads(strict_json.dump(results_of(rows)))
    assert (file["format"], file["version"]) == (FORMAT, VERSION)
    assert len(file["rows"]) == 20
    assert file["rows"][1]["success_tick"] == 7
    assert file["summary"]["keep_out"] is None
    assert file["summary"]["arms"][BUNDLE]["success"]["rate"] == 0.1


def test_the_table_says_what_the_summary_says() -> None:
    rows = keep_out_rows(2)
    rows = [
        trial(
            r.episode,
            r.arm,
            r.success,
            inside_ticks=r.inside_ticks,
            plans=4,
            valid_plans=3,
            no_plan_reasons={"infeasible": 1},
            plan_ms=(12.5,),
        )
        for r in rows
    ]
    text = "\n".join(report_lines(results_of(rows, region=True)))
    for part in ("100.0", "75.0 % fewer", "infeasible 10", "12.5", f"{BUNDLE} - {FREE}", "80.0"):
        assert part in text, part


def test_arms_of_different_episodes_are_refused() -> None:
    with pytest.raises(UsageError, match="cannot be paired"):
        summarize([*rows_of(BUNDLE, []), *rows_of("no-op", [], of=9)], seed=0, region=False)
