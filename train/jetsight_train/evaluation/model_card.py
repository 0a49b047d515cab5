"""Model card of a checkpoint, measured on held-out episodes.

Shapes: H horizon, S physical quantities.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from jetsight.errors import DataError
from jetsight.plan_report import style
from jetsight.plan_report.style import BLUE, GREY, RED, note
from jetsight_train.checkpoint import CheckpointDescription
from jetsight_train.collapse import LatentHealth, latent_health
from jetsight_train.data.columns import FloatArray, ProbeColumn
from jetsight_train.data.columns import quantities as probe_quantities
from jetsight_train.data.encoded import encode_recording, tracks_of
from jetsight_train.data.windows import Recording
from jetsight_train.evaluation.metrics import (
    Skill,
    linear_probe_r2,
    prediction_skill,
    state_share,
)
from jetsight_train.heads import metrics as head_metrics
from jetsight_train.heads.spec import HeadsDescription, HeadsScores
from jetsight_train.heads.summary import lines as head_lines
from jetsight_train.model.world_model import WorldModel

ANGLE = "angle"
READABLE_R2 = 0.5  # below it, a linear probe leaves more than half of the variance unexplained


@dataclass(frozen=True)
class Curve:
    """Latent health in `metrics.jsonl` of a run, one value per check."""

    step: tuple[int, ...]
    std_mean: tuple[float, ...]
    effective_rank: tuple[float, ...]


@dataclass(frozen=True)
class Card:
    """Measurements of a model card."""

    skill: Skill
    health: LatentHealth
    probe_r2: dict[str, float]
    held_out_name: str
    held_out_episodes: int
    held_out_frames: int
    run: Curve | None
    control: Curve | None
    heads: HeadsScores | None = None
    state_share: float | None = None  # of the latents' variance; None for a model without a state

    def as_dict(self) -> dict[str, Any]:
        """Return the card's numbers for `report.json`."""
        control = self.control
        return {
            "skill_vs_persistence": self.skill.skill.round(4).tolist(),
            "effective_rank": round(self.health.effective_rank, 2),
            "std_mean": round(self.health.std_mean, 4),
            "probe_r2": {name: round(value, 4) for name, value in self.probe_r2.items()},
            "held_out": {
                "name": self.held_out_name,
                "episodes": self.held_out_episodes,
                "frames": self.held_out_frames,
            },
            "control": control
            and {
                "steps": control.step[-1],
                "std_mean": control.std_mean[-1],
                "effective_rank": control.effective_rank[-1],
            },
            "heads": self.heads and asdict(self.heads),
            "state_share": None if self.state_share is None else round(self.state_share, 4),
        }


def measure(
    model: WorldModel,
    held_out: Recording,
    fit: Recording,
    run: Curve | None = None,
    control: Curve | None = None,
    heads: HeadsDescription | None = None,
    recorded: Mapping[str, FloatArray] | None = None,
) -> Card:
    """Measure a model on `held_out`; only the linear probe is fitted, on `fit`.

    Args:
        model: the model.
        held_out: episodes not used in training.
        fit: episodes for the linear probe.
        run: latent health over the training run of the model.
        control: latent health over a run without the anti-collapse term.
        heads: description of the model's heads, if it has any.
        recorded: columns of `held_out` beside the states, which hazards may read.

    Raises:
        DataError: `held_out` lacks a column that a head was trained to read.
    """
    z, z_fit = encode_recording(model, held_out), encode_recording(model, fit)
    names, y = quantities(held_out)
    _, y_fit = quantities(fit)
    scores = linear_probe_r2(z_fit, y_fit, z, y) if names else np.zeros(0)
    head_scores = None
    if heads is not None:
        tracks = tracks_of(model, held_out, recorded, latents=z)
        head_scores = head_metrics.measure(model, heads.recipe, tracks)
    return Card(
        skill=prediction_skill(model, held_out, z),
        health=latent_health(z),
        # Without the quantities that never vary here, which no probe can be judged by.
        probe_r2={
            name: score
            for name, score in zip(names, scores.tolist(), strict=True)
            if np.isfinite(score)
        },
        held_out_name=held_out.name,
        held_out_episodes=len(held_out.starts) - 1,
        held_out_frames=len(held_out.frames_u8),
        run=run,
        control=control,
        heads=head_scores,
        state_share=_state_share(model, (z_fit, fit), (z, held_out)),
    )


