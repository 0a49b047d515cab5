"""The demo from start to finish: find the model and the data, compile, stream, write reports."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from jetsight.backends.registry import open_backend
from jetsight.bundle.manifest import Gate
from jetsight.bundle.runtime_spec import StreamSpec
from jetsight.cameras.source import StreamRequest
from jetsight.cli.run import StatusLine
from jetsight.clock import MonotonicClock
from jetsight.datasets.dataset import FeatureMap
from jetsight.datasets.open import open_for
from jetsight.errors import StorageError
from jetsight_compile.demo import page
from jetsight_compile.demo.plan import imagine_once
from jetsight_compile.demo.report import report_facts, write_reports
from jetsight_compile.demo.scenario import check_frames
from jetsight_compile.demo.stream import stream_and_judge
from jetsight_compile.pipeline.shipped import FAMILY, compile_model, find_checkpoint, find_data
from jetsight_train.checkpoint import load as load_checkpoint
from jetsight_train.data.windows import check_metadata


def tour(
    out: Path,
    checkpoint: Path | None = None,
    data: Path | None = None,
    *,
    backend: str | None = None,
    frames: int = 270,
    rate_hz: float | None = None,
    features: FeatureMap | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Compile, stream, judge, and write `report.json` and `report.html` into `out`.

    Args:
        out: folder for both reports and the bundle; those of an earlier demo are replaced.
        checkpoint: None for the shipped model.
        data: None for `calib_data/pusht`.
        backend: None for the preferred one.
        frames: to stream.
        rate_hz: None for the camera rate of the model.
        features: which features of `data` are actions, states and frames.
        say: called with one line when a stage begins.

    Returns:
        The content of `report.json`.

    Raises:
        CheckpointError, DataError, UsageError: an input is missing, unusable or too small.
        MissingDependency: a package that the demo needs later is not installed.
        StorageError: `out` cannot be written.
        GateError: the quantized graphs do not do what the float model does.
    """
    checkpoint, folder = find_checkpoint(checkpoint), find_data(data)
    check_request(out, checkpoint, folder, backend, frames, features=features)
    name = (checkpoint if checkpoint.is_dir() else checkpoint.parent).name
    seconds: dict[str, float] = {}
    say(f"compile {name} to {FAMILY}, calibrated on {folder}")
    with _timed(seconds, "compile"):
        target = out / f"{name}.jetsight"
        bundle = compile_model(
            checkpoint, folder, target, lambda stage: say(f"  {stage}"), features
        )
    say(f"  {gates_line(bundle.manifest.gates)}")
    say(f"stream {frames} held-out frames at camera rate, with one planted change of scene")
    spec = StreamSpec.from_manifest(bundle.manifest)
    dataset = open_for(folder, StreamRequest.of(spec).recording_spec, features)
    with _timed(seconds, "stream and judge"), closing(StatusLine(sys.stderr)) as status:
        shown = stream_and_judge(bundle, dataset, frames, backend, rate_hz, status.show)
    say("plan once, to a frame that the recording reached")
    with _timed(seconds, "imagine"):
        imagined = imagine_once(bundle, dataset, shown, backend, features)
    report = report_facts(shown, seconds, imagined)
    say(f"write {out / 'report.html'}")
    write_reports(shown, report, out, imagined)
    return report


def check_request(
    out: Path,
    checkpoint: Path,
    data: Path,
    backend: str | None,
    frames: int,
    *,
    features: FeatureMap | None = None,
) -> None:
    """Refuse in a second a request that would otherwise fail after a minute.

    Raises:
        JetsightError: as `tour` does.
    """
    page.check_tools()
    open_backend(backend, FAMILY)
    model, about = load_checkpoint(checkpoint)
    check_metadata(data, model.recording_spec, features)
    check_frames(frames, about.recipe.model.history, about.timing.action_block)
    place = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise StorageError(f"cannot write into {place}; give a folder of yours with --out")


def gates_line(gates: Sequence[Gate]) -> str:
    """Count the gates that passed, and those that detected the fault of their negative control."""
    count, passed = len(gates), sum(gate.passed for gate in gates)
    found = sum(gate.control_failed for gate in gates)
    return f"{passed} of {count} gates passed, {found} of {count} planted faults detected"


def summary_lines(report: Mapping[str, Any], out: Path) -> Iterator[str]:
    """Yield the lines for the terminal."""
    yield (
        f"{report['frames']} frames of {report['source']} on {report['backend']} "
        f"{report['family']}, {report['drops']} dropped"
    )
    for key in ("encode_ms", "forecast_ms", "frame_age_ms"):
        name, numbers = key.removesuffix("_ms").replace("_", " "), report[key]
        shown = ", ".join(f"{which} {value:.2f}" for which, value in numbers.items())
        yield f"{name}: {shown} ms"
    skill = " ".join(f"{value:.2f}" for value in report["skill_vs_persistence"])
    yield f"skill against persistence, 1 to {len(report['skill_vs_persistence'])} blocks: {skill}"
    yield _change_line(report["planted_change"], report["surprise"])
    yield _plan_line(report["plan"])
    yield f"look at {out / 'report.html'}"


def _change_line(change: Mapping[str, Any], surprise: Mapping[str, Any]) -> str:
    if not change["caught"]:
        return f"planted change at frame {change['frame']}: MISSED"
    delay = change["frames_until_flagged"]
    return (
        f"planted change at frame {change['frame']}: detected "
        f"{f'{delay} frames later' if delay else 'at once'}, surprise "
        f"{surprise['at_change']:.2f} over a limit of {surprise['limit']:.2f}; "
        f"{surprise['false_alarms']} false alarms in {surprise['normal_frames']} normal frames"
    )


def _plan_line(plan: Mapping[str, Any]) -> str:
    if not plan["valid"]:
        return f"plan: none, {plan['reason']}"
    left = 100 * plan["distances"][-1] / plan["distance_now"]
    return (
        f"plan: {plan['iterations']} iterations in {plan['planned_ms']:.0f} ms; "
        f"the imagined end is {left:.1f} % of the initial distance from the goal"
    )


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    clock = MonotonicClock()
    start_ns = clock.now_ns()
    yield
    seconds[name] = (clock.now_ns() - start_ns) / 1e9
