"""The whole command on a bundle that plans: arms, processes, files, refusals."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from helpers.compile.planning_bundle import BUDGET, PLANNER, SIDE, Compiled, in_torch, write_planner
from helpers.compile.tiny_model import write_dataset
from helpers.runtime import live_planner
from helpers.runtime.bundle_factory import pusht_action
from helpers.simulators.environments import odd
from helpers.train.gym_factory import FADE, needs_pusht

from jetsight import cli
from jetsight.bundle.bundle import Bundle, write_bundle
from jetsight_compile.closed_loop.config import EvalConfig
from jetsight_compile.closed_loop.lab import open_lab
from jetsight_compile.closed_loop.tasks.region import Region

pytestmark = needs_pusht
Capture = pytest.CaptureFixture[str]


def call(command: Sequence[str], capfd: Capture) -> tuple[Any, str, str]:
    capfd.readouterr()
    code = cli.main(list(command))
    return (code or 0, *capfd.readouterr())


def rows_of(out: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(out)["rows"]
    return [{**row, "plan_ms": None} for row in rows]


def test_every_arm_on_the_same_episodes(
    compiled: Compiled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    in_torch(monkeypatch, compiled)
    command = ["eval", str(compiled.bundle), "--seed", "3", "--episodes", "1", "--json"]
    command += ["--against", str(compiled.checkpoint), "--out", str(tmp_path / "results.json")]
    command += ["--replan-every", "4"]
    code, out, err = call(command, capfd)
    assert code == 0, err
    found = json.loads(out)
    assert found == json.loads((tmp_path / "results.json").read_bytes())
    rows = {row["arm"]: row for row in found["rows"]}
    assert list(rows) == ["bundle", "torch eager", "no-op", "random", "replay"]
    assert len({row["start_sha256"] for row in rows.values()}) == 1
    assert rows["bundle"]["valid_plans"] == rows["bundle"]["plans"] == BUDGET // 4
    assert rows["replay"]["success"]
    twin = {**rows["torch eager"], "arm": "bundle", "plan_ms": rows["bundle"]["plan_ms"]}
    assert twin == rows["bundle"], "the same engines and the same draws must do the same"
    assert found["against"]["same_checkpoint"] is True
    assert found["bundle"]["iterations"] == 3


def test_keep_out_compares_with_and_without_the_constraint_and_makes_a_film(
    compiled: Compiled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    in_torch(monkeypatch, compiled)
    frames = np.random.default_rng(0).integers(0, 255, (4, SIDE, SIDE, 3), dtype=np.uint8)
    data = write_dataset(tmp_path / "data", [(frames, np.zeros((4, 2), np.float32))])
    command = ["eval", str(compiled.bundle), "--seed", "3", "--episodes", "1", "--no-baselines"]
    command += ["--iterations", "1", "--replan-every", "4", "--data", str(data)]
    command += ["--keep-out", "--region", "256,256,50", "--video", str(tmp_path / "film.mp4")]
    monkeypatch.setattr("jetsight_compile.closed_loop.video.Studio._library", lambda self: None)
    code, out, err = call(command, capfd)
    assert code == 0, err
    assert "bundle - bundle unconstrained" in out
    assert "violations" in out
    with av.open(str(tmp_path / "film.mp4")) as film:
        assert sum(1 for _ in film.decode(video=0)) > BUDGET


def refused(command: Sequence[str], capfd: Capture) -> tuple[Any, str]:
    code, out, err = call(command, capfd)
    assert out == ""
    (line,) = err.splitlines()
    return code, line


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--episodes", "0"], 2, "--episodes is 0"),
        (["--episodes", "many"], 2, "'many' is not a valid integer"),
        (["--seed", "-1"], 2, "--seed is -1"),
        (["--env", "gym_pusht/Nowhere-v0"], 2, "cannot make environment 'gym_pusht/Nowhere-v0'"),
        (["--env", FADE], 2, "runs at 5 steps per second"),
        (["--env", odd("Odd")], 2, "does not say what success is"),
        (["--env", odd("Choices")], 2, "only continuous numbers can be planned"),
        (["--env", odd("TwoViews")], 2, "several observations are pictures"),
        (["--env", odd("Odd"), "--camera", "front"], 2, "no one observation 'front'"),
        (["--env", odd("Matrix")], 2, "takes 6 numbers as action"),
        (["--env", odd("Rover")], 2, "takes the actions ['v', 'w'], but the model"),
        (["--env", odd("OneStep")], 2, "ended 3 episodes of 3 after one step"),
        (["--env", odd("BlackRender")], 2, "black or codes"),
        (["--planner", "imagine_cem_9x9"], 2, f"choose one of {PLANNER.graph}"),
        (["--replan-every", "5"], 2, "has 4 ticks"),
        (["--budget-ms", "5", "--iterations", "2"], 2, "exclude each other"),
        (["--region", "1,2,3"], 2, "add --keep-out"),
        (["--keep-out", "--region", "here"], 2, "'here' is not x,y,radius"),
        (["--keep-out"], 2, "give the keep-out region with --region"),
        (["--against", "nowhere"], 3, "nowhere"),
        (["--video", "."], 8, "is a folder"),
        (["--out", "."], 8, "is a folder"),
        (["--out", "/dev/null/results.json"], 8, "cannot write into /dev/null"),
    ],
)
def test_bad_input_ends_in_one_line(
    compiled: Compiled,
    options: list[str],
    code: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: Capture,
) -> None:
    in_torch(monkeypatch, compiled)
    monkeypatch.chdir(tmp_path)
    found, line = refused(["eval", str(compiled.bundle), *options], capfd)
    assert found == code, line
    assert says in line
    assert not list(tmp_path.iterdir())


def test_a_bundle_without_planners_says_how_to_get_one(
    compiled: Compiled, tmp_path: Path, capfd: Capture
) -> None:
    whole = Bundle.open(compiled.bundle)
    family = whole.manifest.families[0]
    precision = dict.fromkeys(("encode", "forecast"), "fp32")
    manifest = replace(
        whole.manifest, planners=(), files={}, families=(replace(family, precision=precision),)
    )
    files = {path: (compiled.bundle / path).read_bytes() for path in whole.manifest.files}
    files = {path: data for path, data in files.items() if PLANNER.graph not in path}
    write_bundle(tmp_path / "plain.jetsight", manifest, files)
    code, line = refused(["eval", str(tmp_path / "plain.jetsight")], capfd)
    assert code == 3
    assert "has no planner" in line
    assert "--planner" in line


def test_the_region_comes_from_the_checkpoint(
    compiled: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_torch(monkeypatch, compiled)
    settings = EvalConfig(
        str(compiled.bundle), "gym_pusht/PushT-v0", 1, 3, str(compiled.checkpoint), keep_out=True
    )
    with open_lab(settings) as lab:
        assert lab.artefacts.rules.region == Region(256.0, 256.0, 60.0)


def test_a_bundle_that_is_none(tmp_path: Path, capfd: Capture) -> None:
    code, line = refused(["eval", str(tmp_path / "none.jetsight")], capfd)
    assert code == 3, line


def test_processes_share_the_episodes_and_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    """On a bundle whose graphs run, so that a process needs nothing from this one."""
    bundle = live_planner.make_planning_bundle(tmp_path / "live.jetsight", action=pusht_action())
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    command = ["eval", str(bundle.path), "--episodes", "2", "--no-baselines", "--json"]
    command += ["--iterations", "1", "--seed", "4", "--backend", "onnxruntime"]
    alone, shared = call(command, capfd), call([*command, "--workers", "2"], capfd)
    assert alone[0] == shared[0] == 0, alone[2] + shared[2]
    assert rows_of(alone[1]) == rows_of(shared[1])
    assert [row["episode"] for row in rows_of(alone[1])] == [0, 1]
    assert all(row["valid_plans"] > 0 for row in rows_of(alone[1]))


@pytest.mark.parametrize("module", ["scipy.stats", "gymnasium"])
def test_a_missing_package_is_named_with_its_extra(
    compiled: Compiled, module: str, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    code, line = refused(["eval", str(compiled.bundle)], capfd)
    assert code == 5, line
    assert repr(module.partition(".")[0]) in line
    assert "pip install 'jetsight[sim]'" in line


@pytest.mark.slow
def test_a_compiled_bundle_does_what_pytorch_does(tmp_path: Path, capfd: Capture) -> None:
    compiled = write_planner(tmp_path, real=True)
    command = ["eval", str(compiled.bundle), "--seed", "3", "--episodes", "3", "--json"]
    command += ["--against", str(compiled.checkpoint)]
    alone = call(command, capfd)
    shared = call([*command, "--workers", "2"], capfd)
    assert alone[0] == shared[0] == 0, alone[2] + shared[2]
    assert rows_of(alone[1]) == rows_of(shared[1])
    for row in rows_of(alone[1]):
        if row["arm"] == "bundle":
            twin = next(
                r
                for r in rows_of(alone[1])
                if r["arm"] == "torch eager" and r["episode"] == row["episode"]
            )
            assert row["off"]["agent_px"] == pytest.approx(twin["off"]["agent_px"], rel=1e-2)
