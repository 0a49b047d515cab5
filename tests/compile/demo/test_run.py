"""Both commands from a checkpoint to their reports, on a tiny model; and how they find things."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import pytest
import torch
from helpers.compile.tiny_model import save_checkpoint, square_episode, write_dataset

from jetsight import cli
from jetsight.bundle.bundle import Bundle
from jetsight.bundle.manifest import Gate
from jetsight.errors import CheckpointError, DataError
from jetsight_compile.bench import session
from jetsight_compile.demo import run as tours
from jetsight_compile.demo.run import gates_line, summary_lines, tour
from jetsight_compile.export.layers import Style
from jetsight_compile.pipeline import family as families
from jetsight_compile.pipeline import shipped
from jetsight_compile.pipeline.shipped import find_checkpoint, find_data
from jetsight_compile.validate import gates as gate
from jetsight_compile.validate.limits import IMAGINE_LIMITS
from jetsight_train.model.world_model import WorldModel

if TYPE_CHECKING:
    from conftest import ExportCache

PLACE = re.compile(r".+#(\d+):(\d+)")


@pytest.fixture(scope="module")
def checkpoint(exports: ExportCache, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("model") / "tiny", exports.model("conv"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    episodes = [square_episode(seed) for seed in range(6)]
    return write_dataset(tmp_path_factory.mktemp("data") / "squares", episodes)


@pytest.fixture(scope="module")
def shown(
    exports: ExportCache, checkpoint: Path, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of one demo, made with the exports the other tests share."""
    out = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        for name in families.EXPORTS:
            patch.setitem(families.EXPORTS, name, partial(exported, exports, name))
        # Random weights may not survive eight bits; what the gate says is for its own tests.
        patch.setattr(gate, "require", lambda gates: None)
        tour(out, checkpoint, data, frames=40, rate_hz=0, say=lambda line: None)
    return out


def exported(exports: ExportCache, name: str, model: WorldModel, style: Style) -> onnx.ModelProto:
    return exports.graph("conv", name, style)


def test_the_demo_leaves_two_reports_and_a_bundle_that_opens(shown: Path) -> None:
    assert {path.name for path in shown.iterdir()} == {
        "report.html",
        "report.json",
        "tiny.jetsight",
    }
    report = json.loads((shown / "report.json").read_text())
    manifest = Bundle.open(shown / "tiny.jetsight").manifest
    assert [family.name for family in manifest.families] == ["cpu-int8"]
    assert report["episodes"]["calibration"] == [0, 2, 4]
    assert not set(report["episodes"]["streamed"]) & set(report["episodes"]["library"])
    assert report["checkpoint_sha256"] == manifest.provenance.checkpoint_sha256
    names = {each["name"] for each in report["gates"]}
    assert names == {*gate.LIMITS, *IMAGINE_LIMITS} - {"imagine_feasible"}  # no hazards


def test_the_demo_plans_once_to_where_the_recording_led(shown: Path, data: Path) -> None:
    report = json.loads((shown / "report.json").read_text())
    plan = report["plan"]
    places = [PLACE.fullmatch(text.split(" (")[0]) for text in (plan["start"], plan["goal"])]
    start, goal = (tuple(map(int, place.groups())) for place in places if place)
    assert goal == (start[0], start[1] + report["model"]["horizon"] * plan["action_block"])
    assert start[0] in report["episodes"]["streamed"]
    assert all(near["episode"] != start[0] for near in plan["nearest"])
    assert plan["valid"]
    assert plan["costs"] == sorted(plan["costs"], reverse=True)
    page = (shown / "report.html").read_text()
    assert "<h2>Imagination</h2>" in page
    assert page.count("data:image/svg+xml;base64,") == 1
    (line,) = (line for line in summary_lines(report, shown) if line.startswith("plan: "))
    assert line.endswith(" % of the initial distance from the goal")
    none = {**report, "plan": {"valid": False, "reason": "infeasible"}}
    assert "plan: none, infeasible" in summary_lines(none, shown)


