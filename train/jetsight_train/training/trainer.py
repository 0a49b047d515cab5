"""Training loop of the world model, with checkpoints and a metrics log.

A step depends only on the recipe, the data and the step number, which seeds the generators of
batches and dropout, so a run that was stopped and resumed ends in the same bits.

Shapes: N windows, T = context + rollout steps frames per window, F frames of the recording,
A action-block size, D latent size.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from jetsight.clock import Clock, MonotonicClock
from jetsight.datasets.fit import check_dataset_fits
from jetsight.errors import UsageError
from jetsight.signals import Terminated, deferred_signals
from jetsight.storage.atomic import write_file
from jetsight_train import checkpoint
from jetsight_train.collapse import CollapseMonitor, LatentHealth, latent_health
from jetsight_train.data.encoded import encode_recording
from jetsight_train.data.windows import Recording, WindowSampler
from jetsight_train.model.config import ModelConfig
from jetsight_train.model.world_model import WorldModel
from jetsight_train.objectives import ObjectiveConfig, anchor_term, objective_terms
from jetsight_train.recipe import OptimiserConfig, Recipe
from jetsight_train.training.divergence import (
    finite_gradient,
    finite_loss,
    finite_weights,
)
from jetsight_train.training.measured import anchor_targets, measured_action, measured_state
from jetsight_train.training.resume import RunState

CHECKPOINT = "checkpoint"
METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class StepReport:
    """Measurements of one training step; `health` on steps that the monitor checks."""

    step: int
    loss: float
    terms: dict[str, float]
    health: LatentHealth | None

    def as_line(self) -> str:
        """Format as one line of `metrics.jsonl`."""
        row: dict[str, float] = {"step": self.step, "loss": self.loss, **self.terms}
        if self.health is not None:
            row |= self.health.as_dict()
        return json.dumps(row) + "\n"


def build_model(recipe: Recipe, recording: Recording) -> WorldModel:
    """Make a fresh model whose normalisers are measured on the recording."""
    # Before the layers are made, which draw their weights from this generator.
    torch.manual_seed(recipe.optimiser.seed)
    action = measured_action(recipe, recording.actions, recording.name)
    frame, timing = recipe.frame.spec, recipe.timing
    if recipe.state is None:
        return WorldModel(recipe.model, frame, timing, action)
    state = measured_state(recipe.state, recording)
    return WorldModel(
        recipe.model, frame, timing, action, state=state, state_hidden=recipe.state.hidden
    )


def _inputs(model: WorldModel) -> tuple[object, ...]:
    """Cameras and state that a model's encoder is made for, without the measured normaliser."""
    encoder = model.state_encoder
    if encoder is None:
        return model.frame.cameras, None
    spec = encoder.normalise.spec
    return model.frame.cameras, (spec.names, spec.units, encoder.mlp.down.out_features)