def _state_share(
    model: WorldModel, fit: tuple[Tensor, Recording], held_out: tuple[Tensor, Recording]
) -> float | None:
    names = model.recording_spec.state_names
    states = [recording.states_of(names) for _, recording in (fit, held_out)]
    if states[0] is None or states[1] is None:
        return None
    return state_share(fit[0], states[0], held_out[0], states[1])


def quantities(recording: Recording) -> tuple[tuple[str, ...], FloatArray]:
    """Make the quantities of the linear probe: the recorded state, angles as cosine and sine."""
    if not recording.state_names:
        return (), np.zeros((len(recording.states), 0), np.float32)
    # A recording names no units, so angles are known by their names.
    probe = [
        ProbeColumn(name, "rad" if name.endswith(ANGLE) else "1") for name in recording.state_names
    ]
    names, _, values = probe_quantities(probe, recording.columns)
    return names, values


def read_curve(metrics: Path) -> Curve:
    """Read the latent health of a run over its steps.

    Raises:
        DataError: the file is missing or holds no check.
    """
    try:
        rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    except (OSError, json.JSONDecodeError) as error:
        raise DataError(
            f"{metrics}: no readable metrics ({error}); give the run folder of `jetsight train`"
        ) from error
    checks = [row for row in rows if "effective_rank" in row]
    if not checks:
        raise DataError(f"{metrics}: no collapse check was logged; train for more steps")
    return Curve(
        *(tuple(row[key] for row in checks) for key in ("step", "std_mean", "effective_rank"))
    )


def markdown(card: Card, about: CheckpointDescription, parameters: int) -> str:
    """Write the model card as Markdown; its picture is `card.png`."""
    recipe, trained = about.recipe, about.trained
    steps = range(1, len(card.skill.skill) + 1)
    block_s = about.timing.action_block / about.timing.camera_hz
    lines = [
        f"# {about.name}",
        "",
        f"An action-conditioned JEPA world model ({recipe.model.architecture}, "
        f"{parameters / 1e6:.2f} M parameters, licence {recipe.license}). It reads "
        f"{about.frame.height_px} x {about.frame.width_px} camera frames{_inputs(about)} at "
        f"{about.timing.camera_hz:g} Hz, keeps {recipe.model.history} latents of "
        f"{recipe.model.latent_size} numbers, and imagines {recipe.model.horizon} action blocks "
        f"of {about.timing.action_block} actions ({block_s:g} s each). It predicts latents, not "
        "pixels.",
        "",
        "![prediction, and training with and without the anti-collapse term](card.png)",
        "",
        f"Measured on {card.held_out_episodes} held-out episodes ({card.held_out_frames} frames, "
        f"`{card.held_out_name}`), not used in training.",
        "",
        "## Prediction against copying the last latent",
        "",
        "skill_k = 1 - E|z_pred(t+k) - z(t+k)|² / E|z(t) - z(t+k)|²",
        "",
        "| action blocks ahead | " + " | ".join(str(k) for k in steps) + " |",
        "|---" * (len(steps) + 1) + "|",
        "| skill | " + " | ".join(f"{value:.3f}" for value in card.skill.skill) + " |",
        "",
        "## Linear probe of the latents",
        "",
        "| quantity | R² |",
        "|---|---|",
        *(f"| {name} | {value:.3f} |" for name, value in card.probe_r2.items()),
        "",
        *_head_lines(card, about),
        "## Collapse check",
        "",
        f"Effective rank {card.health.effective_rank:.1f} of {recipe.model.latent_size}; mean "
        f"standard deviation {card.health.std_mean:.3f}; mean absolute correlation between "
        f"dimensions {card.health.correlation:.3f}.",
        *_state_lines(card, about),
        *_control_lines(card),
        "",
        "## Training",
        "",
        f"{trained.steps} steps of {recipe.optimiser.batch} windows, objective "
        f"`{recipe.objective.kind}`, {trained.wall_s / 60:.0f} minutes of optimiser steps, "
        f"torch {trained.torch}, data `{trained.data_name}` (SHA-256 {trained.data_sha256[:16]}).",
        "",
        "## Limits",
        "",
        *_missing_lines(card),
        f"All of this holds for frames like those of `{trained.data_name}`: that robot, camera, "
        "scene and light. For others the latents are not valid, which surprise reports.",
    ]
    return "\n".join(lines) + "\n"


