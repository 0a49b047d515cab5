"""Findings of a survey: what is wrong with a dataset, how much it matters, and what to do.

An error blocks training or makes it learn something false; a warning costs quality; a note is
worth knowing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from jetsight_train.curation.pictures import PictureSurvey
from jetsight_train.curation.survey import DatasetSurvey
from jetsight_train.curation.vectors import DimensionSurvey

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")
_WRONG_RATE = 0.05  # beyond it the declared rate is another one
_UNSURE_RATE = 0.005
_MOST_JITTER = 0.25  # of a period: then the nearest frame may be the wrong one
_HUGE, _ABSURD = 1e6, 1e12
_FREEZE_S = 0.5


@dataclass(frozen=True)
class Finding:
    """One finding.

    Args:
        level: how much it matters.
        kind: short name of the kind of defect, for programs.
        text: what was found.
        advice: what to do about it, perhaps with an option to type; may be empty.
    """

    level: Level
    kind: str
    text: str
    advice: str = ""


def find(survey: DatasetSurvey) -> list[Finding]:
    """List the findings, errors first."""
    rules: Sequence[Callable[[DatasetSurvey], Iterator[Finding]]] = (
        _features,
        _episodes,
        _times,
        _actions,
        _states,
        _relations,
        _pictures,
        _notes,
    )
    found = [finding for rule in rules for finding in rule(survey)]
    return sorted(found, key=lambda finding: LEVELS.index(finding.level))


def _features(survey: DatasetSurvey) -> Iterator[Finding]:
    levels: dict[str, Level] = {"action": "error", "camera": "note", "state": "note"}
    for role, reason in survey.missing.items():
        level = levels.get(role, "note")
        if role == "camera" and not survey.pictures:
            level = "error"
        yield Finding(level, f"no-{role}", f"no {role} is read: {reason}")
    if not survey.actions and "action" not in survey.missing:
        yield Finding(
            "error", "no-action", "no actions are recorded", "name them: --map action=FEATURE"
        )


def _episodes(survey: DatasetSurvey) -> Iterator[Finding]:
    for episode, reason in survey.unreadable:
        advice = "leave it out: data convert ... --episodes, or record it again"
        yield Finding("error", "unreadable", f"episode {episode}: {reason}", advice)
    short = [i for i, length in enumerate(survey.lengths) if length < survey.window]
    if len(short) == len(survey.lengths):
        yield Finding(
            "error",
            "short",
            f"every episode is shorter than one training window of {survey.window} ticks",
            "record longer episodes, or train with a shorter history and horizon",
        )
    elif short:
        yield Finding(
            "warning",
            "short",
            f"{_listed(short, 'episode')} shorter than one training window of {survey.window} "
            "ticks, so nothing is learnt from them",
            "leave them out, or use a shorter window",
        )
    if survey.identical:
        one, two = survey.identical[0]
        yield Finding(
            "warning",
            "identical",
            f"{len(survey.identical)} episodes repeat another one: {two} is {one} again",
            "leave them out: a copy among held-out episodes makes a model look better than it is",
        )


def _times(survey: DatasetSurvey) -> Iterator[Finding]:
    timing = survey.timing
    if timing.backward:
        yield Finding(
            "error",
            "backward",
            f"time stamps do not ascend in {_listed(timing.backward, 'episode')}",
            f"if rows are evenly spaced: --map rate={timing.declared_hz:g}",
        )
    if timing.measured_hz is None:
        return
    period_ms = 1e3 / timing.measured_hz
    if abs(timing.deviation) > _UNSURE_RATE:
        wrong = abs(timing.deviation) > _WRONG_RATE
        yield Finding(
            "error" if wrong else "warning",
            "rate",
            f"declared {timing.declared_hz:g} Hz, but the time stamps say "
            f"{timing.measured_hz:.4g} Hz",
            f"--map rate={timing.measured_hz:.4g} if the stamps are right, or "
            f"--map rate={timing.declared_hz:g} to ignore them",
        )
    if timing.jitter_ms > _MOST_JITTER * period_ms:
        yield Finding(
            "warning",
            "jitter",
            f"rows are up to {timing.jitter_ms:.1f} ms off their rhythm of {period_ms:.1f} ms",
            "resample to an even rate: data convert ... --hz",
        )
    if timing.gaps:
        episode, row, seconds = max(timing.gaps, key=lambda gap: gap[2])
        yield Finding(
            "warning",
            "gaps",
            f"{len(timing.gaps)} gaps in time; the longest is {seconds:.2f} s after row {row} of "
            f"episode {episode}",
            "cut the episodes there, or leave them out",
        )


def _actions(survey: DatasetSurvey) -> Iterator[Finding]:
    constant = [d.name for d in survey.actions if d.constant]
    if constant and len(constant) == len(survey.actions):
        yield Finding(
            "error",
            "constant",
            "no action ever changes, so nothing can be learnt from them",
            "name the feature that holds the commands: --map action=FEATURE",
        )
    elif constant:
        yield Finding(
            "warning",
            "constant",
            f"{_listed(constant, 'action')} constant; a model cannot learn what moving it does",
            "leave it out of what the planner may change, or record it moving",
        )
    yield from _sizes(survey.actions, "action")
    for dimension in survey.actions:
        if dimension.outside and dimension.limits:
            low, high = dimension.limits
            yield Finding(
                "error" if dimension.outside > 0.2 else "warning",
                "limits",
                f"{100 * dimension.outside:.3g} % of {dimension.name!r} is outside of its limits "
                f"{low:g} to {high:g}; it goes from {dimension.low:.4g} to {dimension.high:.4g}",
                "compare units and limits",
            )
    stuck = [d for d in survey.actions if d.saturated]
    if stuck:
        listed = ", ".join(f"{d.name} {100 * d.saturated:.0f} %" for d in stuck)
        yield Finding(
            "note",
            "saturated",
            f"actions at an end of their range for much of the time: {listed}",
            "fine if the robot clips commands there; else the recorder did",
        )


def _states(survey: DatasetSurvey) -> Iterator[Finding]:
    constant = [d.name for d in survey.states if d.constant]
    if constant:
        yield Finding("note", "constant", f"{_listed(constant, 'state')} constant")
    yield from _sizes(survey.states, "state")


def _sizes(dimensions: Sequence[DimensionSurvey], kind: str) -> Iterator[Finding]:
    sizes = {d.name: max(abs(d.low), abs(d.high)) for d in dimensions}
    huge = [name for name, size in sizes.items() if size > _HUGE]
    if huge:
        most = max(sizes.values())
        yield Finding(
            "error" if most > _ABSURD else "warning",
            "huge",
            f"{_listed(huge, kind)} as large as {most:.3g}, which no robot's unit gives",
            "correct the unit, or leave the episodes out",
        )


def _relations(survey: DatasetSurvey) -> Iterator[Finding]:
    if survey.copied == "this":
        yield Finding(
            "warning",
            "copied",
            "actions are the state of the same row: they say nothing about what comes next",
            "name the feature that holds the commands: --map action=FEATURE",
        )
    if survey.copied == "next":
        yield Finding(
            "note",
            "copied",
            "actions are the state of the next row: positions reached, not commands sent",
            "a plan then needs a controller that reaches positions within one tick",
        )
    lag = survey.lag
    if lag is None or not lag.clear or survey.copied:
        return
    ms = 1e3 * abs(lag.ticks) / survey.timing.declared_hz
    if lag.ticks < 0:
        text = f"actions are recorded {_ticks(-lag.ticks)} ({ms:.0f} ms) after their effect"
        yield Finding(
            "error", "lag", text, f"move them: data convert ... --shift-actions {lag.ticks}"
        )
    else:
        text = f"states follow actions only after {_ticks(lag.ticks)} ({ms:.0f} ms)"
        advice = "fine if the robot needs that long; else move them: data convert ... "
        yield Finding("warning", "lag", text, f"{advice}--shift-actions {lag.ticks}")


def _pictures(survey: DatasetSurvey) -> Iterator[Finding]:
    for key, pictures in survey.pictures.items():
        for episode, reason in pictures.unreadable:
            yield Finding(
                "error",
                "undecodable",
                f"{key}, episode {episode}: {reason}",
                "leave it out: data convert ... --episodes, or record it again",
            )
        if pictures.dead:
            yield _dead(survey, key, pictures)
            continue
        yield from _repeats(survey, key, pictures)
        yield from _empty(key, pictures)
        if pictures.shift:
            late = "late" if pictures.shift > 0 else "early"
            yield Finding(
                "error",
                "shifted",
                f"{key}: frames are {_ticks(abs(pictures.shift))} {late} against the rows",
                "the clips do not start where the rows do; record or convert the videos again",
            )


def _repeats(survey: DatasetSurvey, key: str, pictures: PictureSurvey) -> Iterator[Finding]:
    hz = survey.timing.declared_hz
    if pictures.longest_freeze is not None and pictures.longest_freeze[2] >= _FREEZE_S * hz:
        episode, tick, ticks = pictures.longest_freeze
        yield Finding(
            "warning",
            "frozen",
            f"{key} stands still for {ticks / hz:.1f} s from tick {tick} of episode {episode} "
            "while the robot moves",
            "leave such episodes out: the model would learn that actions change nothing",
        )
    if pictures.repeated < 0.02:
        return
    text = f"{key}: {100 * pictures.repeated:.0f} % of the frames repeat the one before while the "
    advice = ""
    if pictures.repeat_every is not None and round(pictures.repeat_every) >= 2:
        real = hz * (1 - 1 / round(pictures.repeat_every))
        text += f"robot moves, as from a camera of {real:.3g} Hz"
        advice = f"resample to at most that rate: data convert ... --hz {_nice_rate(hz, real):g}"
    else:
        text += "robot moves"
        advice = "use a lower rate, or check the camera"
    yield Finding("warning", "repeated", text, advice)


def _dead(survey: DatasetSurvey, key: str, pictures: PictureSurvey) -> Finding:
    colour, places = max(
        (("black", pictures.black), ("white", pictures.white)), key=lambda pair: len(pair[1])
    )
    others = [each for each, looked in survey.pictures.items() if not looked.dead]
    return Finding(
        "warning" if others else "error",
        colour,
        f"{key} shows nothing: {len(places)} of {pictures.frames} frames are {colour}",
        f"choose others: --camera {others[0]}" if others else "choose another recording",
    )


def _empty(key: str, pictures: PictureSurvey) -> Iterator[Finding]:
    for kind, words, places in (
        ("black", "black", pictures.black),
        ("white", "white", pictures.white),
        ("flash", "much brighter or darker than both neighbours", pictures.flashes),
    ):
        if not places:
            continue
        episode, tick = places[0]
        yield Finding(
            "warning",
            kind,
            f"{key}: {len(places)} of {pictures.frames} frames are {words}; the first is tick "
            f"{tick} of episode {episode}",
            "check exposure and cable, and leave such episodes out",
        )


def _notes(survey: DatasetSurvey) -> Iterator[Finding]:
    for note in survey.notes:
        yield Finding("note", "reader", note)


def _nice_rate(hz: float, most: float) -> float:
    """Largest whole part of `hz` that is at most `most`."""
    return hz / -(-hz // most)


def _ticks(count: int) -> str:
    return f"{count} tick{'' if count == 1 else 's'}"


def _listed(items: Sequence[object], noun: str) -> str:
    """Name up to six items, with the verb: `episodes 1, 2 are`."""
    names = ", ".join(str(item) for item in items[:6])
    more = f" and {len(items) - 6} more" if len(items) > 6 else ""
    return (
        f"{noun}{'s' if len(items) > 1 else ''} {names}{more} {'are' if len(items) > 1 else 'is'}"
    )
