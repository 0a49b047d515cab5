"""Explanations of the gates of a bundle, for `jetsight inspect` and reports.

`jetsight_compile.validate` measures the gates.
"""

from __future__ import annotations

_INSIDE = "inside {graph}, worst block: {what}"
_LAST = "half of the last layer mis-scaled"
_MIDDLE = "half of a middle layer mis-scaled"
_NO_GOAL = "a planner whose goal input is zeroed"
_TAPS = {
    "cosine": "mean cosine per token to the float32 graph",
    "cosine_worst": "the cosine 1 % of the tokens do not reach",
    "sqnr_db": "signal to error in dB",
}

# name: (the value, its negative control).
MEANINGS: dict[str, tuple[str, str]] = {
    "latent_cosine": ("mean cosine of standardised latents to PyTorch float32", _LAST),
    "latent_cosine_worst": (
        "the cosine 1 % of the frames do not reach",
        "latents of other frames",
    ),
    "latent_sqnr_db": ("signal to error of the latents in dB", _LAST),
    **{
        f"{graph}_inside_{gate}": (_INSIDE.format(graph=graph, what=what), _MIDDLE)
        for graph in ("encode", "forecast")
        for gate, what in _TAPS.items()
    },
    "camera_path": (
        "signal to error in dB of the model behind its larger camera, to the trained one behind "
        "frames that PyTorch resized to 8 bits",
        "frames moved by one pixel of training",
    ),
    "rollout_drift": ("error added to forecasts, worst step, as a share of persistence's", _LAST),
    "history_age_steps": (
        "age of the history that forecast computes with, in steps",
        "a history one step old",
    ),
    "inputs_matter": (
        "smallest effect that exchanging one input has",
        "a forecast whose actions are zeroed",
    ),
    "imagine_rank": (
        "rank correlation of candidate costs with PyTorch's planner, where a search begins",
        _MIDDLE,
    ),
    "imagine_rank_narrow": ("the same half-way, where candidates are more alike", _MIDDLE),
    "imagine_elites": ("share of the best candidates that both planners choose", "shuffled costs"),
    "imagine_feasible": (
        "share of candidates that both planners allow or both forbid, at limits half of them break",
        "shuffled verdicts",
    ),
    "imagine_first_action": (
        "difference of both planners' first actions in the next mean, in action std",
        _NO_GOAL,
    ),
    "imagine_regret": (
        "extra cost of whole plans in the float model, as a share of what planning gains",
        _NO_GOAL,
    ),
}


def meaning(gate: str) -> str:
    """Explain a gate in one line; empty for a gate this version does not know."""
    if gate not in MEANINGS:
        return ""
    what, control = MEANINGS[gate]
    return f"{what}; control: {control}"
