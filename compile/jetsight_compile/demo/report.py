"""`report.json` for machines and `report.html` for people, from what the demo measured."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jetsight.bundle.manifest import DataDigest
from jetsight.storage import atomic
from jetsight_compile.demo import page
from jetsight_compile.demo.plan import Imagined
from jetsight_compile.demo.stream import StreamResult
from jetsight_compile.pipeline.environment import machine_spec, versions
from jetsight_compile.pipeline.shipped import FAMILY

CHANGE_KIND = "cut to another episode, actions go on, nothing announced"


def report_facts(
    shown: StreamResult, seconds: Mapping[str, float], imagined: Imagined | None = None
) -> dict[str, Any]:
    """Return the content of `report.json`.

    Args:
        shown: what was measured.
        seconds: how long each part of the demo took.
        imagined: a plan; None for a bundle without planners.
    """
    summary, surprise = shown.watched.summary, shown.surprise
    manifest, replay = shown.bundle.manifest, shown.watched.replay
    delay = surprise.frames_until_flagged
    return {
        "frames": summary["frames"],
        "source": replay.label,
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
            "from_episode": replay.scenario.pieces[-2].episode,
            "to_episode": replay.scenario.pieces[-1].episode,
            "caught": surprise.caught,
            "frames_until_flagged": delay,
        },
        "skill_forecasts": shown.errors.counts,
        "places": [dataclasses.asdict(place) for place in shown.places],
        "plan": None if imagined is None else imagined.facts(),
        "gates": [dataclasses.asdict(gate) for gate in manifest.gates],
        "model": dataclasses.asdict(manifest.model),
        "episodes": {
            "streamed": replay.scenario.episodes,
            "library": shown.library.episodes,
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
    html = page.render(page.page_facts(shown, report, imagined))
    for path, content in zip(paths, (text, html), strict=True):
        atomic.write_file(path, content.encode())
    return paths


def _rounded(milliseconds: Mapping[str, float]) -> dict[str, float]:
    """To a tenth of a microsecond, which is finer than any clock here."""
    return {name: round(value, 4) for name, value in milliseconds.items()}


def _episodes(digest: DataDigest | None) -> list[int]:
    return list(digest.episodes) if digest is not None else []
