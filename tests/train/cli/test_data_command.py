"""`jetsight data`: the page, its JSON, the contact sheet, and exit codes."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.bad_input import here
from helpers.train import disc_recordings as disc

from jetsight.cli import BLOCKED
from jetsight.datasets.open import open_dataset
from jetsight.datasets.pictures import decode_picture


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_clean_recording_gives_one_page_and_a_contact_sheet(folder, capfd):
    disc.write(folder / "disc", 2)
    code, out, _ = here(["data", "check", "disc"], capfd)
    assert code == 0
    for part in (
        "robot     disc",
        "10 Hz declared, 10 Hz measured",
        "2, 160 frames",
        "32x32; 160 frames of 2 episodes decoded",
        "-1.5 to 1.5",
        "1  jetsight recipe new --data disc",
    ):
        assert part in out
    assert "errors" not in out
    assert max(map(len, out.splitlines())) <= 110
    sheet = decode_picture((folder / "disc-check.png").read_bytes(), "sheet")
    assert sheet.shape[1] == 1210
    assert sheet.std() > 20  # something is drawn
    assert sorted(os.listdir(folder)) == ["disc", "disc-check.png"]


def test_errors_end_with_their_own_exit_code_and_the_line_that_mends_them(folder, capfd):
    late = disc.with_actions(lambda a: np.roll(a, 1, axis=0))
    disc.write(folder / "late", late)
    code, out, _ = here(["data", "check", "late", "--no-picture"], capfd)
    assert code == BLOCKED
    line = next(line for line in out.splitlines() if "jetsight data convert" in line)
    assert "--shift-actions -1" in line
    # The line as it stands makes a dataset that passes.
    assert here(line.split()[2:], capfd)[0] == 0
    assert here(["data", "check", line.split()[5], "--no-picture"], capfd)[0] == 0
    assert not list(folder.glob("*.png"))


def test_json_has_everything_and_nothing_that_json_lacks(folder, capfd):
    disc.write(folder / "disc", 2)
    code, out, _ = here(["data", "check", "disc", "--json", "--picture", "s.png"], capfd)
    page = json.loads(out, parse_constant=lambda name: pytest.fail(name))
    assert code == 0
    assert page["ok"] is True
    assert page["lengths"]["episodes"] == 2
    assert page["timing"]["measured_hz"] == pytest.approx(10, rel=1e-3)
    assert [each["name"] for each in page["actions"]] == ["target_x", "target_y"]
    assert page["pictures"][disc.TOP]["frames"] == 160
    assert (page["picture"], page["next"]) == ("s.png", ["jetsight recipe new --data disc"])


def test_a_recipe_is_compared(folder, capfd):
    disc.write(folder / "disc", 2)
    command = ["data", "check", "disc", "--recipe", "pusht-nano", "--no-picture", "--json"]
    code, out, _ = here(command, capfd)
    assert code == BLOCKED
    errors = [f for f in json.loads(out)["findings"] if f["level"] == "error"]
    assert errors[0]["kind"] == "recipe"
    assert "32x32" in errors[0]["text"]
    assert {f["kind"] for f in errors[1:]} <= {"limits"}


def test_several_cameras_are_all_looked_at(folder, capfd):
    about = replace(disc.ABOUT, cameras=(disc.TOP, disc.WRIST))
    played = disc.edited(lambda e: replace(e, frames=np.stack([e.frames, 0 * e.frames], axis=1)), 2)
    disc.write(folder / "two", played, about)
    code, out, _ = here(["data", "check", "two"], capfd)
    assert code == 0
    assert f"{disc.WRIST} shows nothing: 160 of 160 frames are black" in out
    assert f"convert two two-clean --camera {disc.TOP}" in out
    assert (folder / "two-check.png").exists()


def test_a_conversion_says_what_it_made_and_what_it_lost(folder, capfd):
    disc.write(folder / "disc", 3)
    command = ["data", "convert", "disc", "small", "--hz", "5", "--size", "16x16"]
    code, out, _ = here([*command, "--hold-out", "0.3"], capfd)
    assert code == 0
    assert "small: 2 episodes, 80 frames; stored pixels differ by" in out
    assert "small-val: 1 episodes, 40 frames" in out
    assert "next: jetsight recipe new --data small" in out
    code, out, _ = here([*command[:3], "again", *command[4:], "--json"], capfd)
    assert code == 0
    made = json.loads(out)["datasets"]
    assert [(each["path"], each["episodes"]) for each in made] == [(str(folder / "again"), 3)]
    assert open_dataset(folder / "again").fps == 5.0
