"""The second task, as its page says: recorded, trained, compiled and solved on a CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jetsight import cli
from jetsight.simulators.differential_drive import ENV_ID

pytest.importorskip("gymnasium")


def call(*command: object) -> None:
    assert (cli.main([str(word) for word in command]) or 0) == 0, command


@pytest.mark.slow
def test_the_differential_drive_is_solved_40_points_above_chance(tmp_path: Path) -> None:
    """Ten minutes of one core; the page's commands, with its numbers."""
    data, calib, run = tmp_path / "drive", tmp_path / "calib", tmp_path / "run"
    call("collect", ENV_ID, "--out", data, "--episodes", 160, "--steps", 120, "--seed", 1)
    call("collect", ENV_ID, "--out", calib, "--episodes", 16, "--steps", 120, "--seed", 2)
    call("train", "diffdrive", "--data", data, "--out", run, "--threads", 1)
    bundle, results = tmp_path / "diffdrive.jetsight", tmp_path / "results.json"
    options = ("--calib", calib, "--precision", "fp32", "--planner", "icem:128x5")
    call("compile", run / "checkpoint", *options, "--out", bundle)
    call("eval", bundle, "--env", ENV_ID, "--iterations", 3, "--out", results)
    summary = json.loads(results.read_bytes())["summary"]
    rates = {name: arm["success"]["rate"] for name, arm in summary["arms"].items()}
    assert rates["bundle"] >= max(rates["no-op"], rates["random"]) + 0.40, rates
    assert rates["replay"] == 1.0
    for pair in summary["pairs"]:
        if pair["second"] in ("no-op", "random"):
            assert pair["comparison"]["low"] > 0.40, pair
