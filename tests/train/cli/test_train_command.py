from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers.train.toy_world import toy_recipe, toy_recording

from jetsight.errors import StorageError, UsageError
from jetsight.storage.strict_json import dump
from jetsight_train.cli import report as report_command
from jetsight_train.cli import train as train_command
from jetsight_train.data import windows
from jetsight_train.data.windows import Recording
from jetsight_train.recipe import load_recipe
from jetsight_train.training import measured
from jetsight_train.training.measured import DataSummary


@pytest.fixture
def toy_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--data SEED` is the toy world of that seed; reading real recordings is tested elsewhere."""

    def load(path: Path, most: int | None = None, *_: object) -> Recording:
        return toy_recording(episodes=most or 6, seed=int(path.name))

    monkeypatch.setattr(windows, "load_recording", load)
    monkeypatch.setattr(windows, "check_metadata", lambda *_: None)
    summary = DataSummary(toy_recipe().action.spec((0.0,) * 2, (1.0,) * 2), ())
    monkeypatch.setattr(measured, "check_training_data", lambda *_: summary)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    file = tmp_path / "toy.toml"
    file.write_text(as_toml(json.loads(dump(toy_recipe(steps=4)))))
    return file


def as_toml(plain: dict[str, object], section: str = "") -> str:
    """Format a recipe as TOML: scalars and lists first, then one table per nested object."""
    lines = [f"[{section}]"] if section else []
    nested = {key: value for key, value in plain.items() if isinstance(value, dict)}
    lines += [
        f"{key} = {json.dumps(value)}"
        for key, value in plain.items()
        if key not in nested and value is not None
    ]
    prefix = f"{section}." if section else ""
    return "\n".join([*lines, *(as_toml(value, prefix + key) for key, value in nested.items())])


def run(command: object, *arguments: object) -> dict[str, object]:
    result = CliRunner().invoke(
        command,  # type: ignore[arg-type]
        [*map(str, arguments), "--json"],
        catch_exceptions=False,
    )
    return json.loads(result.stdout)


@pytest.mark.usefixtures("toy_data")
def test_train_then_report(tmp_path: Path, recipe: Path) -> None:
    trained = run(train_command.train, recipe, "--data", "0", "--out", tmp_path / "run")
    assert trained["steps"] == 4
    card = run(report_command.report, trained["checkpoint"], "--data", "3", "--out", tmp_path)
    assert len(card["skill_vs_persistence"]) == 2  # type: ignore[arg-type]
    assert (tmp_path / "card.png").read_bytes().startswith(b"\x89PNG")
    assert "| action blocks ahead | 1 | 2 |" in (tmp_path / "MODEL_CARD.md").read_text()


@pytest.mark.usefixtures("toy_data")
def test_a_used_run_folder_is_not_touched(tmp_path: Path, recipe: Path) -> None:
    out = tmp_path / "run"
    run(train_command.train, recipe, "--data", "0", "--out", out)
    before = sorted(path.name for path in out.rglob("*"))
    with pytest.raises(StorageError, match="finished"):
        run(train_command.train, recipe, "--data", "0", "--out", out)
    (out / "checkpoint").rename(tmp_path / "moved")
    with pytest.raises(StorageError, match="--resume"):
        run(train_command.train, recipe, "--data", "0", "--out", out)
    (tmp_path / "moved").rename(out / "checkpoint")
    assert sorted(path.name for path in out.rglob("*")) == before


@pytest.mark.usefixtures("toy_data")
def test_fine_tuning_starts_from_the_checkpoint(tmp_path: Path, recipe: Path) -> None:
    first = run(train_command.train, recipe, "--data", "0", "--out", tmp_path / "a")
    options = ("--init", first["checkpoint"], "--steps", "1")
    again = run(train_command.train, recipe, "--data", "0", "--out", tmp_path / "b", *options)
    assert again["steps"] == 1


@pytest.mark.parametrize(
    "name", ["diffdrive", "lewm", "pusht-nano", "pusht-nano-encoder", "pusht-nano-vit"]
)
def test_every_shipped_recipe_is_readable(name: str) -> None:
    assert load_recipe(name).name == name


def test_text_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "broken.toml"
    file.write_text("name = [unclosed")
    with pytest.raises(UsageError, match="not a readable TOML recipe"):
        load_recipe(str(file))
