"""Ctrl-C and SIGTERM during training: the state is kept, and a resumed run is the same."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.train.toy_heads import heads_recipe, saved, tracks, world
from helpers.train.toy_world import toy_recipe, toy_recording

from jetsight import cli
from jetsight.errors import CheckpointError, Interrupted, UsageError
from jetsight.signals import Terminated
from jetsight_train.cli import train as train_command
from jetsight_train.training import fit_heads
from jetsight_train.training.heads_state import HeadsRun, HeadsState
from jetsight_train.training.train_heads import train_heads
from jetsight_train.training.trainer import Trainer

DATA = toy_recording()
ENDINGS = [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]


def raise_after(calls: int, number: int, inner: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function, which gets a signal during its call of that number."""
    count = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count == calls:
            signal.raise_signal(number)
        return inner(*args, **kwargs)

    return wrapped


@pytest.mark.parametrize(("number", "ending"), ENDINGS)
def test_a_signal_inside_a_step_ends_after_it_and_resumes_exactly(
    tmp_path: Path, number: int, ending: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = toy_recipe(steps=8)
    whole = Trainer(recipe, DATA, tmp_path / "whole")
    whole.run()
    parts = Trainer(recipe, DATA, tmp_path / "parts")
    monkeypatch.setattr(parts, "_descend", raise_after(4, number, parts._descend))
    with cli._signals(), pytest.raises(ending):
        parts.run(save_every=100)
    assert parts.state.steps() == [0, 4]  # the fourth step was finished first
    again = Trainer(recipe, DATA, tmp_path / "parts")
    again.resume()
    again.run()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


def heads_run(folder: Path, resume: bool = False, steps: int = 12) -> Any:
    """Train the toy heads in `folder`; returns their weights."""
    _, about, _ = saved(folder / "frozen") if not (folder / "frozen").exists() else _loaded(folder)
    recipe = heads_recipe(steps)
    state = HeadsState(
        folder, HeadsRun(recipe, "0" * 64, about.weights.sha256), save_every=100, resume=resume
    )
    model = world()
    train_heads(model, about, tracks(), recipe, state=state)
    return model.heads.state_dict()


def _loaded(folder: Path) -> Any:
    from jetsight_train import checkpoint

    return (*checkpoint.load(folder / "frozen"), folder)


@pytest.mark.parametrize("calls", [5, 12 + 5])  # in the probe, and in the hazard head
@pytest.mark.parametrize(("number", "ending"), ENDINGS)
def test_heads_are_resumed_exactly(
    tmp_path: Path,
    calls: int,
    number: int,
    ending: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = heads_run(tmp_path / "whole")
    parts = tmp_path / "parts"
    with monkeypatch.context() as patch, cli._signals():
        plain = fit_heads.finite_gradient
        patch.setattr(fit_heads, "finite_gradient", raise_after(calls, number, plain))
        with pytest.raises(ending):
            heads_run(parts)
    names = sorted(path.name for path in (parts / "state").iterdir())
    expected = ["probe-00000005"] if calls == 5 else ["hazard-00000005", "probe-00000012"]
    assert names == expected
    again = heads_run(parts, resume=True)
    assert all(torch.equal(value, again[name]) for name, value in whole.items())


def test_heads_resume_only_their_own_run(tmp_path: Path) -> None:
    heads_run(tmp_path)
    with pytest.raises(UsageError, match="begun with another recipe"):
        heads_run(tmp_path, resume=True, steps=13)
    heads_run(tmp_path, resume=True)  # the control
    (tmp_path / "state/probe-00000012/state.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(CheckpointError, match="delete this folder"):
        heads_run(tmp_path, resume=True)


@pytest.mark.parametrize("error", [KeyboardInterrupt, Terminated])
def test_the_command_says_how_to_go_on(tmp_path: Path, error: type[BaseException]) -> None:
    with (
        pytest.raises(Interrupted, match="nothing to resume") as early,
        train_command._kept(tmp_path),
    ):
        raise error
    assert early.value.exit_code == (130 if error is KeyboardInterrupt else 143)
    Trainer(replace(toy_recipe()), DATA, tmp_path).save_state()
    with pytest.raises(Interrupted, match="with --resume to go on"), train_command._kept(tmp_path):
        raise error
