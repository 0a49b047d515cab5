"""Scores of heads as Markdown tables, for the terminal and the model card."""

from __future__ import annotations

from jetsight_train.heads.spec import HeadsDescription, HeadsScores


def lines(heads: HeadsDescription, scores: HeadsScores | None = None) -> list[str]:
    """Write the scores of the heads of a model as Markdown.

    Args:
        heads: description of the heads.
        scores: scores on other data; None for those of the description.
    """
    scores = scores or heads.scores
    text = [f"Measured on {scores.episodes} episodes of `{scores.data_name}`."]
    text += _probe_lines(scores) + _hazard_lines(heads, scores)
    if scores.support is not None:
        text += [
            "",
            f"Support: {scores.support.above_one:.1%} of the encoded and "
            f"{scores.support.above_one_imagined:.1%} of the imagined latents are above 1.",
        ]
    return text


def _probe_lines(scores: HeadsScores) -> list[str]:
    if not scores.quantities:
        return []
    rows = [
        f"| {q.name} | {q.r2:.3f} | {q.r2_imagined:.3f} | {_value(q.median_error, q.unit)} | "
        f"{_value(q.median_error_imagined, q.unit)} |"
        for q in scores.quantities
    ]
    rows += [
        f"| {a.name} | | | {a.median_error_deg:.1f}° | {a.median_error_imagined_deg:.1f}° |"
        for a in scores.angles
    ]
    head = "| probe | R² | R² imagined | median error | median error imagined |"
    return ["", head, "|---|---|---|---|---|", *rows]


def _hazard_lines(heads: HeadsDescription, scores: HeadsScores) -> list[str]:
    if not scores.hazards:
        return []
    rows = [
        f"| {h.name} | {spec.rule.describe()} | {h.hazardous_rate:.1%} of {h.blocks} | "
        f"{spec.miss_rate:.1%} | {_share(h.miss_rate)} | {_share(h.false_alarm_rate)} | "
        f"{'-' if h.auc is None else f'{h.auc:.4f}'} |"
        for spec, h in zip(heads.hazards, scores.hazards, strict=True)
    ]
    head = "| hazard | when | imagined blocks | may miss | missed | false alarms | AUC |"
    return ["", head, "|---|---|---|---|---|---|---|", *rows]


def _value(value: float, unit: str) -> str:
    return f"{value:.3g}" if unit == "1" else f"{value:.3g} {unit}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
