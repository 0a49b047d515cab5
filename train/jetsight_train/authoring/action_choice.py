"""Section `[action]` of a new recipe: limits, rates and the neutral action, or a question.

A neutral action must never be a guess: it is what a robot does while nothing is known.

Shapes: F ticks, a action size.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jetsight.errors import UsageError
from jetsight_train.authoring.survey import DataSurvey
from jetsight_train.data.normaliser import is_still
from jetsight_train.recipe import ActionRecipe

MARGIN = 0.05  # of the recorded range, on both sides of the limits
RATE_QUANTILE = 0.995  # of the recorded changes; there is little training data beyond
JUMPS = 0.9  # rate limit, as a share of the range per tick, from which it limits nothing
# Words in names of actions at zero of which a robot stands still or drives straight on.
_AT_ZERO = """
    v w vx vy vz wx wy wz vel vels velocity velocities speed omega twist yawrate rate throttle
    steer steering torque torques effort force current accel acceleration delta d dx dy dz
    droll dpitch dyaw rel relative
"""
RESTS_AT_ZERO = frozenset(_AT_ZERO.split())
# At zero of an angle the wheels of a car are straight, but the joint of an arm is anywhere.
CAR_ANGLE, CAR = "angle", {"throttle", "speed", "brake", "gas", "v", "velocity"}
_RATE_UNIT = re.compile(r".+/(s|tick|step|frame)\b.*|rpm")
_UNIT_WORDS = ("px", "m", "mm", "cm", "rad", "deg")
_SPELLED = {"mps": "m/s", "radps": "rad/s", "degps": "deg/s"}
_UNIT_SUFFIX = {**dict(zip(_UNIT_WORDS, _UNIT_WORDS, strict=True)), **_SPELLED}


@dataclass(frozen=True)
class ActionOptions:
    """Answers of the user to what data does not say.

    Attributes:
        units: one per dimension; empty to take them from names or leave them out.
        neutral: `"zero"`, `"mean"`, or one number per dimension; None where names decide.
    """

    units: tuple[str, ...] = ()
    neutral: str | None = None


@dataclass(frozen=True)
class ActionChoice:
    """A section with, by key, the reason for its values."""

    recipe: ActionRecipe
    reasons: Mapping[str, str]


def choose_action(survey: DataSurvey, options: ActionOptions) -> ActionChoice:
    """Fill the section `[action]`.

    Raises:
        UsageError: the neutral action is unclear, or an option does not fit the actions.
    """
    names = survey.action_names
    units = _units(survey, options.units)
    low, high, limits_why = _limits(survey)
    neutral, neutral_why = _neutral(survey, units, options.neutral)
    # Recorded noise around a neutral zero must not leave it outside of the limits.
    low, high = np.minimum(low, neutral), np.maximum(high, neutral)
    rate, rate_why = _rate(survey, high - low)
    known = "as declared" if any(units) else "unknown: give --units, one per dimension"
    reasons = {
        "units": known if survey.action_units or not any(units) else "from names or --units",
        "low": limits_why,
        "rate_limit_per_s": rate_why,
        "neutral": neutral_why,
    }
    recipe = ActionRecipe(
        names, units, _plain(low), _plain(high), rate_limit_per_s=rate, neutral=_plain(neutral)
    )
    return ActionChoice(recipe, reasons)


def rests_at_zero(name: str, unit: str, names: Sequence[str]) -> bool:
    """Decide by name and unit whether zero of an action dimension is rest.

    Args:
        name: of the dimension.
        unit: of it; empty if not known.
        names: of all dimensions.
    """
    if unit:
        return bool(_RATE_UNIT.fullmatch(unit))
    found = _words(name)
    if found & RESTS_AT_ZERO:
        return True
    return CAR_ANGLE in found and bool(set().union(*map(_words, names)) & CAR)


def _words(name: str) -> set[str]:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)  # camelCase
    return {re.sub(r"\d+$", "", word) for word in re.split(r"[^a-z0-9]+", spaced.lower())}


def _units(survey: DataSurvey, given: Sequence[str]) -> tuple[str, ...]:
    names = survey.action_names
    if given and len(given) != len(names):
        raise UsageError(
            f"--units has {len(given)} units, but an action has {len(names)} dimensions: "
            f"{', '.join(names)}"
        )
    if given or survey.action_units:
        return tuple(given or survey.action_units)
    return tuple(_UNIT_SUFFIX.get(re.split(r"[._ ]", name.lower())[-1], "") for name in names)


def _limits(
    survey: DataSurvey,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], str]:
    if survey.declared is not None:
        return *_declared(*survey.declared), "as the robot declares them"
    exact = np.asarray(survey.actions, np.float64)
    low, high = exact.min(0), exact.max(0)
    # A dimension that never varies needs limits around it; plans hold it anyway.
    reach = np.where(is_still(exact), np.maximum(0.1 * np.abs(low), 0.1), MARGIN * (high - low))
    return (
        np.array([_rounded(a, b, math.floor) for a, b in zip(low - reach, reach, strict=True)]),
        np.array([_rounded(a, b, math.ceil) for a, b in zip(high + reach, reach, strict=True)]),
        f"recorded range and {MARGIN:.0%} more on both sides; the robot's own are better",
    )


def _declared(
    low: npt.NDArray[np.float32], high: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Write float32 limits in few digits, where that does not widen them."""
    exact = (low.astype(np.float64), high.astype(np.float64))
    short = [np.array([float(f"{value:.7g}") for value in each]) for each in exact]
    return (
        np.where(short[0] >= exact[0], short[0], exact[0]),
        np.where(short[1] <= exact[1], short[1], exact[1]),
    )