def learning_rate(config: OptimiserConfig, step: int) -> float:
    """Return the rate of a step: linear warm-up, then a half cosine to zero at the last step."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))


def window_terms(
    model: WorldModel, z: Tensor, blocks: Tensor, objective: ObjectiveConfig
) -> dict[str, Tensor]:
    """Compute loss terms of a batch of latents `z [N, T, D]` and `blocks [N, T-1, A]`.

    Every context frame predicts its successor (teacher forcing), and a rollout from the context
    predicts the rest with the model's own latents as input. Gradients reach both the predicted and
    the encoded side; the anti-collapse terms prevent a constant encoder.
    """
    context = objective.context or model.config.history
    forced = model.predict_each(z[:, :context], blocks[:, :context])
    imagined = model.rollout(z[:, :context], blocks[:, : context - 1], blocks[:, context - 1 :])
    predicted = torch.cat([forced[:, :-1], imagined], dim=1).flatten(0, 1)
    return objective_terms(predicted, z[:, 1:].flatten(0, 1), z, objective)


class Trainer:
    """One training run: the model, the optimiser and the run folder."""

    def __init__(
        self, recipe: Recipe, recording: Recording, folder: Path, clock: Clock | None = None
    ) -> None:
        check_dataset_fits(recording.name, recording.spec, recipe.recording_spec)
        self.recipe, self.recording, self.folder = recipe, recording, folder
        self.clock = clock or MonotonicClock()
        self.model = build_model(recipe, recording)
        self.frozen = recipe.optimiser.frozen_encoder
        trained = self.model.predictor if self.frozen else self.model
        self.optimiser = torch.optim.AdamW(
            trained.parameters(), weight_decay=recipe.optimiser.weight_decay
        )
        self.states = recording.states_of(self.model.recording_spec.state_names)
        self.sampler = WindowSampler(
            recording, recipe.window, recipe.timing.action_block, recipe.optimiser.seed
        )
        self.monitor = CollapseMonitor(recipe.monitor, recipe.model.latent_size)
        self.state = RunState(folder, recipe, recording.digest)
        self.step = 0
        self.wall_s = 0.0
        self.anchors = anchor_targets(recipe, recording)
        self.initialised = False  # with trained weights
        self.latents: Tensor | None = None  # [F, D] of all frames, if the encoder is frozen

    def resume(self) -> None:
        """Continue from the newest complete state of the run folder; at step 0 if there is none.

        Raises:
            UsageError: the folder belongs to another recipe or another data set; only rates and
                decays of the optimiser may differ, which help a run that diverged.
            CheckpointError: the state is damaged.
        """
        state = self.state.load(self.model, self.optimiser)
        if state is not None:
            self.initialised = True
            self.step, self.wall_s, self.monitor.bad_checks = state
        self._trim_metrics()

    def start_from(self, weights: WorldModel) -> None:
        """Start from the weights of a trained model of the same configuration.

        The optimiser's moments start at zero. If the encoder is frozen, only the encoder is taken
        and the predictor may differ.

        Raises:
            UsageError: the configuration differs.
        """
        self.initialised = True
        if self.frozen:
            self._take_encoder(weights)
            return
        if weights.config != self.recipe.model or _inputs(weights) != _inputs(self.model):
            raise UsageError(
                f"recipe {self.recipe.name!r} describes another model than the checkpoint to start "
                "from; give both the same [model] section, cameras and [state]"
            )
        self.model.load_state_dict(weights.state_dict())

    def _take_encoder(self, weights: WorldModel) -> None:
        own, theirs = self.recipe.model, weights.config

        def encoder_of(config: ModelConfig) -> ModelConfig:
            return replace(config, history=1, horizon=1, predictor=own.predictor)

        same = encoder_of(own) == encoder_of(theirs) and _inputs(self.model) == _inputs(weights)
        if not same or self.model.frame != weights.frame:
            raise UsageError(
                f"recipe {self.recipe.name!r} freezes an encoder that is another one than the "
                "checkpoint's; give both the same frame, state, latent_size and encoder"
            )
        self.model.encoder.load_state_dict(weights.encoder.state_dict())

    def run(
        self, save_every: int = 500, report: Callable[[StepReport], None] | None = None
    ) -> Path:
        """Train to the recipe's last step and write the checkpoint; returns its folder.

        Ctrl-C and SIGTERM take effect after the running step and leave a state to resume from.

        Raises:
            UsageError: the encoder is frozen, but no trained one was loaded.
            CollapseError: the monitor stopped the run.
            DivergenceError: a loss, gradient or weight was not finite; earlier states are kept.
        """
        if self.frozen and not self.initialised:
            raise UsageError(
                f"recipe {self.recipe.name!r} freezes the encoder, so it needs a trained one; "
                "give its checkpoint with --init"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.frozen and self.latents is None:
            # Here and not in the first step, which signals would have to wait for.
            self.latents = encode_recording(self.model, self.recording)
        with (self.folder / METRICS).open("a", encoding="utf-8") as metrics:
            if not self.state.steps():
                self.save_state()  # so that a run that diverges at once leaves one
            try:
                while self.step < self.recipe.optimiser.last_step:
                    # A signal inside a step would leave half of the weights updated.
                    with deferred_signals() as stopping:
                        self._advance(metrics, save_every, report)
                        if stopping():
                            self._keep(metrics)
            except (KeyboardInterrupt, Terminated):
                # After a divergence the newest state stays: the weights just before it are usually
                # on their way already.
                self._keep(metrics)
                raise
        self.save_state()
        return self._finish()

    def _advance(
        self, metrics: TextIO, save_every: int, report: Callable[[StepReport], None] | None
    ) -> None:
        """Take a step, log and judge it; saves the state where it is due."""
        began_ns = self.clock.now_ns()
        measured = self.train_step()
        self.wall_s += (self.clock.now_ns() - began_ns) / 1e9
        metrics.write(measured.as_line())
        if report:
            report(measured)
        if measured.health:
            metrics.flush()  # readable during the run, and complete if the monitor raises
            self.monitor.check(measured.step, measured.health)
        if self.step % save_every == 0:
            self._keep(metrics)

    def _keep(self, metrics: TextIO) -> None:
        """Save the state with the lines up to it."""
        # Lines first: resuming drops those that are too many, but cannot restore missing ones.
        metrics.flush()
        self.save_state()

    def train_step(self) -> StepReport:
        """Take one optimiser step.

        Raises:
            DivergenceError: its loss, gradient or weights are not finite.
        """
        config, step = self.recipe.optimiser, self.step
        # For the dropout of this step; the shift keeps the steps of other seeds apart.
        torch.manual_seed((config.seed << 32) + step + 1)
        self.model.train()
        for group in self.optimiser.param_groups:
            # From the step alone, so that a resumed run needs no state of a scheduler.
            group["lr"] = learning_rate(config, step)
        rows = self.sampler.rows(self.sampler.draw(step, config.batch))
        z, terms = self._terms(rows)
        loss = torch.stack(list(terms.values())).sum()
        self._descend(loss)
        self.step += 1
        # A frozen encoder cannot collapse.
        checked = step % self.recipe.monitor.every_steps == 0 and not self.frozen
        health = latent_health(z.detach().flatten(0, 1)) if checked else None
        values = {name: float(value.detach()) for name, value in terms.items()}
        return StepReport(step, float(loss.detach()), values, health)

    def _terms(self, rows: npt.NDArray[np.int64]) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute latents `[N, T, D]` of `rows [N, T]`, and the loss terms of them."""
        z, blocks = self._encoded(rows), self.sampler.blocks(rows)
        terms = window_terms(self.model, z, blocks, self.recipe.objective)
        if self.anchors is not None:
            weight, targets = self.recipe.objective.anchor, self.anchors[torch.from_numpy(rows)]
            terms["anchor"] = weight * anchor_term(z, targets)
        return z, terms

    def _descend(self, loss: Tensor) -> None:
        """Update the weights; only finite numbers reach them."""
        stage = "training of the predictor" if self.frozen else "training"
        finite_loss(float(loss.detach()), stage, self.step)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        parameters = self.model.parameters()
        norm = nn.utils.clip_grad_norm_(parameters, self.recipe.optimiser.grad_clip)
        finite_gradient(float(norm), stage, self.step)
        self.optimiser.step()
        finite_weights(self.model, stage, self.step)

    def _encoded(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """Encode the frames of `rows [N, T]`: `[N, T, D]`; with a frozen encoder, look them up."""
        if self.frozen:
            if self.latents is None:
                self.latents = encode_recording(self.model, self.recording)
                self.model.train()  # encode_recording set evaluation mode
            return self.latents[torch.from_numpy(rows)]
        frames = torch.from_numpy(self.recording.frames_u8[rows])
        half = self.recipe.optimiser.compute == "bf16"
        state = None if self.states is None else torch.from_numpy(self.states[rows]).flatten(0, 1)
        with torch.autocast(frames.device.type, torch.bfloat16, enabled=half):
            z = self.model.encode(frames.flatten(0, 1), state)
        # The objectives are computed in float32, whatever the encoder ran in.
        return z.float().view(*rows.shape, -1)

    def save_state(self) -> None:
        """Write the state for `resume`, atomically."""
        self.state.save(self.model, self.optimiser, self.step, self.wall_s, self.monitor.bad_checks)

    def _finish(self) -> Path:
        z = self.latents
        if z is None:
            z = encode_recording(self.model, self.recording)
        latent = checkpoint.LatentSpec(tuple(z.mean(0).tolist()), tuple(z.std(0).tolist()))
        trained = checkpoint.Trained(
            self.step, self.recording.digest, self.recording.name, torch.__version__, self.wall_s
        )
        target = self.folder / CHECKPOINT
        checkpoint.save(target, self.model, self.recipe, latent, trained)
        return target

    def _trim_metrics(self) -> None:
        """Drop the lines of steps after the resumed state, which will be taken again."""
        path = self.folder / METRICS
        if not path.is_file():
            return
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        # A line without its end was cut off when the run was killed.
        kept = [line for line in lines[: self.step] if line.endswith("\n")]
        # In one step, because a second kill must not cost the lines of the whole run.
        write_file(path, "".join(kept).encode())