def test_the_summary_says_where_to_look(shown: Path) -> None:
    report = json.loads((shown / "report.json").read_text())
    lines = list(summary_lines(report, shown))
    assert lines[0].startswith("40 frames of squares episodes 1, 3")
    assert lines[-1] == f"look at {shown / 'report.html'}"
    report["planted_change"]["caught"] = False
    assert any("MISSED" in line for line in summary_lines(report, shown))


def test_gates_are_counted_beside_the_faults_they_found() -> None:
    sound = Gate("cpu-int8", "latent_cosine", 1.0, 0.995, "min", True, 0.9, True)
    blind = replace(sound, control_value=0.999, control_failed=False)
    failed = replace(sound, value=0.9, passed=False)
    assert gates_line([sound] * 3) == "3 of 3 gates passed, 3 of 3 planted faults detected"
    assert gates_line([sound, blind]) == "2 of 2 gates passed, 1 of 2 planted faults detected"
    assert gates_line([sound, failed]) == "1 of 2 gates passed, 2 of 2 planted faults detected"


def test_a_demo_may_be_repeated(
    shown: Path, checkpoint: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.open(shown / "tiny.jetsight")
    asked: list[Path] = []

    def compiled(*arguments: object) -> Bundle:
        asked.append(Path(str(arguments[2])))
        return bundle

    monkeypatch.setattr(tours, "compile_model", compiled)
    before = json.loads((shown / "report.json").read_text())
    again = tour(shown, checkpoint, data, frames=40, rate_hz=0, say=lambda line: None)
    assert asked == [shown / "tiny.jetsight"]
    assert again["skill_vs_persistence"] == before["skill_vs_persistence"]
    assert again["surprise"] == before["surprise"]


def test_the_benchmark_runs_and_says_what_it_could_not_measure(
    shown: Path, checkpoint: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_compiler(*_: object, **__: object) -> None:
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(torch, "compile", no_compiler)  # it takes half a minute
    bundle = Bundle.open(shown / "tiny.jetsight")
    monkeypatch.setattr(session, "compile_model", lambda *_: bundle)
    threads = torch.get_num_threads()
    try:
        found = session.bench_session(("shipped",), checkpoint, data, threads=1, quick=True)
    finally:
        torch.set_num_threads(threads)
    text = "\n".join(session.report_lines(found))
    assert "torch.compile: not measured, RuntimeError: No working C++ compiler found" in text
    assert "QUICK" in text
    assert "bars met" in text
    numbers = json.loads(json.dumps(found.as_dict()))
    assert numbers["threads"] == 1
    assert {"torch eager", "onnxruntime cpu-int8"} <= set(numbers["encode"]["tiny"]["contestants"])
    assert numbers["encode"]["tiny"]["contestants"]["torch eager"]["first_ms"] > 0
    assert all(bar["met"] in (True, False, None) for bar in numbers["bars"])


def test_data_is_found_here_or_beside_the_sources(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_data(tmp_path / "mine") == tmp_path / "mine"
    beside = find_data(None)  # the repository these tests run from
    assert beside.is_absolute()
    assert beside.parts[-2:] == ("calib_data", "pusht")
    (tmp_path / "calib_data").mkdir()
    (tmp_path / "calib_data" / "pusht").symlink_to(data)
    assert find_data(None) == Path("calib_data/pusht")


def test_what_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shipped, "__file__", str(tmp_path / "a" / "b" / "c" / "tour.py"))
    with pytest.raises(DataError, match="run the demo from a checkout"):
        find_data(None)
    monkeypatch.setattr(shipped.jetsight_train, "__file__", str(tmp_path / "x" / "__init__.py"))
    with pytest.raises(CheckpointError, match="expected the shipped pusht-nano"):
        find_checkpoint(None)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["demo", "--checkpoint", "nowhere"], 3),
        (["demo", "--data", "nowhere"], 4),
        (["demo", "--frames", "0"], 2),
        (["bench", "--threads", "0"], 2),
        (["bench", "--checkpoint", "nowhere", "--data", "nowhere"], 3),
    ],
)
def test_bad_calls_end_in_one_line(
    arguments: list[str],
    code: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == code
    errors = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(errors) == 1
    assert list(tmp_path.iterdir()) == []
