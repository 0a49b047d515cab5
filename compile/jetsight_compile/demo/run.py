"""The demo from start to finish: find the model and the data, compile, stream, write reports."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jetsight.backends.registry import open_backend
from jetsight.bundle.manifest import Gate
from jetsight.cli.run import StatusLine
from jetsight.clock import MonotonicClock
from jetsight.datasets.lerobot import LeRobotDataset
from jetsight.errors import StorageError
from jetsight_compile.demo import report as page
from jetsight_compile.demo.plan import imagine_once
from jetsight_compile.demo.report import report_facts, write_reports
from jetsight_compile.demo.scenario import check_frames
from jetsight_compile.demo.stream import stream_and_judge
from jetsight_compile.pipeline.shipped import FAMILY, compile_model, find_checkpoint, find_data
from jetsight_train.checkpoint import load as load_checkpoint


def tour(
    out: Path,
    checkpoint: Path | None = None,
    data: Path | None = None,
    *,
    backend: str | None = None,
    frames: int = 270,
    rate_hz: float | None = None,
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
        say: told what is going on.

    Returns:
        The content of `report.json`.

    Raises:
        CheckpointError: there is no such model, or it was refused.
        DataError: the dataset is missing, unreadable or too small.
        UsageError: too few frames, or no such backend.
        MissingDependency: something that the demo needs at its end is not installed.
        StorageError: `out` cannot be written.
        GateError: the quantized graphs do not do what the float model does.
    """
    checkpoint, folder = find_checkpoint(checkpoint), find_data(data)
    check_request(out, checkpoint, folder, backend, frames)
    name = (checkpoint if checkpoint.is_dir() else checkpoint.parent).name
    target = out / f"{name}.jetsight"
    seconds: dict[str, float] = {}
    say(f"compile {name} to {FAMILY}, calibrated on {folder}")
    with _timed(seconds, "compile"):
        bundle = compile_model(checkpoint, folder, target, lambda stage: say(f"  {stage}"))
    for gate in bundle.manifest.gates:
        say(_gate_line(gate))
    say(f"stream {frames} frames at camera rate; one change of scene is planted")
    dataset, status = LeRobotDataset.open(folder), StatusLine(sys.stderr)
    with _timed(seconds, "stream and judge"):
        try:
            shown = stream_and_judge(
                bundle,
                dataset,
                frames=frames,
                backend=backend,
                rate_hz=rate_hz,
                progress=status.show,
            )
        finally:
            status.close()
    say("imagine: plan once, to where the recording led")
    with _timed(seconds, "imagine"):
        imagined = imagine_once(bundle, dataset, shown, backend)
    report = report_facts(shown, seconds, imagined)
    say("write the report")
    write_reports(shown, report, out, imagined)
    return report


def check_request(
    out: Path, checkpoint: Path, data: Path, backend: str | None, frames: int
) -> None:
    """Refuse in a second what would otherwise fail after a minute.

    Raises:
        JetsightError: as `tour` does.
    """
    page.check_tools()
    open_backend(backend, FAMILY)
    LeRobotDataset.open(data)
    about = load_checkpoint(checkpoint)[1]
    check_frames(frames, about.recipe.model.history, about.timing.action_block)
    place = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise StorageError(f"cannot write into {place}; give a folder of yours with --out")


def summary_lines(report: Mapping[str, Any], out: Path) -> Iterator[str]:
    """What the terminal shows at the end."""
    change, surprise = report["planted_change"], report["surprise"]
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
    if change["caught"]:
        delay = change["frames_until_flagged"]
        when = f"{delay} frames later" if delay else "at once"
        yield (
            f"planted change at frame {change['frame']}: caught {when}, surprise "
            f"{surprise['at_change']:.2f} over a limit of {surprise['limit']:.2f}; "
            f"{surprise['false_alarms']} false alarms in {surprise['normal_frames']} normal frames"
        )
    else:
        yield f"planted change at frame {change['frame']}: MISSED"
    yield _plan_line(report["plan"])
    yield f"look at {out / 'report.html'}"


def _gate_line(gate: Gate) -> str:
    return (
        f"  gate {gate.name}: {gate.value:.4g}, limit {gate.limit:g}, passed; "
        f"its control {gate.control_value:.3g}, failed as it must"
    )


def _plan_line(plan: Mapping[str, Any]) -> str:
    if not plan["valid"]:
        return f"imagination: no plan, {plan['reason']}"
    left = 100 * plan["distances"][-1] / plan["distance_now"]
    return (
        f"imagination: a plan in {plan['planned_ms']:.0f} ms, {plan['iterations']} iterations; "
        f"{left:.1f} % of the way to the goal are left at its imagined end"
    )


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    clock = MonotonicClock()
    start_ns = clock.now_ns()
    yield
    seconds[name] = (clock.now_ns() - start_ns) / 1e9
