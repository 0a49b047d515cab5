"""`report.html`: one page of text, tables, charts and frames that loads nothing.

Shapes: h, w frame size.
"""

from __future__ import annotations

import base64
import importlib.util
import io
import math
from collections.abc import Mapping
from importlib import resources
from typing import Any

from jetsight.bundle.gates import meaning
from jetsight.engine import NDArray
from jetsight.errors import MissingDependency
from jetsight.plan_report import style
from jetsight.plan_report.tiles import side_by_side
from jetsight_compile.demo import figures
from jetsight_compile.demo.plan import Imagined
from jetsight_compile.demo.stream import StreamResult
from jetsight_compile.pipeline.shipped import FAMILY


def check_tools() -> None:
    """Check that the page can be made.

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


def page_facts(
    shown: StreamResult, report: Mapping[str, Any], imagined: Imagined | None = None
) -> dict[str, Any]:
    """Compute the values of `report.html.j2` beyond those of `report.json`."""
    spec, manifest = shown.watched.spec, shown.bundle.manifest
    pieces = shown.watched.replay.scenario.pieces
    hz = shown.rate_hz or spec.camera_hz
    cosines = [graph["cosine_min"] for each in shown.parity.values() for graph in each.values()]
    return {
        "report": report,
        "name": manifest.name,
        "precision": FAMILY.removeprefix("cpu-"),
        "parameters": f"{manifest.model.parameters / 1e6:.1f} M parameter",
        "hz": hz,
        "camera_hz": spec.camera_hz,
        "period_ms": 1e3 / hz,
        "horizon": spec.horizon,
        "block_s": spec.action_block / spec.camera_hz,
        "width": side_by_side(shown.examples[0].now).shape[1],
        "height": spec.height_px,
        "skills": [f"{value:.2f}" for value in shown.errors.skill],
        "counts": shown.errors.counts,
        "surprise": shown.surprise,
        "delay": _delay_text(shown.surprise.frames_until_flagged),
        "change_kind": (
            f"the camera shows episode {pieces[-1].episode} instead of episode "
            f"{pieces[-2].episode}, in the middle of both"
        ),
        "parity_min": min(cosines),
        "library": shown.library,
        "examples": shown.examples,
        "plan_svg": None if imagined is None else embedded(imagined.picture_svg),
        "places": shown.places,
        "marked": [place.thing for place in shown.places if shown.examples[0].marks],
        "gates": [(gate, meaning(gate.name)) for gate in manifest.gates],
        "figures": _figures(shown),
        "colors": style,
        "provenance": _provenance(shown, report),
    }


def _figures(shown: StreamResult) -> dict[str, str]:
    watched, p99 = shown.watched, shown.bundle.manifest.latent.surprise_quantiles.p99
    period_ms = 1e3 / (shown.rate_hz or watched.spec.camera_hz)
    return {
        "latency": figures.latency_figure(watched, period_ms),
        "error": figures.error_figure(watched, shown.errors),
        "surprise": figures.surprise_figure(watched, shown.control, shown.surprise, p99),
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
        "streamed": f"{report['source']}, frames in order, no randomness",
        "calibrated on": f"episodes {_listed(episodes['calibration'])} (also the library)",
        "gates judged on": f"episodes {_listed(episodes['gate'])}",
        "time": took,
    }


def _delay_text(delay: int | None) -> str:
    if delay is None:
        return "never"
    return "on the first changed frame" if delay == 0 else f"{delay} frames after it"


def _listed(episodes: list[int]) -> str:
    return ", ".join(map(str, episodes)) or "none"


def render(facts: Mapping[str, Any]) -> str:
    """Render the page from the values of `report.html.j2`."""
    import jinja2

    text = resources.files("jetsight_compile.demo").joinpath("report.html.j2").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"picture": picture, "number": number, "ms": milliseconds}
    return environment.from_string(text).render(**facts)


def picture(frame_hwc_u8: NDArray) -> str:
    """Encode a frame as a `data:` URI, so that an `<img>` loads nothing; cameras side by side."""
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(buffer, side_by_side(frame_hwc_u8), format="png", metadata={"Software": "jetsight"})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def embedded(svg: bytes) -> str:
    """Encode a drawing as a `data:` URI, so that its ids do not clash with other drawings."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode("ascii")


def number(value: float | None, digits: int = 3) -> str:
    """Format a number with that many significant digits; a dash for None."""
    if value is None or not math.isfinite(value):
        return "-"
    if value != 0 and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}"
    places = digits - 1 - math.floor(math.log10(abs(value))) if value else digits - 1
    return f"{value:.{max(places, 0)}f}"


def milliseconds(value: float) -> str:
    """Format a time with its unit, e.g. `2.14 ms`."""
    return f"{value:.2f} ms" if value < 10 else f"{value:.1f} ms"