def _head_lines(card: Card, about: CheckpointDescription) -> list[str]:
    if card.heads is None or about.heads is None:
        return []
    how = about.heads.trained
    return [
        "## Heads",
        "",
        f"Trained on the frozen model with {how.train_episodes} episodes of `{how.data_name}` "
        f"(SHA-256 {how.data_sha256[:16]}); thresholds set on {how.calibration_episodes} others. "
        "Imagined: after rollouts of 1 to H blocks with the recorded actions.",
        "",
        *head_lines(about.heads, card.heads),
        "",
    ]


def _missing_lines(card: Card) -> list[str]:
    missing = [name for name, r2 in card.probe_r2.items() if r2 < READABLE_R2]
    if not missing:
        return []
    return [f"A linear probe cannot read {', '.join(missing)} out of the latent.", ""]


def _inputs(about: CheckpointDescription) -> str:
    """Name the cameras, and say that there is a state, after "camera frames"."""
    cameras = about.frame.cameras
    seen = f" of {len(cameras)} cameras ({', '.join(cameras)})" if len(cameras) > 1 else ""
    return seen if about.state is None else f"{seen} and {len(about.state.names)} numbers of state"


def _state_lines(card: Card, about: CheckpointDescription) -> list[str]:
    if card.state_share is None or about.state is None:
        return []
    return [
        "",
        f"Beside the frame the encoder reads {', '.join(about.state.names)}; a linear map of these "
        f"explains {100 * card.state_share:.0f} % of the latents' variance. Near 100 % the model "
        "would see little but its own state.",
    ]


def _control_lines(card: Card) -> list[str]:
    if card.control is None:
        return []
    return [
        "",
        "The control, a run without the anti-collapse term, at step "
        f"{card.control.step[-1]}: mean standard deviation {card.control.std_mean[-1]:.4f}, "
        f"effective rank {card.control.effective_rank[-1]:.1f}.",
    ]


def picture(card: Card) -> bytes:
    """Draw the card's charts as PNG bytes.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    with style.context("the model card"):
        figure = style.figure(11.0, 3.4)
        left, middle, right = figure.subplots(1, 3)
        _draw_skill(left, card.skill)
        _draw_curves(middle, card, "std_mean", "mean std of the latents")
        _draw_curves(right, card, "effective_rank", "effective rank of the latents")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=130)
        return buffer.getvalue()


def _draw_skill(axis: Any, skill: Skill) -> None:
    """Forecast error beside that of copying the last latent, per step."""
    steps = range(1, len(skill.skill) + 1)
    axis.plot(steps, skill.persistence, color=GREY, marker="o", label="copy the last latent")
    axis.plot(steps, skill.predicted, color=BLUE, marker="o", label="world model")
    for step, error, value in zip(steps, skill.predicted, skill.skill, strict=True):
        note(axis, f"{value:.2f}", (step, error), (0, 7), color=BLUE)
    axis.set(title="forecast error (number: skill)", xlabel="action blocks ahead", ylim=(0, None))
    axis.set_xticks(list(steps))
    axis.legend()


def _draw_curves(axis: Any, card: Card, key: str, title: str) -> None:
    """One measure of latent health over training, with and without the anti-collapse term."""
    for curve, color, label in (
        (card.run, BLUE, "with anti-collapse term"),
        (card.control, RED, "control without it"),
    ):
        if curve is not None:
            axis.plot(curve.step, getattr(curve, key), color=color, label=label)
    axis.set(title=title, xlabel="training step", xscale="symlog", ylim=(0, None))
    if card.run or card.control:
        axis.legend()
