"""Bad input, nothing lost: data that cannot be learned from, and training that diverges.

`bad_input.py` says what a row promises.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.bad_input import Capture, Case, Prepare, Table, check, here
from helpers.train.fade_data import RECIPE, Change, fade_data

CASES = Table()
TRAIN = ("train", "r.toml", "--data", "ds", "--out", "run")


def _second(value: object) -> Change:
    def change(rows: np.ndarray) -> np.ndarray:
        rows[:, 1] = value
        return rows

    return change


def _made(change: Change, *edits: tuple[str, str], column: str = "action") -> Prepare:
    def prepare(folder: Path) -> None:
        fade_data(folder / "ds", column=column, change=change)
        text = RECIPE
        for old, new in edits:
            assert old in text
            text = text.replace(old, new)
        (folder / "r.toml").write_text(text)

    return prepare


def _same(rows: np.ndarray) -> np.ndarray:
    return rows


ANCHORS = '[[anchors]]\ncolumn = "joint_1"\nunit = "m"\n[objective]\nanchor = 1.0\n'
_DATA = [
    ("actions that never vary", lambda rows: 0 * rows + 0.5, (), ["no action ever varies"]),
    ("an action of 1e30", lambda rows: rows * 1e30, (), ["'action_0' is", "within 1e+09"]),
    ("one action of 1e30", _second(1e30), (), ["'action_1' is 1e+30 at tick 0"]),
    (
        "actions in degrees, limits in radians",
        lambda rows: rows * 57.3,
        (),
        ["'action_", "far outside of low -1 and high 1", "units"],
    ),
    (
        "a neutral action beside what never varies",
        _second(0.5),
        [("high = [1.0, 1.0]", "high = [1.0, 1.0]\nneutral = [0.0, 0.0]")],
        ["'action_1' is always 0.5", "set its number in `neutral` to 0.5"],
    ),
    (
        "a mean outside of the limits as the neutral action",
        lambda rows: rows + 1.5,
        (),
        ["the mean of the recorded actions does not fit", "neutral"],
    ),
]
for _name, _change, _edits, _says in _DATA:
    CASES.row(_name, *TRAIN, code=4, says=["ds", *_says])(_made(_change, *_edits))
CASES.row(
    "an anchor that never varies",
    *TRAIN,
    code=4,
    says=["ds", "'joint_1' is always 2", "[[anchors]]"],
)(
    _made(
        _second(2.0),
        ("[objective]\n", ANCHORS),
        column="observation.state",
    )
)


@pytest.mark.parametrize("row", CASES, ids=lambda row: row.name)
def test_bad_input_ends_in_one_line_and_leaves_nothing(
    row: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    check(row, tmp_path, monkeypatch, capfd)


def test_what_the_rows_change_trains_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    """The control, and a constant action: one warning, and the checkpoint names it."""
    monkeypatch.chdir(tmp_path)
    _made(_same)(tmp_path)
    code, _, err = here([*TRAIN, "--quiet"], capfd)
    assert (code, err) == (0, "")
    fade_data(tmp_path / "held", change=_second(0.25))
    code, out, err = here(["train", "r.toml", "--data", "held", "--out", "h", "--json"], capfd)
    assert code == 0, err
    warnings = [line for line in err.splitlines() if "warning" in line]
    assert warnings == [
        "jetsight: warning: held: the actions 'action_1' at 0.25 never vary, so their effect "
        "cannot be learned: their scale is 1, and plans of the bundle will hold them there"
    ]
    about = json.loads(Path("h/checkpoint/model.json").read_text())
    assert about["action"]["fixed"] == ["action_1"]
    assert about["action"]["neutral"][1] == 0.25
    assert json.loads(out)["steps"] == 6  # nothing but the result on stdout


@pytest.mark.parametrize("rate", ["1e6", "1e30"])
def test_a_run_that_diverges_ends_in_one_line_and_can_be_resumed(
    rate: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    _made(_same, ("learning_rate = 1e-3", f"learning_rate = {rate}"), ("steps = 6", "steps = 30"))(
        tmp_path
    )
    code, out, err = here(TRAIN, capfd)
    assert (code, out) == (9, "")
    *_, line = err.splitlines()
    assert "stopped at step" in line
    for part in ("learning_rate", "last good state is kept in run", "--resume"):
        assert part in line
    assert not Path("run/checkpoint").exists()
    recipe = Path("r.toml")
    recipe.write_text(recipe.read_text().replace(f"learning_rate = {rate}", "learning_rate = 1e-3"))
    code, _, err = here([*TRAIN, "--resume"], capfd)
    assert code == 0, err