def _rounded(value: float, reach: float, side: object) -> float:
    """Round away from the data, to a tenth of the margin."""
    unit = 10.0 ** math.floor(math.log10(max(reach, 1e-9)))
    return round(float(side(value / unit)) * unit, 12)  # type: ignore[operator]


def _rate(
    survey: DataSurvey, span: npt.NDArray[np.float64]
) -> tuple[tuple[float, ...] | None, str]:
    steps = np.abs(survey.steps.astype(np.float64)) if survey.is_recorded else np.zeros((0, 1))
    if not len(steps):
        return None, "no recorded actions to measure it on; give it if the robot has one"
    fastest = np.quantile(steps, RATE_QUANTILE, axis=0)
    if (fastest >= JUMPS * span).all():
        return None, "the recorded actions jump through their whole range"
    # A gripper that moves once is above its quantile of 0; what never moves takes any limit.
    fastest = np.where(fastest > 0, fastest, steps.max(0))
    fastest = np.where(fastest > 0, fastest, span)
    rate = tuple(float(f"{value * survey.hz:.2g}") for value in fastest)
    return rate, f"{RATE_QUANTILE:.1%} of the recorded changes are slower"


def _neutral(
    survey: DataSurvey, units: Sequence[str], given: str | None
) -> tuple[npt.NDArray[np.float64], str]:
    names, size = survey.action_names, len(survey.action_names)
    exact = np.asarray(survey.actions, np.float64)
    still = is_still(exact) if survey.is_recorded else np.zeros(size, bool)
    held = exact[0] if survey.is_recorded else np.zeros(size)
    if given == "zero":
        wanted, why = np.zeros(size), "zero, by --neutral"
    elif given == "mean":
        if not survey.is_recorded:
            raise UsageError("--neutral mean needs recorded actions; give --data, or the numbers")
        mean = exact.mean(0)
        wanted, why = np.array([float(f"{value:.4g}") for value in mean]), "mean, by --neutral"
    elif given is not None:
        wanted, why = _numbers(given, size), "by --neutral"
    else:
        known = [rests_at_zero(n, u, names) for n, u in zip(names, units, strict=True)]
        unclear = [n for n, k, s in zip(names, known, still, strict=True) if not (k or s)]
        if unclear:
            raise _unclear(survey, unclear)
        wanted, why = np.zeros(size), "zero is rest for velocities and the like"
    # The model knows what never varies at its one value only.
    return np.where(still, held, wanted), why


def _numbers(text: str, size: int) -> npt.NDArray[np.float64]:
    try:
        numbers = np.array([float(part) for part in text.split(",")])
    except ValueError:
        numbers = np.zeros(0)
    if len(numbers) != size or not np.isfinite(numbers).all():
        raise UsageError(
            f"--neutral is {text!r}, expected zero, mean, or {size} finite numbers with commas"
        )
    return numbers


def _unclear(survey: DataSurvey, unclear: Sequence[str]) -> UsageError:
    mean = ""
    if survey.is_recorded:
        numbers = ",".join(f"{value:.4g}" for value in survey.actions.mean(0, np.float64))
        mean = f"--neutral mean (here {numbers}), "
    shown = ", ".join(map(repr, unclear[:6])) + (", ..." if len(unclear) > 6 else "")
    return UsageError(
        f"the neutral action of {shown} is unclear: it is sent and assumed while nothing is known, "
        "and only for velocities is that zero; add --neutral zero, "
        f"{mean}or the numbers, one per dimension: --neutral "
        + ",".join("0" for _ in survey.action_names)
    )


def _plain(values: npt.NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(f"{value:.9g}") for value in values)
