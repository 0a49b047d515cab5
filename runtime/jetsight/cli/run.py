"""`jetsight run BUNDLE --source SRC`: make live forecasts from a camera."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import click

from jetsight.cli.dataset_options import dataset_options
from jetsight.cli.table import table
from jetsight.datasets.dataset import FeatureMap
from jetsight.stream.frames import Forecast
from jetsight.terminal import TerminalLine

_REFRESH_S = 0.2
# The scripted drivers are those of `jetsight collect`.
_POLICIES = {"random": None, "scripted": "jetsight_train.record.policies:ScriptedPolicy"}
_MEASURED = ("encode_ms", "forecast_ms", "overhead_ms", "frame_age_ms", "surprise")


@click.command(short_help="Stream frames through a bundle.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--source",
    "sources",
    required=True,
    multiple=True,
    help="A video file, a folder of images, /dev/videoN, rtsp://..., lerobot:FOLDER[#EPISODE] or "
    "gym:ENV_ID. For a model of several cameras once per camera: NAME=SRC, or in its order.",
)
@dataset_options
@click.option("--frames", type=click.IntRange(min=1), help="Stop after this many frames.")
@click.option(
    "--rate",
    "rate_hz",
    type=click.FloatRange(min=0, max=1000),
    help="Frames per second; 0 replays a recording as fast as possible and drops nothing. "
    "[default: the source's own]",
)
@click.option(
    "--fps",
    type=click.FloatRange(min=0.01, max=1000),
    help="Frames per second of a video without time stamps, or of images. [default: images have "
    "the model's]",
)
@click.option(
    "--bits",
    type=click.IntRange(8, 16),
    help="Significant bits of each sample in 16-bit images, like 12 of a 12-bit camera.",
)
@click.option(
    "--channels",
    type=click.Choice(("rgb", "bgr")),
    default="rgb",
    help="Order of the colour channels in the images or the video. [default: rgb]",
)
@click.option(
    "--actions",
    type=click.Choice(("neutral", "unknown")),
    help="Of a source that reports none, like a webcam: neutral says that the robot executes the "
    "neutral action, unknown makes every forecast invalid.  [default: assume neutral, and say so]",
)
@click.option("--out", type=click.Path(path_type=Path), help="Write every forecast to this .jsonl.")
@click.option("--backend", help="onnxruntime, openvino or tensorrt. [default: the fastest here]")
@click.option("--family", help="Graph family. [default: the first that can run here]")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads. [default: all cores]")
@click.option("--seed", type=int, default=0, show_default=True, help="Of a simulated environment.")
@click.option(
    "--policy",
    default="random",
    show_default=True,
    metavar="NAME",
    help="Drives a simulated environment: random, scripted, or your own as MODULE:FUNCTION or "
    "FILE.py:FUNCTION, called as function(observation, rng).",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
def run(
    bundle: Path,
    sources: tuple[str, ...],
    features: FeatureMap,
    frames: int | None,
    rate_hz: float | None,
    fps: float | None,
    bits: int | None,
    channels: str,
    actions: Any,
    out: Path | None,
    backend: str | None,
    family: str | None,
    threads: int | None,
    seed: int,
    policy: str,
    as_json: bool,
) -> None:
    """Forecast every frame of a source with BUNDLE, and print a summary.

    The summary is printed at the end, also after Ctrl-C. The file of --out is complete only then;
    read it with jetsight.stream.jsonl.read.
    """
    from jetsight.cameras import Camera, SourceFormat
    from jetsight.cameras.source_uri import named_sources
    from jetsight.datasets.picture import PictureFormat
    from jetsight.session import Session

    source, declared = ", ".join(sources), SourceFormat(fps, PictureFormat(bits, channels))
    camera = Camera.open(
        named_sources(sources),
        rate_hz=rate_hz,
        seed=seed,
        declared=declared,
        policy=_POLICIES.get(policy, policy),
        features=features,
    )
    with Session.open(bundle, backend, family, threads=threads) as session:
        stream = session.stream(camera, frames=frames, actions=actions)
        try:
            # Closing the stream closes the camera, also if `show` raises.
            with _outputs(out, wait=rate_hz == 0) as show, contextlib.closing(stream):
                for forecast in stream:
                    show(forecast)
        finally:
            if camera.started:  # a source that never opened has no summary
                lost = {
                    "rejected": camera.rejected,
                    "last_defect": camera.last_defect,
                    "unpaired": dict(camera.unpaired),
                    "notes": list(camera.info.notes),
                }
                summary = {"source": source, **session.summary(), **lost}
                click.echo(json.dumps(summary) if as_json else "\n".join(describe(summary)))


def describe(summary: dict[str, Any]) -> Iterator[str]:
    """Format the summary of a run, line by line."""
    seconds = summary["seconds"]
    rate = summary["frames"] / seconds if seconds > 0 else 0.0
    yield (
        f"{summary['frames']} frames of {summary['source']} in {seconds:.1f} s ({rate:.1f} per "
        f"second) on {summary['backend']} {summary['family']}"
    )
    others = {k: n for k, n in summary["reasons"].items() if k != "ok"}
    why = f" (else {', '.join(f'{k} {n}' for k, n in others.items())})" if others else ""
    yield f"{summary['valid']} valid{why}"
    if summary.get("assumed"):
        yield (
            "the source reports no actions: forecasts hold for a robot that executes the neutral "
            "action (--actions unknown makes them invalid)"
        )
    yield (
        f"{summary['drops']} dropped, {summary['stalls']} stalls, {summary['surprising']} "
        f"surprising, time stamps: {summary['stamps']}"
    )
    if summary["rejected"]:
        yield f"{summary['rejected']} rejected, the last because {summary['last_defect']}"
    yield from summary["notes"]
    unpaired = [f"{name} {count}" for name, count in summary.get("unpaired", {}).items() if count]
    if unpaired:
        yield f"frames without a partner in time: {', '.join(unpaired)}"
    rows = [
        (name, *(f"{summary[name][key]:.3f}" for key in ("p50", "p99", "max")))
        for name in _MEASURED
    ]
    yield from table(("", "p50", "p99", "max"), rows)


def status_line(forecast: Forecast) -> str:
    """Format the current state of the stream as one line."""
    surprise = "    -" if forecast.surprise is None else f"{forecast.surprise:5.2f}"
    mark = "!" if forecast.surprising else " "
    return (
        f"frame {forecast.frame_index:6d}  age {forecast.age_ms:6.1f} ms  "
        f"encode {forecast.encode_ms:5.1f}  forecast {forecast.forecast_ms:5.1f}  "
        f"surprise {surprise}{mark} drops {forecast.drops}  {forecast.mode}  {forecast.reason}"
    )


class StatusLine:
    """Line of a terminal, rewritten a few times per second from a thread of its own.

    A terminal may block its writer without limit; the loop must not wait for it.

    Args:
        stream: written to only if it is a terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self._line = TerminalLine(stream)
        self._newest: Forecast | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        if self._line.live:
            # A daemon: a thread that its terminal blocks must not keep the process alive.
            self._thread = threading.Thread(target=self._refresh, daemon=True)
            self._thread.start()

    def show(self, forecast: Forecast) -> None:
        """Show this forecast at the next refresh."""
        self._newest = forecast  # newest wins: those between two refreshes are not shown

    def close(self) -> None:
        """Clear the line."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_REFRESH_S)  # with a limit: the terminal may block it
            self._line.rewrite("")

    def _refresh(self) -> None:
        while not self._stop.wait(_REFRESH_S):
            if self._newest is not None:
                self._line.rewrite(status_line(self._newest))


@contextlib.contextmanager
def _outputs(out: Path | None, *, wait: bool) -> Iterator[Callable[[Forecast], None]]:
    """Open the outputs of a forecast: the status line, and the file of `--out` if given."""
    from jetsight.stream.jsonl import ForecastWriter

    status = StatusLine(sys.stderr)
    with contextlib.ExitStack() as stack:
        stack.callback(status.close)
        if out is None:
            yield status.show
            return
        writer = ForecastWriter(out, wait=wait)
        stack.callback(writer.close)

        def show(forecast: Forecast) -> None:
            status.show(forecast)
            writer.add(forecast)

        yield show
        if writer.lost:
            click.echo(f"jetsight: warning: {writer.lost} forecasts not written to {out}", err=True)
