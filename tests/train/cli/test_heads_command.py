from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from helpers.train.toy_heads import recording, saved, tracks

from jetsight.errors import DataError, JetsightError, StorageError, UsageError
from jetsight_train import checkpoint
from jetsight_train.cli.report import report
from jetsight_train.cli.train import train
from jetsight_train.data import encoded as tracks_module
from jetsight_train.data import windows
from jetsight_train.heads.recipe import load_heads_recipe

RECIPE = """
name = "toy-heads"
hidden = [16]
windows = 200

[[probe]]
column = "x"
unit = "m"

[[probe]]
column = "heading"
unit = "rad"

[[hazard]]
name = "keep_out"
[hazard.disc]
columns = ["x", "y"]
center = [6.0, 4.0]
radius = 2.0

[split]
calibration = 0.3
report = 0.2

[optimiser]
steps = 5
batch = 32
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a recipe and a checkpoint without heads; `--data` is always the toy world."""
    (tmp_path / "heads.toml").write_text(RECIPE)
    saved(tmp_path / "frozen")
    monkeypatch.setattr(tracks_module, "read_tracks", lambda *_: tracks())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str, recipe: str = "heads.toml", frozen: str = "frozen") -> Result:
    return CliRunner().invoke(
        train, [recipe, "--probe", frozen, "--data", "d", *arguments], catch_exceptions=False
    )


def test_heads_are_trained_and_written_beside_the_frozen_model(place: Path) -> None:
    before = {file.name: file.read_bytes() for file in (place / "frozen").iterdir()}
    result = json.loads(run("--out", "run", "--json").stdout)
    assert {q["name"] for q in result["quantities"]} == {"x", "cos heading", "sin heading"}
    assert result["hazards"][0]["name"] == "keep_out"
    model, about = checkpoint.load(Path(result["checkpoint"]))
    assert not model.heads.is_empty
    assert about.heads is not None
    assert about.heads.recipe.optimiser.steps == 5
    assert {file.name: file.read_bytes() for file in (place / "frozen").iterdir()} == before


@pytest.mark.usefixtures("place")
def test_the_table_says_what_is_read_and_what_is_missed() -> None:
    text = run("--steps", "2").stdout
    assert "runs/toy-heads/checkpoint: heads of linear\n" in text
    for part in ("| heading | | |", "| keep_out | (x, y) within 2 of (6, 4) |", "| 5.0% |"):
        assert part in text


@pytest.mark.usefixtures("place")
def test_heads_are_replaced_only_in_another_place() -> None:
    run("--out", "first")
    with pytest.raises(StorageError, match="choose another --out"):
        run("--out", "first", frozen="first/checkpoint")
    text = run("--out", "second", "--steps", "7", frozen="first/checkpoint").stdout
    assert "in place of its earlier ones" in text
    steps = []
    for folder in ("first", "second"):
        about = checkpoint.load(Path(folder, "checkpoint"))[1]
        assert about.heads is not None
        steps.append(about.heads.recipe.optimiser.steps)
    assert steps == [5, 7]


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("option", [("--init", "frozen"), ("--no-anti-collapse",)])
def test_options_of_another_training_are_refused(option: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="leave out --init"):
        run(*option)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("old", "new", "error", "words"),
    [
        ("radius = 2.0", "radius = -2.0", UsageError, r"radius is -2; expected a positive number"),
        ('["x", "y"]', '["x", "agent_y"]', DataError, r"no column 'agent_y'"),
        ('column = "x"', 'column = "headings"', DataError, r"did you mean 'heading'"),
        ("steps = 5", "stepz = 5", UsageError, r"unknown key 'stepz'; did you mean 'steps'"),
        ("hidden = [16]", "hidden = [0]", UsageError, "at least 1"),
        ("report = 0.2", "report = 0.8", UsageError, "leave episodes to train on"),
        ('name = "keep_out"', 'name = "k"\nmiss_rate = 1.5', UsageError, "miss_rate is 1.5"),
        ("[hazard.disc]", "[hazard.circle]", UsageError, "unknown key 'circle'"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(
    place: Path, old: str, new: str, error: type[JetsightError], words: str
) -> None:
    assert old in RECIPE
    (place / "heads.toml").write_text(RECIPE.replace(old, new, 1))
    with pytest.raises(error, match=words):
        run("--out", "run")
    assert not (place / "run").exists()


@pytest.mark.usefixtures("place")
def test_a_heads_recipe_without_a_model_says_what_is_missing() -> None:
    with pytest.raises(UsageError, match="add --probe CHECKPOINT"):
        CliRunner().invoke(train, ["pusht-heads", "--data", "d"], catch_exceptions=False)
    with pytest.raises(UsageError, match="give a TOML file or one of: pusht-heads"):
        run(recipe="pusht-nano")


def test_the_shipped_recipe_is_readable() -> None:
    recipe = load_heads_recipe("pusht-heads")
    assert recipe.columns == ("agent_x", "agent_y", "block_x", "block_y", "block_angle")
    assert recipe.hazard[0].rule.disc is not None


def test_the_card_says_what_heads_read(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "load_recording", lambda *_, **__: recording())
    monkeypatch.setattr(windows, "check_metadata", lambda *_: None)
    monkeypatch.setattr(tracks_module, "read_recorded", lambda *_: {})
    run("--out", "run")
    text = {}
    for name in ("run/checkpoint", "frozen"):
        done = CliRunner().invoke(report, [name, "--data", "d", "--out", "card"])
        assert done.exit_code == 0, done.exception
        text[name] = (place / "card" / "MODEL_CARD.md").read_text()
        numbers = json.loads((place / "card" / "report.json").read_text())
        assert (numbers["heads"] is None) == (name == "frozen")
    assert "## Heads" in text["run/checkpoint"]
    assert "| keep_out | (x, y) within 2 of (6, 4) |" in text["run/checkpoint"]
    assert "## Heads" not in text["frozen"]
