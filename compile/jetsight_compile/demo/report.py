"""`report.json` for machines and `report.html` for people, from what the demo measured."""

from __future__ import annotations

import base64
import dataclasses
import importlib.util
import io
import json
import math
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from jetsight.bundle.gates import meaning
from jetsight.engine import NDArray
from jetsight.errors import MissingDependency
from jetsight.storage import atomic
from jetsight_compile.demo import figures
from jetsight_compile.demo import report as page
from jetsight_compile.demo.plan import Imagined
from jetsight_compile.demo.stream import StreamResult
from jetsight_compile.pipeline.environment import machine_spec, versions
from jetsight_compile.pipeline.shipped import FAMILY

CHANGE_KIND = "cut to another episode, actions go on, nothing announced"


def report_facts(
    shown: StreamResult, seconds: Mapping[str, float], imagined: Imagined | None = None
) -> dict[str, Any]:
    """The content of `report.json`.

    Args:
        shown: what was measured.
        seconds: how long each part of the demo took.
        imagined: a plan; None for a bundle without planners.
    """
    summary, surprise = shown.watched.summary, shown.surprise
    manifest = shown.bundle.manifest
    return {
        "frames": summary["frames"],
        "source": shown.source,
        "backend": summary["backend"],
        "precision": summary["precision"],
        "encode_ms": _rounded(summary["encode_ms"]),
        "forecast_ms": _rounded(summary["forecast_ms"]),
        "frame_age_ms": _rounded(summary["frame_age_ms"]),
        "drops": summary["drops"],
        "skill_vs_persistence": [round(float(value), 4) for value in shown.errors.skill],
        "surprise": dataclasses.asdict(surprise),
        "engine_parity": shown.parity,
        "overhead_ms": _rounded(summary["overhead_ms"]),
        "family": FAMILY,
        "rate_hz": shown.rate_hz,
        "valid": summary["valid"],
        "reasons": summary["reasons"],
        "planted_change": {
            "kind": CHANGE_KIND,
            "frame": surprise.change_frame,
            "from_episode": shown.scenario.pieces[-2].episode,
            "to_episode": shown.scenario.pieces[-1].episode,
            "caught": surprise.caught,
            "frames_until_flagged": _delay(shown),
        },
        "skill_forecasts": shown.errors.counts,
        "places": [dataclasses.asdict(place) for place in shown.places],
        "plan": None if imagined is None else imagined.facts(),
        "gates": [dataclasses.asdict(gate) for gate in manifest.gates],
        "model": dataclasses.asdict(manifest.model),
        "episodes": {
            "streamed": shown.scenario.episodes,
            "library": list(shown.library_episodes),
            "calibration": _episodes(manifest.provenance.calibration),
            "gate": _episodes(manifest.provenance.held_out),
        },
        "checkpoint_sha256": manifest.provenance.checkpoint_sha256,
        "bundle": {
            "path": str(shown.bundle.path),
            "bytes": sum(entry.bytes for entry in manifest.files.values()),
        },
        "threads": shown.threads,
        "machine": machine_spec(),
        "versions": versions(),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
    }


def write_reports(
    shown: StreamResult, report: Mapping[str, Any], out: Path, imagined: Imagined | None = None
) -> tuple[Path, Path]:
    """Write both reports into folder `out`, each in one step; returns their paths.

    Raises:
        StorageError: the folder is not writable.
        MissingDependency: matplotlib or jinja2 is not installed.
    """
    paths = out / "report.json", out / "report.html"
    text = json.dumps(report, indent=2, allow_nan=False) + "\n"
    html = page.render(page_facts(shown, report, imagined))
    for path, content in zip(paths, (text, html), strict=True):
        atomic.write_file(path, content.encode())
    return paths


def page_facts(
    shown: StreamResult, report: Mapping[str, Any], imagined: Imagined | None = None
) -> dict[str, Any]:
    """What `report.html.j2` shows beside the values of `report.json`."""
    spec, manifest, surprise = shown.spec, shown.bundle.manifest, shown.surprise
    parameters, hz = manifest.model.parameters, shown.rate_hz or spec.camera_hz
    found = [graph for graphs in shown.parity.values() for graph in graphs.values()]
    return {
        "report": report,
        "name": manifest.name,
        "precision": FAMILY.removeprefix("cpu-"),
        "parameters": f"{parameters / 1e6:.1f} M parameter",
        "hz": hz,
        "camera_hz": spec.camera_hz,
        "period_ms": 1e3 / hz,
        "horizon": spec.horizon,
        "block_s": spec.action_block / spec.camera_hz,
        "width": spec.width_px,
        "height": spec.height_px,
        "skills": [f"{value:.2f}" for value in shown.errors.skill],
        "counts": shown.errors.counts,
        "surprise": surprise,
        "delay": _delay_text(_delay(shown)),
        "change_kind": (
            f"the camera shows episode {shown.scenario.pieces[-1].episode} instead of episode "
            f"{shown.scenario.pieces[-2].episode}, in the middle of both"
        ),
        "parity_min": min(graph["cosine_min"] for graph in found),
        "library": {
            "frames": len(shown.library.frames_u8),
            "episodes": len(shown.library_episodes),
        },
        "moments": shown.moments,
        "plan_svg": None if imagined is None else page.embedded(imagined.picture_svg),
        "places": shown.places,
        "marked": [place.thing for place in shown.places if shown.moments[0].marks],
        "gates": [(gate, meaning(gate.name)) for gate in manifest.gates],
        "figures": _figures(shown),
        "provenance": _provenance(shown, report),
    }


