"""Findings: every defect of a recording is found, and a clean recording has none.

Each defect is planted into the same clean recording, so the clean one is the negative control of
every row, and each row that of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from helpers.train import disc_recordings as disc

from jetsight.datasets.dataset import FeatureMap
from jetsight_train.curation.findings import Finding, find
from jetsight_train.curation.next_steps import next_steps
from jetsight_train.curation.survey import CheckOptions, DatasetSurvey, examine

OPTIONS = CheckOptions(FeatureMap())


def check(path: Path, options: CheckOptions = OPTIONS) -> tuple[DatasetSurvey, list[Finding]]:
    survey, _ = examine(path, options)
    return survey, find(survey)


def kinds(findings: Sequence[Finding], *levels: str) -> set[str]:
    return {finding.kind for finding in findings if finding.level in levels}


@dataclass(frozen=True)
class Defect:
    """One defect: what plants it, the kind and level of its finding, words of the text."""

    plant: Callable[[Path], object]
    kind: str
    level: str
    says: Sequence[str]
    beside: frozenset[str] = frozenset()  # kinds that follow from it


DEFECTS: dict[str, Defect] = {}


def defect(name: str, kind: str, level: str, *says: str, beside: Sequence[str] = ()):
    def add(plant: Callable[[Path], object]) -> Callable[[Path], object]:
        DEFECTS[name] = Defect(plant, kind, level, says, frozenset(beside))
        return plant

    return add


@defect("one action never moves", "constant", "warning", "target_y is constant")
def _constant(path: Path) -> None:
    disc.write(path, disc.with_actions(lambda a: a * [1, 0] + [0, 0.3]))


@defect("no action moves", "constant", "error", "no action ever changes")
def _all_constant(path: Path) -> None:
    disc.write(path, disc.with_actions(np.zeros_like))


@defect("actions of another unit", "limits", "error", "target_x", "-1.5 to 1.5")
def _unit(path: Path) -> None:
    disc.write(path, disc.with_actions(lambda a: 1000 * a))


@defect("an absurd number", "huge", "error", "target_x", "e+", beside=["limits"])
def _huge(path: Path) -> None:
    disc.write(path, disc.with_actions(lambda a: 1e30 * a))


@defect("actions that copy the state", "copied", "warning", "state of the same row")
def _copied(path: Path) -> None:
    disc.write(path, disc.edited(lambda e: replace(e, actions=e.states.copy())))


@defect("actions that copy the next state", "copied", "note", "state of the next row")
def _copied_next(path: Path) -> None:
    disc.write(path, disc.edited(lambda e: replace(e, actions=np.roll(e.states, -1, axis=0))))


@defect("actions a tick after their effect", "lag", "error", "1 tick (100 ms) after their effect")
def _late(path: Path) -> None:
    disc.write(path, disc.with_actions(lambda a: np.roll(a, 1, axis=0)))


@defect("actions two ticks before their effect", "lag", "warning", "after 2 ticks (200 ms)")
def _early(path: Path) -> None:
    disc.write(path, disc.with_actions(lambda a: np.roll(a, -2, axis=0)))


@defect("clipped actions", "saturated", "note", "target_x")
def _clipped(path: Path) -> None:
    disc.write(path, disc.with_actions(lambda a: a.clip(-0.5, 0.5)))


@defect("an episode that is there twice", "identical", "warning", "2 is 0 again")
def _twice(path: Path) -> None:
    disc.write(path, [disc.play(seed) for seed in (0, 1, 0)])


@defect("an episode shorter than a window", "short", "warning", "episode 1 is shorter")
def _short(path: Path) -> None:
    disc.write(path, [disc.play(0), disc.play(1, ticks=5), disc.play(2)])


@defect("only episodes shorter than a window", "short", "error", "every episode")
def _all_short(path: Path) -> None:
    disc.write(path, [disc.play(seed, ticks=5) for seed in range(3)])


@defect("a state that is no number", "unreadable", "error", "episode 1", "--episodes")
def _nan(path: Path) -> None:
    disc.write(path)
    disc.edit_rows(path, "observation.state", lambda rows: [*rows[:120], [np.nan, 0], *rows[121:]])


@defect("frames that stand still", "frozen", "warning", "from tick 40", beside=["repeated"])
def _frozen(path: Path) -> None:
    disc.write(
        path, disc.with_frames(lambda f: np.concatenate([f[:40], f[40:41].repeat(20, 0), f[60:]]))
    )


@defect("a camera of half the rate", "repeated", "warning", "camera of 5 Hz", "--hz 5")
def _half(path: Path) -> None:
    disc.write(path, disc.with_frames(lambda f: f[::2].repeat(2, axis=0)))


@defect("black frames", "black", "warning", "the first is tick 10 of episode 0", beside=["flash"])
def _black(path: Path) -> None:
    disc.write(path, disc.with_frames(lambda f: _put(f, 10, 0)))


@defect("only black frames", "black", "error", "240 of 240")
def _all_black(path: Path) -> None:
    disc.write(path, disc.with_frames(np.zeros_like))


@defect("a flash", "flash", "warning", "tick 10", beside=["white"])
def _flash(path: Path) -> None:
    disc.write(path, disc.with_frames(lambda f: _put(f, 10, 255)))


@defect("frames three ticks late", "shifted", "error", "3 ticks late", beside=["repeated"])
def _shifted(path: Path) -> None:
    disc.write(path, disc.with_frames(lambda f: np.concatenate([f[:1].repeat(3, 0), f[:-3]])))


@defect("a video cut short", "undecodable", "error", "episode 2", "--episodes")
def _cut(path: Path) -> None:
    disc.write(path)
    video = next(path.glob("videos/**/*.mp4"))
    data = bytearray(video.read_bytes())
    # The media data are in the middle of the file; what describes them stays.
    data[len(data) * 3 // 4 : len(data) * 4 // 5] = bytes(len(data) * 4 // 5 - len(data) * 3 // 4)
    video.write_bytes(data)


def _put(frames: np.ndarray, tick: int, level: int) -> np.ndarray:
    changed = frames.copy()
    changed[tick] = level
    return changed


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_found(tmp_path: Path, name: str) -> None:
    row = DEFECTS[name]
    row.plant(tmp_path / "d")
    _, findings = check(tmp_path / "d")
    found = [f for f in findings if f.kind == row.kind]
    assert found, findings
    assert found[0].level == row.level
    text = f"{found[0].text} {found[0].advice}"
    for part in row.says:
        assert part in text
    if row.level != "note":
        assert kinds(findings, "error", "warning") <= {row.kind, *row.beside}


def test_a_clean_recording_has_no_findings(tmp_path: Path) -> None:
    survey, findings = check(disc.write(tmp_path / "d"))
    assert findings == []
    assert survey.timing.measured_hz == pytest.approx(disc.HZ, rel=1e-4)
    assert survey.lag is not None
    assert survey.lag.ticks == 0
    assert survey.pictures[disc.TOP].shift == 0
    assert [d.limits for d in survey.actions] == [(-1.5, 1.5)] * 2
    assert next_steps(survey, findings, FeatureMap()) == [
        f"jetsight recipe new --data {tmp_path / 'd'}"
    ]
