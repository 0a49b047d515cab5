"""The next lines to type after a check, in order."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import replace

from jetsight.datasets.dataset import FeatureMap
from jetsight_train.conversion.episodes import spans
from jetsight_train.curation.findings import Finding
from jetsight_train.curation.survey import DatasetSurvey

_USUAL_HZ, _USUAL_PX = 10, 96  # the shipped recipes' rate and size, which a CPU trains in minutes
_MOST_HZ, _MOST_PX = 15, 128
_LEAST_HELD_OUT = 5
_ACTION = re.compile(r"--map action=[^\s,]+")
# Errors that a conversion mends, by an option or by leaving episodes out.
_MENDED = {"rate", "backward", "lag", "unreadable", "undecodable"}


def next_steps(
    survey: DatasetSurvey, findings: Sequence[Finding], features: FeatureMap
) -> list[str]:
    """Compose the commands that follow from a survey.

    Args:
        survey: of the dataset.
        findings: of that survey.
        features: that the check was run with, and which are needed again.
    """
    kinds = {finding.kind for finding in findings if finding.level == "error"}
    if kinds & {"no-action", "constant"}:
        option = _ACTION.search(survey.missing.get("action", ""))
        choice = option[0] if option else "--map action=FEATURE"
        return [_line("jetsight data check", str(survey.path), choice)]
    if kinds - _MENDED:
        # No option can mend these, so the same check comes again after the recording is corrected.
        return [_line("jetsight data check", str(survey.path), *_map_options(survey, features))]
    timing = survey.timing
    if "rate" in kinds and timing.measured_hz:
        features = replace(features, rate_hz=timing.measured_hz)
    elif "backward" in kinds:
        features = replace(features, rate_hz=timing.declared_hz)
    target = survey.path.resolve().name
    options = [*_map_options(survey, features), *_conversion_options(survey, kinds)]
    reshaped = _reshaped(survey)
    if not (options or reshaped) and survey.format.startswith("lerobot"):
        return [_line("jetsight recipe new", "--data", str(survey.path))]
    hz, size = reshaped.get("hz"), reshaped.get("size")
    if hz is not None:
        options.append(f"--hz {hz:g}")
        target += f"-{hz:g}hz"
    if size is not None:
        options.append(f"--size {size}x{size}")
        target += f"-{size}px"
    if len(survey.lengths) >= _LEAST_HELD_OUT:
        options.append("--hold-out 0.1")
    if not (hz or size):
        target += "-clean"
    return [
        _line("jetsight data convert", str(survey.path), target, *options),
        _line("jetsight data check", target),
        _line("jetsight recipe new", "--data", target),
    ]


def _reshaped(survey: DatasetSurvey) -> dict[str, float]:
    found: dict[str, float] = {}
    hz = survey.timing.declared_hz
    real = min(
        (
            hz * (1 - 1 / round(p.repeat_every))
            for p in survey.pictures.values()
            if p.repeated >= 0.02 and p.repeat_every is not None and round(p.repeat_every) >= 2
        ),
        default=hz,
    )
    if hz > _MOST_HZ or real < hz:
        # A whole part of the recorded rate, so that every tick has a frame of its own time.
        found["hz"] = hz / max(round(hz / _USUAL_HZ), -(-hz // real))
    sizes = [min(c.height, c.width) for c in survey.cameras if c.key in survey.pictures]
    if sizes and (max(sizes) > _MOST_PX or len(set(sizes)) > 1):
        found["size"] = _USUAL_PX
    return found


def _map_options(survey: DatasetSurvey, features: FeatureMap) -> list[str]:
    options = [
        f"--map {role}={shlex.quote(value)}"
        for role, value in (("action", features.action), ("state", features.state))
        if value is not None
    ]
    if features.rate_hz is not None:
        options.append(f"--map rate={features.rate_hz:.4g}")
    alive = [key for key, pictures in survey.pictures.items() if not pictures.dead]
    # One is enough to begin with; each further camera costs its share of training time.
    keys = features.cameras or (alive[:1] if "camera" in survey.missing else ())
    return options + [f"--camera {shlex.quote(key)}" for key in keys]


def _conversion_options(survey: DatasetSurvey, kinds: set[str]) -> list[str]:
    options = []
    if "lag" in kinds and survey.lag is not None:
        options.append(f"--shift-actions {survey.lag.ticks}")
    bad = {episode for episode, _ in survey.unreadable}
    bad |= {episode for p in survey.pictures.values() for episode, _ in p.unreadable}
    if bad:
        rest = [i for i in range(len(survey.lengths)) if i not in bad]
        options.append(f"--episodes {spans(rest)}")
    return options


def _line(*parts: str) -> str:
    return " ".join(
        part if part.startswith(("--", "jetsight")) else shlex.quote(part) for part in parts
    )
