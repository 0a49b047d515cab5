"""State of heads in training, saved so that a resumed run equals an uninterrupted one.

`RUN/state/NAME-N/` holds a head's weights, the optimiser's moments and the generator of its batches
after N steps. Of each head the newest state is kept.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from jetsight.errors import CheckpointError, UsageError
from jetsight.storage.atomic import new_directory, sweep
from jetsight.storage.strict_json import dump, parse
from jetsight_train.heads.recipe import HeadsRecipe
from jetsight_train.training.resume import moments, restore_moments

_GENERATOR = "generator"


@dataclass(frozen=True)
class HeadsRun:
    """Identity of a run: only an equal one may go on from its states."""

    recipe: HeadsRecipe
    data_sha256: str
    frozen_sha256: str


class HeadsState:
    """Reader and writer of the states of one run of heads.

    Args:
        folder: of the run.
        run: its identity.
        save_every: steps between states.
        resume: read the states that are there; else the folder has none.
    """

    def __init__(self, folder: Path, run: HeadsRun, save_every: int, resume: bool) -> None:
        self.folder, self.run, self.save_every = folder / "state", run, save_every
        self._resume = resume

    def save(
        self, name: str, head: nn.Module, optimiser: torch.optim.Optimizer, draw: Tensor, step: int
    ) -> None:
        """Write the state of head `name` after `step` steps, and remove older ones of it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        sweep(self.folder)
        target, older = self.folder / f"{name}-{step:08d}", self._states(name)
        if target.exists():
            return
        tensors = {f"model.{key}": value for key, value in head.state_dict().items()}
        tensors |= moments(head, optimiser) | {_GENERATOR: draw}
        with new_directory(target) as folder:
            (folder / "state.safetensors").write_bytes(
                save_tensors({key: value.contiguous() for key, value in tensors.items()})
            )
            (folder / "state.json").write_bytes(dump(self.run))
        # Last, so that a kill at any time leaves a complete state.
        for old in older:
            shutil.rmtree(old)

    def load(
        self, name: str, head: nn.Module, optimiser: torch.optim.Optimizer
    ) -> tuple[int, Tensor] | None:
        """Restore the newest state of head `name`; returns its step and the generator's state.

        Raises:
            UsageError: the folder belongs to another recipe, model or data set.
            CheckpointError: the state is damaged.
        """
        states = self._states(name) if self._resume else []
        if not states:
            return None
        folder = states[-1]
        try:
            content = (folder / "state.json").read_bytes()
            run = parse(content, HeadsRun, str(folder), error=CheckpointError)
            tensors = load_tensors((folder / "state.safetensors").read_bytes())
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{folder}: the state is damaged ({error}); delete this folder to train this head "
                "again"
            ) from error
        if _without_rates(run) != _without_rates(self.run):
            raise UsageError(
                f"{self.folder.parent}: these heads were begun with another recipe, checkpoint or "
                "other data; resume with the same ones, or choose a new --out"
            )
        head.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        restore_moments(head, optimiser, tensors)
        return int(folder.name.rpartition("-")[2]), tensors[_GENERATOR]

    def _states(self, name: str) -> list[Path]:
        return sorted(self.folder.glob(f"{name}-*"))


def _without_rates(run: HeadsRun) -> HeadsRun:
    optimiser = replace(run.recipe.optimiser, learning_rate=1.0, weight_decay=0.0)
    return replace(run, recipe=replace(run.recipe, optimiser=optimiser))
