"""The picture on a model card: skill per step, and latents with and without the objective."""

from __future__ import annotations

import io

from jetsight_train.evaluation.model_card import Card

BLUE, RED, GREY = "#1f5fa8", "#c0392b", "#8a8f98"


def picture(card: Card) -> bytes:
    """The card's charts as PNG bytes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.0, 3.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    skill = card.skill.skill
    steps = range(1, len(skill) + 1)
    left.plot(steps, card.skill.persistence, color=GREY, marker="o", label="copy the last latent")
    left.plot(steps, card.skill.predicted, color=BLUE, marker="o", label="world model")
    for step, error, value in zip(steps, card.skill.predicted, skill, strict=True):
        left.annotate(
            f"{value:.2f}", (step, error), textcoords="offset points", xytext=(0, 7),
            ha="center", fontsize=8, color=BLUE,
        )  # fmt: skip
    left.set(title="forecast error (number: skill)", xlabel="action blocks ahead", ylim=(0, None))
    left.set_xticks(list(steps))
    left.legend(frameon=False, fontsize=8)
    for axis, key, title in (
        (middle, "std_mean", "mean std of the latents"),
        (right, "effective_rank", "effective rank of the latents"),
    ):
        for curve, color, label in (
            (card.run, BLUE, "with anti-collapse term"),
            (card.control, RED, "control without it"),
        ):
            if curve is not None:
                axis.plot(curve.step, getattr(curve, key), color=color, label=label)
        axis.set(title=title, xlabel="training step", xscale="symlog", ylim=(0, None))
        if card.run or card.control:
            axis.legend(frameon=False, fontsize=8)
    for axis in (left, middle, right):
        axis.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()
