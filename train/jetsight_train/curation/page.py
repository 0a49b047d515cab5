"""The page of `jetsight data check`: a survey as text for a terminal, and as plain values."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jetsight.cli.table import fields, table
from jetsight_train.curation.findings import LEVELS, Finding
from jetsight_train.curation.survey import DatasetSurvey
from jetsight_train.curation.vectors import DimensionSurvey

_MOST_ROWS, _WIDTH = 32, 100
_TITLES = {"error": "errors", "warning": "warnings", "note": "notes"}


def page(
    survey: DatasetSurvey, findings: Sequence[Finding], steps: Sequence[str], picture: Path | None
) -> Iterator[str]:
    """Format the lines of the page.

    Args:
        survey: measurements.
        findings: what follows from them.
        steps: commands to type next.
        picture: file of the contact sheet; None without one.
    """
    yield f"{survey.path}"
    yield from fields(_facts(survey, picture))
    same = [d.name for d in survey.actions] == [d.name for d in survey.states]
    if same and survey.actions:
        yield ""
        yield from _ranges("action and state", survey.actions, survey.states)
    for name, dimensions in (("action", survey.actions), ("state", survey.states)):
        if dimensions and not same:
            yield ""
            yield from _ranges(name, dimensions)
    for level in LEVELS:
        chosen = [finding for finding in findings if finding.level == level]
        if chosen:
            yield ""
            yield _TITLES[level]
        for finding in chosen:
            yield from _wrapped(finding.text, "  ", "  ")
            if finding.advice:
                yield from _wrapped(finding.advice, "    -> ", "       ")
    yield ""
    yield "what to do" if any(f.level == "error" for f in findings) else "next"
    for number, step in enumerate(steps, 1):
        yield f"  {number}  {step}"


def as_dict(
    survey: DatasetSurvey, findings: Sequence[Finding], steps: Sequence[str], picture: Path | None
) -> dict[str, Any]:
    """Return the page's content as plain values for JSON."""
    plain = dataclasses.asdict(survey)
    plain["lengths"] = _lengths(survey.lengths) | {"episodes": len(survey.lengths)}
    for key in ("actions", "states"):
        for row, dimension in zip(plain[key], getattr(survey, key), strict=True):
            row["constant"] = dimension.constant
    if survey.lag is not None:
        plain["lag"]["clear"] = survey.lag.clear
    return _plain(plain) | {
        "ok": not any(finding.level == "error" for finding in findings),
        "findings": [dataclasses.asdict(finding) for finding in findings],
        "next": list(steps),
        "picture": None if picture is None else str(picture),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def _facts(survey: DatasetSurvey, picture: Path | None) -> Iterator[tuple[str, str]]:
    yield "  robot", survey.robot or "not said"
    yield "  format", survey.format
    yield "  rate", _rate(survey)
    lengths, hz = _lengths(survey.lengths), survey.timing.declared_hz
    seconds = " / ".join(f"{lengths[key] / hz:.3g}" for key in ("min", "median", "max"))
    ticks = " / ".join(f"{lengths[key]:g}" for key in ("min", "median", "max"))
    yield (
        "  episodes",
        f"{len(survey.lengths)}, {sum(survey.lengths)} frames; shortest / median / longest "
        f"{ticks} frames, {seconds} s",
    )
    for camera in survey.cameras:
        looked = survey.pictures.get(camera.key)
        size = f"{camera.width}x{camera.height}" if camera.height else "size not said"
        text = f"{camera.key}, {size}"
        if camera.kind == "depth":
            text += ", depth: never used as a frame"
        elif looked is not None:
            text += f"; {looked.frames} frames of {looked.episodes} episodes decoded"
        yield "  camera", text
    if picture is not None:
        yield "  picture", str(picture)


def _rate(survey: DatasetSurvey) -> str:
    timing = survey.timing
    if timing.measured_hz is None:
        return f"{timing.declared_hz:g} Hz declared, not measurable from the time stamps"
    gaps = f"{len(timing.gaps)} gaps" if timing.gaps else "no gaps"
    return (
        f"{timing.declared_hz:g} Hz declared, {timing.measured_hz:.4g} Hz measured, jitter "
        f"{timing.jitter_ms:.2g} ms, {gaps}"
    )


def _lengths(lengths: Sequence[int]) -> dict[str, float]:
    return {
        "min": min(lengths),
        "median": float(np.median(lengths)),
        "max": max(lengths),
        "frames": sum(lengths),
    }


def _ranges(
    name: str, dimensions: Sequence[DimensionSurvey], states: Sequence[DimensionSurvey] = ()
) -> Iterator[str]:
    """Format a table of ranges; `states` of the same names are shown beside the actions."""
    shown = dimensions[:_MOST_ROWS]
    limited = any(d.limits for d in shown)
    beside = ["state min", "state max"] if states else []
    ends = ["limits"] if limited else []
    head = [f"{name} ({len(dimensions)})", "min", "1 %", "99 %", "max", *ends, *beside, ""]
    rows = []
    for i, d in enumerate(shown):
        row = [f"  {d.name}", *(f"{value:.4g}" for value in (d.low, d.q01, d.q99, d.high))]
        if limited:
            row.append(f"{d.limits[0]:g} to {d.limits[1]:g}" if d.limits else "")
        if states:
            row += [f"{value:.4g}" for value in (states[i].low, states[i].high)]
        rows.append([*row, _remark(d)])
    yield from table(head, rows)
    if len(dimensions) > len(shown):
        yield f"  and {len(dimensions) - len(shown)} more; --json has all"


def _wrapped(text: str, first: str, rest: str) -> list[str]:
    # Neither paths nor options are broken, so that they can be copied.
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _remark(dimension: DimensionSurvey) -> str:
    if dimension.constant:
        return "constant"
    if dimension.outside:
        return f"{100 * dimension.outside:.3g} % outside"
    if dimension.switch:
        return f"{dimension.levels} levels"
    if dimension.saturated:
        end = "top" if dimension.at_high >= dimension.at_low else "bottom"
        return f"{100 * dimension.saturated:.0f} % at its {end}"
    return ""
