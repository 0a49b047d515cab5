"""Which planner a budget gets, and times that are kept but never believed blindly."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from helpers.runtime.planner_factory import HERE, Rig, latent

from jetsight.bundle.planner_spec import PlannerSpec
from jetsight.errors import UsageError
from jetsight.planning.time_budget import (
    GraphTime,
    MeasuredOn,
    TimesFile,
    choose,
    measured_on,
    percentiles,
)
from jetsight.testing import tiny_planner

GRAPHS = {"imagine_cem_32x2": "ab" * 32}
ON = MeasuredOn(
    graphs=GRAPHS,
    backend="onnxruntime",
    backend_version="1.2",
    threads=2,
    processor="a processor",
    cores=4,
    gpu=None,
    driver=None,
    power_mode=None,
)
TIMES = (GraphTime("imagine_cem_32x2", 1.0, 2.0, 10),)


def planner(samples: int, horizon: int, iterations: int = 10) -> PlannerSpec:
    return tiny_planner(samples=samples, horizon=horizon, iterations=iterations)


PLANNERS = [planner(64, 5), planner(256, 5), planner(256, 2, 30), planner(32, 1, 2)]
MEASURED = [
    GraphTime(p.graph, ms * 0.9, ms, 10)
    for p, ms in zip(PLANNERS, (10.0, 30.0, 8.0, 1.0), strict=True)
]


@pytest.mark.parametrize(
    ("budget_ms", "graph", "iterations", "fits"),
    [
        (1000, "imagine_cem_256x5", 10, True),  # all it was meant for
        (200, "imagine_cem_256x5", 6, True),  # 6 * 256 candidates are more than 10 * 64
        (101, "imagine_cem_256x5", 3, True),
        (99, "imagine_cem_64x5", 8, True),  # the larger one has two iterations left
        (32, "imagine_cem_256x2", 3, True),  # nothing looks 5 blocks ahead in time
        (20, "imagine_cem_32x1", 2, True),  # all it was meant for, if only two
        (1.2, "imagine_cem_32x1", 1, True),
        (0.9, "imagine_cem_32x1", 1, False),
        (0, "imagine_cem_32x1", 1, False),
    ],
)
def test_rule(budget_ms: float, graph: str, iterations: int, fits: bool) -> None:
    choice = choose(MEASURED, PLANNERS, budget_ms)
    assert (choice.planner, choice.iterations, choice.fits) == (graph, iterations, fits)
    time = next(time for time in MEASURED if time.graph == graph)
    assert choice.expected_ms == iterations * time.p99_ms
    assert not fits or choice.expected_ms <= 0.9 * budget_ms


def test_percentiles_are_of_the_runs() -> None:
    found = percentiles("g", [n * 1_000_000 for n in range(1, 11)])
    assert found == GraphTime("g", 6.0, 10.0, 10)
    assert percentiles("g", [2_000_000]) == GraphTime("g", 2.0, 2.0, 1)
    with pytest.raises(UsageError, match="times of g"):
        GraphTime("g", 3.0, 2.0, 1)


def test_times_are_found_again_under_the_same_circumstances(tmp_path: Path) -> None:
    folder = tmp_path / "times"
    assert TimesFile(ON, folder).read() is None
    TimesFile(ON, folder).write(TIMES)
    assert TimesFile(ON, folder).read() == TIMES
    assert folder.stat().st_mode & 0o777 == 0o700
    assert TimesFile(ON, folder).path().stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "change",
    [
        {"graphs": {"imagine_cem_32x2": "cd" * 32}},
        {"backend": "openvino"},
        {"backend_version": "1.3"},
        {"threads": 1},
        {"processor": "another"},
        {"cores": 2},
        {"gpu": "Orin"},
        {"driver": "580"},
        {"power_mode": "15W"},
    ],
)
def test_times_of_other_circumstances_are_not(tmp_path: Path, change: dict[str, Any]) -> None:
    TimesFile(ON, tmp_path / "t").write(TIMES)
    other = TimesFile(dataclasses.replace(ON, **change), tmp_path / "t")
    assert other.read() is None
    os.rename(TimesFile(ON, tmp_path / "t").path(), other.path())  # under a name that is not its
    assert other.read() is None


def _damage(path: Path, how: str) -> None:
    good = path.read_bytes()
    changed = json.loads(good)
    if how == "times":
        changed["times"] = []
    elif how == "nan":
        changed["times"][0]["p50_ms"] = "fast"
    elif how == "negative":
        changed["times"][0]["p50_ms"] = -1
    elif how == "unknown":
        changed["evil"] = 1
    path.write_bytes(
        {"cut": good[:40], "empty": b"", "binary": b"\x80\x04."}.get(
            how, json.dumps(changed).encode()
        )
    )


@pytest.mark.parametrize(
    "how", ["cut", "empty", "binary", "times", "nan", "negative", "unknown", "link", "folder"]
)
def test_a_file_that_is_damaged_or_foreign_is_not_believed(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = TimesFile(ON, tmp_path / "t")
    file.write(TIMES)
    if how == "link":
        os.rename(file.path(), tmp_path / "elsewhere")
        file.path().symlink_to(tmp_path / "elsewhere")
    elif how == "folder":
        file.path().parent.chmod(0o777)
    else:
        _damage(file.path(), how)
    with caplog.at_level(logging.WARNING, "jetsight"):
        assert file.read() is None
    assert "measured again" in caplog.text


def test_times_that_cannot_be_kept_are_no_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    file = TimesFile(ON, tmp_path / "file" / "times")
    with caplog.at_level(logging.WARNING, "jetsight"):
        file.write(TIMES)
        assert file.read() is None
    assert "could not be kept" in caplog.text


def test_this_machine_is_described() -> None:
    here = measured_on(GRAPHS, "onnxruntime", "1.2", None)
    assert here.cores >= 1
    assert here.key == measured_on(GRAPHS, "onnxruntime", "1.2", None).key
    assert here.key != measured_on(GRAPHS, "onnxruntime", "1.2", 1).key


def test_a_deadline_without_a_planner_takes_the_one_that_makes_most_of_it() -> None:
    fast, slow = planner(32, 2), planner(256, 2)
    script = {slow.graph: {"latency_ns": 20_000_000}, fast.graph: {"latency_ns": 1_000_000}}
    rig = Rig(slow, fast, script=script)
    goal = latent(HERE + 10)
    for deadline_ms, expected in ((1000, slow), (30, fast), (3, fast)):
        rig.watch([])
        plan = rig.session._pool.planner(None, deadline_ms)
        assert plan.facts == expected
    assert rig.session.tune(30).iterations == 10
    assert rig.session.imagine(goal, 3, planner=slow.graph).planner == slow.graph
    assert rig.session.imagine(goal).planner == slow.graph  # the first one, without a deadline


def test_a_single_planner_is_not_measured_to_be_chosen() -> None:
    rig = Rig()
    rig.session.imagine(latent(HERE), 50, iterations=1)
    assert rig.runs == 3  # two to warm up, one for the plan
