"""State of a training run, saved so that a resumed run equals an uninterrupted one.

`RUN/state/step-N/` holds the weights and the optimiser's moments as safetensors, and the rest as
JSON.
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
from jetsight_train.model.world_model import WorldModel
from jetsight_train.recipe import Recipe

KEPT = 2  # a damaged newest state can be deleted to resume from the one before


@dataclass(frozen=True)
class StateDescription:
    """The part of a run's state that is not a tensor."""

    step: int
    wall_s: float
    bad_checks: int
    recipe: Recipe
    data_sha256: str


class RunState:
    """Reader and writer of the states of one run folder."""

    def __init__(self, folder: Path, recipe: Recipe, data_sha256: str) -> None:
        self.folder = folder / "state"
        self.recipe, self.data_sha256 = recipe, data_sha256

    def steps(self) -> list[int]:
        """List the steps of the complete states, oldest first."""
        # A state that is still being written has a hidden name, which this does not match.
        return sorted(int(path.name[5:]) for path in self.folder.glob("step-*"))

    def save(
        self,
        model: WorldModel,
        optimiser: torch.optim.Optimizer,
        step: int,
        wall_s: float,
        bad_checks: int,
    ) -> None:
        """Write the state of `step` and remove all but the newest two."""
        self.folder.mkdir(parents=True, exist_ok=True)
        sweep(self.folder)  # incomplete states of a killed run
        target = self.folder / f"step-{step:08d}"
        if target.exists():  # saved already, and a state is a function of its step
            return
        tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
        tensors |= moments(model, optimiser)
        description = StateDescription(step, wall_s, bad_checks, self.recipe, self.data_sha256)
        with new_directory(target) as folder:
            (folder / "state.safetensors").write_bytes(
                save_tensors({name: value.contiguous() for name, value in tensors.items()})
            )
            (folder / "state.json").write_bytes(dump(description))
        # Last, so that a kill at any time leaves a complete state.
        for old in self.steps()[:-KEPT]:
            shutil.rmtree(self.folder / f"step-{old:08d}")

    def load(
        self, model: WorldModel, optimiser: torch.optim.Optimizer
    ) -> tuple[int, float, int] | None:
        """Restore the newest state; returns its step, seconds of training and bad checks.

        Raises:
            UsageError: the folder belongs to another recipe or another data set.
            CheckpointError: the state is damaged.
        """
        steps = self.steps()
        if not steps:
            return None
        folder = self.folder / f"step-{steps[-1]:08d}"
        try:
            content = (folder / "state.json").read_bytes()
            about = parse(content, StateDescription, str(folder), error=CheckpointError)
            tensors = load_tensors((folder / "state.safetensors").read_bytes())
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{folder}: the training state is damaged ({error}); delete this folder to "
                "resume from the state before it"
            ) from error
        # Only equal recipe and data make a resumed run equal to an uninterrupted one.
        own = _without_rates(self.recipe), self.data_sha256
        if (_without_rates(about.recipe), about.data_sha256) != own:
            raise UsageError(
                f"{self.folder.parent}: this run was started with another recipe or other data; "
                "resume with the same ones (only optimiser.learning_rate, weight_decay and "
                "grad_clip may change), or choose a new --out"
            )
        model.load_state_dict(
            {name[6:]: value for name, value in tensors.items() if name.startswith("model.")}
        )
        restore_moments(model, optimiser, tensors)
        return about.step, about.wall_s, about.bad_checks


def _without_rates(recipe: Recipe) -> Recipe:
    """Return the recipe without what may be changed to go on after a divergence."""
    optimiser = replace(recipe.optimiser, learning_rate=1.0, weight_decay=0.0, grad_clip=1.0)
    return replace(recipe, optimiser=optimiser)


def moments(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Name the moments of an optimiser by the parameters of its model."""
    return {
        f"optimiser.{key}.{name}": value
        for name, parameter in model.named_parameters()
        for key, value in optimiser.state.get(parameter, {}).items()
    }


def restore_moments(
    model: nn.Module, optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]
) -> None:
    """Put the moments that `moments` named back into an optimiser."""
    for name, parameter in model.named_parameters():
        found = {
            key: tensors[f"optimiser.{key}.{name}"]
            for key in ("step", "exp_avg", "exp_avg_sq")
            if f"optimiser.{key}.{name}" in tensors
        }
        if found:  # absent for a parameter that was not trained
            optimiser.state[parameter] = found