def _figures(shown: StreamResult) -> dict[str, str]:
    spec, watched = shown.spec, shown.watched
    quantiles = shown.bundle.manifest.latent.surprise_quantiles
    return {
        "latency": figures.latency_figure(watched, 1e3 / (shown.rate_hz or spec.camera_hz)),
        "error": figures.error_figure(
            watched,
            shown.errors,
            shown.surprise.change_frame,
            spec.camera_hz,
            spec.action_block / spec.camera_hz,
        ),
        "surprise": figures.surprise_figure(
            watched,
            shown.control,
            shown.surprise,
            shown.scenario.starts,
            spec.camera_hz,
            quantiles.p99,
        ),
    }


def _provenance(shown: StreamResult, report: Mapping[str, Any]) -> dict[str, str]:
    provenance = shown.bundle.manifest.provenance
    machine, episodes = report["machine"], report["episodes"]
    has = [name for name, present in machine["instructions"].items() if present]
    lacks = [name for name in ("avx512", "vnni") if not machine["instructions"][name]]
    took = ", ".join(f"{name} {value:.1f} s" for name, value in report["seconds"].items())
    return {
        "machine": f"{machine['processor']}, {machine['cores']} cores, {machine['os']}",
        "instructions": f"{', '.join(has)}" + (f" (no {', '.join(lacks)})" if lacks else ""),
        "load when reported": f"{machine['load_per_core']:g} per core, the demo included",
        "versions": ", ".join(f"{name} {value}" for name, value in report["versions"].items()),
        "checkpoint": f"SHA-256 {provenance.checkpoint_sha256}",
        "bundle": f"{report['bundle']['bytes'] / 1e6:.1f} MB, {shown.bundle.path.name}, "
        f"compiled {provenance.created_utc}, licence {provenance.license}",
        "streamed": f"{shown.source}, frames in order, no randomness",
        "calibrated on": f"episodes {_listed(episodes['calibration'])} (also the library)",
        "gates judged on": f"episodes {_listed(episodes['gate'])}",
        "time": took,
    }


def _rounded(milliseconds: Mapping[str, float]) -> dict[str, float]:
    """To a tenth of a microsecond, which is finer than any clock here."""
    return {name: round(value, 4) for name, value in milliseconds.items()}


def _delay(shown: StreamResult) -> int | None:
    """Frames between the first changed frame and the first flagged one."""
    flagged = shown.surprise.flagged_frame
    return None if flagged is None else flagged - shown.surprise.change_frame


def _delay_text(delay: int | None) -> str:
    if delay is None:
        return "never"
    return "on the first changed frame" if delay == 0 else f"{delay} frames after it"


def _episodes(digest: Any) -> list[int]:
    return list(digest.episodes) if digest is not None else []


def _listed(episodes: list[int]) -> str:
    return ", ".join(map(str, episodes)) or "none"


def check_tools() -> None:
    """Find out early whether the page can be made.

    Raises:
        MissingDependency: jinja2 or matplotlib is not installed.
    """
    for module, extra in (("jinja2", "compile"), ("matplotlib", "train")):
        try:
            found = importlib.util.find_spec(module) is not None
        except (ImportError, ValueError):  # ValueError: hidden through sys.modules[name] = None
            found = False
        if not found:
            raise MissingDependency(module, extra, "writing the demo's report")


def render(facts: Mapping[str, Any]) -> str:
    """The page, from the values that `report.html.j2` names."""
    import jinja2

    text = resources.files("jetsight_compile.demo").joinpath("report.html.j2").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"picture": picture, "number": number, "ms": milliseconds}
    return environment.from_string(text).render(**facts)


def picture(frame_hwc_u8: NDArray) -> str:
    """A frame as a `data:` URI that an `<img>` shows without loading anything."""
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(buffer, frame_hwc_u8, format="png", metadata={"Software": "jetsight"})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def embedded(svg: bytes) -> str:
    """A drawing as a `data:` URI; beside other drawings its names stay its own."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode("ascii")


def number(value: float | None, digits: int = 3) -> str:
    """A number with that many significant digits; a dash for none."""
    if value is None or not math.isfinite(value):
        return "-"
    if value != 0 and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}"
    places = digits - 1 - math.floor(math.log10(abs(value))) if value else digits - 1
    return f"{value:.{max(places, 0)}f}"


def milliseconds(value: float) -> str:
    """A time as the tables show it: `2.14 ms`."""
    return f"{value:.2f} ms" if value < 10 else f"{value:.1f} ms"
