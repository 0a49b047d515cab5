"""`jetsight recipe`: what it writes trains without edits, and wrong recipes are findings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.bad_input import Capture, here
from helpers.paths import RECORDED
from helpers.train.gym_factory import FADE

from jetsight_train.recipe import load_recipe
from jetsight_train.record.collect import collect
from jetsight_train.record.episode import RecordingRecipe

NEW = ["recipe", "new", "--data", str(RECORDED), "--steps", "2", "--neutral", "mean"]


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_new_recipe_passes_its_check_and_trains_as_it_is(capfd: Capture) -> None:
    """From an empty folder to a predictor on a frozen encoder, by the lines that are printed."""
    collect(RecordingRecipe(FADE, 12, 12, 7, "random", height_px=32, width_px=48), "data")
    command = ["recipe", "new", "--data", "data", "--neutral", "zero", "--out", "my.toml"]
    code, out, _ = here([*command, "--steps", "2"], capfd)
    assert (code, "next: jetsight train my.toml --data data" in out) == (0, True)
    code, out, _ = here(["recipe", "check", "my.toml", "--data", "data"], capfd)
    assert code == 0, out
    assert "error" not in out
    code, out, err = here(["train", "my.toml", "--data", "data"], capfd)
    assert code == 0, err
    then = "train my-predictor.toml --init runs/my/checkpoint --data data"
    assert f"next: jetsight {then}\n" in out
    code, out, err = here([*then.split(), "--steps", "1"], capfd)
    assert code == 0, err
    assert "next: jetsight report" in out


def test_the_data_fills_the_recipe(capfd: Capture) -> None:
    code, out, _ = here([*NEW, "--json", "--units", "px,px", "--license", "MIT"], capfd)
    assert code == 0
    assert json.loads(out) == {"recipe": "pusht.toml", "then": "pusht-predictor.toml"}
    recipe = load_recipe("pusht.toml")
    assert (recipe.frame.camera, recipe.timing.camera_hz) == ((96, 96), 10.0)
    assert recipe.action.names == ("target_x", "target_y")
    assert recipe.action.units == ("px", "px")
    assert recipe.license == "MIT"
    assert '# column = "block_angle"' in Path("pusht.toml").read_text()


def test_recipes_are_not_replaced_by_accident(capfd: Capture) -> None:
    assert here(NEW, capfd)[0] == 0
    before = Path("pusht.toml").read_text()
    code, _, err = here(NEW, capfd)
    assert (code, "--force" in err) == (8, True)
    assert Path("pusht.toml").read_text() == before
    assert here([*NEW, "--force"], capfd)[0] == 0


def test_an_environment_fills_a_recipe_too(capfd: Capture) -> None:
    command = ["recipe", "new", "--env", FADE, "--steps", "2", "--size", "48x32"]
    code, _, err = here(command, capfd)
    assert (code, "is unclear" in err) == (2, True), err
    assert here([*command, "--neutral", "zero", "--out", "fade.toml"], capfd)[0] == 0
    recipe = load_recipe("fade.toml")
    assert (recipe.frame.camera, recipe.timing.camera_hz) == ((32, 48), 5.0)
    assert (recipe.action.low, recipe.action.high) == ((-1.0, -1.0), (1.0, 1.0))


WRONG = [
    (["--data", str(RECORDED), "--env", FADE], 2, "give either --data DIR or --env ID"),
    (["--data", str(RECORDED)], 2, "--neutral mean (here "),
    (["--data", "nowhere"], 4, "nowhere"),
    (["--data", str(RECORDED), "--neutral", "1"], 2, "expected zero, mean, or 2 finite numbers"),
    (["--data", str(RECORDED), "--neutral", "zero", "--fit", "orim-nano"], 2, "did you mean"),
    (["--data", str(RECORDED), "--neutral", "zero", "--name", "my robot"], 2, "my robot"),
    (["--data", str(RECORDED), "--action-names", "a"], 2, "2 dimensions"),
    (["--data", str(RECORDED), "--action-names", "a,b", "--neutral", "zero"], 4, "in this order"),
    (["--data", str(RECORDED), "--minutes", "0"], 2, "--minutes"),
]


@pytest.mark.parametrize(("options", "code", "says"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_call_is_one_line_and_writes_nothing(
    options: list[str], code: int, says: str, tmp_path: Path, capfd: Capture
) -> None:
    returned, out, err = here(["recipe", "new", *options], capfd)
    assert (returned, out) == (code, "")
    assert says in err
    assert err.startswith("jetsight: error: ")
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


CHECKS = [
    ("", "", 0, "ok: "),
    ("camera_hz = 10.0", "camera_hz = 30.0", 4, "recorded at 10 Hz, but the model steps at 30 Hz"),
    ("batch = 64", "bach = 64", 2, "unknown key 'bach'; did you mean 'batch'?"),
    ("action_block = 5", "action_block = 50", 4, "no episode is long enough"),
    ("action_block = 5", "action_block = 30", 0, "warning: timing.action_block: a model step"),
    ('"target_x", "target_y"', '"target_y", "target_x"', 4, "in this order"),
    ('kind = "vicreg"', 'kind = "vicrag"', 2, "objective.kind"),
    ("[timing]", "[timing", 2, "not a readable TOML recipe"),
]


@pytest.mark.parametrize(("old", "new", "code", "says"), CHECKS)
def test_findings_name_what_is_wrong(
    old: str, new: str, code: int, says: str, capfd: Capture
) -> None:
    assert here([*NEW, "--out", "my.toml"], capfd)[0] == 0
    text = Path("my.toml").read_text()
    assert old in text
    Path("my.toml").write_text(text.replace(old, new))
    command = ["recipe", "check", "my.toml", "--data", str(RECORDED)]
    returned, out, err = here(command, capfd)
    assert (returned, err) == (code, ""), out
    assert says in out
    found = json.loads(here([*command, "--json"], capfd)[1])["findings"]
    assert [f"{each['level']}: {each['text']}" for each in found] == out.splitlines()


def test_heads_recipes_are_checked_too(capfd: Capture) -> None:
    Path("h.toml").write_text('name = "h"\n[[probe]]\ncolumn = "agent_x"\nunit = "px"\n')
    command = ["recipe", "check", "h.toml", "--data", str(RECORDED)]
    assert here(command, capfd)[0] == 0
    Path("h.toml").write_text('name = "h"\n[[probe]]\ncolumn = "agent_q"\nunit = "px"\n')
    code, out, _ = here(command, capfd)
    assert code == 4
    assert "agent_q" in out


def test_a_recipe_that_is_not_there(capfd: Capture) -> None:
    code, _, err = here(["recipe", "check", "none"], capfd)
    assert (code, "was not found" in err) == (2, True)


def test_keys_are_shown_with_all_there_is_to_say(capfd: Capture) -> None:
    code, out, _ = here(["recipe", "show", "action"], capfd)
    assert code == 0
    assert "[action]\n" in out
    assert "  neutral (list of numbers, units; default none): action assumed where" in out
    rows = json.loads(here(["recipe", "show", "--json"], capfd)[1])["keys"]
    assert len(rows) > 70
    assert here(["recipe", "show", "actoin"], capfd)[0] == 2
