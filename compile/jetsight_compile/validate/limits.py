"""Limits of the gates by number format, each with its origin.

Measured values are those of a pusht-nano of 2.3 M parameters. GR00T is NVIDIA's model, whose
deployment accepts a cosine of 0.999 for bf16 and 0.99 for FP8. A cosine c of rounded values
corresponds to a ratio of signal to error of 1 / (2 - 2c): 0.999, 0.995 and 0.99 are 27, 20, 17 dB.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from jetsight.bundle.manifest import GRAPHS
from jetsight_compile.config.precision import IMAGINE, PRECISIONS

Direction = Literal["min", "max"]
Limits = dict[str, tuple[Direction, dict[str, float]]]  # by gate: direction, limit by precision
Cell = tuple[float, str]  # limit, origin


@dataclass(frozen=True)
class LimitRow:
    """Limits of one gate; all formats of 8 bits share one, and all of 4 bits."""

    direction: Direction
    fp32: Cell
    fp16: Cell
    bf16: Cell
    eight_bits: Cell
    four_bits: Cell

    def cells(self) -> dict[str, Cell]:
        """Limit and origin by precision."""
        eight, four = self.eight_bits, self.four_bits
        each = (self.fp32, self.fp16, self.bf16, eight, eight, four, four)
        # Strict, so that a new precision cannot be left without a limit.
        return dict(zip(PRECISIONS, each, strict=True))


def _constant(direction: Direction, limit: float, origin: str) -> LimitRow:
    return LimitRow(direction, *[(limit, origin)] * 5)


_ROUNDING = "float32 rounding, with room for another order of summation"
# Frames near the mean have short standardised latents, so their cosines are the worst.
_WORST = "{} times the error allowed in the mean"
_NO_FOUR_BITS = "unused: beside weights of 4 bits planners stay in a float format"

# Inside, one tensor stands alone, its frozen parts are noise and nothing is averaged yet, so a tap
# may be 5 to 10 dB below the latents.
_INSIDE = {
    "cosine": LimitRow(
        "min",
        fp32=(0.999999, _ROUNDING),
        fp16=(0.999, "10 dB below the latents"),
        bf16=(0.99, "10 dB below the latents"),
        eight_bits=(0.98, "6 dB below the latents; refuses an INT8 ViT with a tap at 0.971"),
        four_bits=(0.97, "5 dB below the latents"),
    ),
    "cosine_worst": LimitRow(
        "min",
        fp32=(0.99999, _ROUNDING),
        fp16=(0.995, _WORST.format(5)),
        bf16=(0.95, _WORST.format(5)),
        eight_bits=(0.90, _WORST.format(5)),
        four_bits=(0.87, _WORST.format(4)),
    ),
    "sqnr_db": LimitRow(
        "min",
        fp32=(80.0, _ROUNDING),
        fp16=(30.0, "10 dB below the latents; measured 36"),
        bf16=(18.0, "9 dB below the latents; measured 37"),
        eight_bits=(15.0, "5 dB below the latents; measured int8 20 to 22, fp8 24"),
        four_bits=(12.0, "5 dB below the latents; measured int4 16, nvfp4 17"),
    ),
}
TABLE = {
    "latent_cosine": LimitRow(
        "min",
        fp32=(0.999999, _ROUNDING),
        fp16=(0.9999, "a tenth of the error that GR00T accepts for bf16"),
        bf16=(0.999, "GR00T's for bf16"),
        eight_bits=(0.995, "half the error that GR00T accepts for FP8"),
        four_bits=(0.99, "17 dB, see latent_sqnr_db"),
    ),
    "latent_cosine_worst": LimitRow(
        "min",
        fp32=(0.99999, _ROUNDING),
        fp16=(0.999, _WORST.format(10)),
        bf16=(0.99, _WORST.format(10)),
        eight_bits=(0.95, _WORST.format(10)),
        four_bits=(0.93, _WORST.format(7)),
    ),
    "latent_sqnr_db": LimitRow(
        "min",
        fp32=(80.0, _ROUNDING),
        fp16=(40.0, "a cosine of 0.9999 is 37; measured 53"),
        bf16=(27.0, "a cosine of 0.999"),
        eight_bits=(20.0, "a cosine of 0.995; measured int8 31 to 32, fp8 28"),
        four_bits=(17.0, "a Gaussian weight keeps 20 per layer, of a few; measured 21"),
    ),
    **{f"{graph}_inside_{name}": row for graph in GRAPHS for name, row in _INSIDE.items()},
    "rollout_drift": LimitRow(
        "max",
        fp32=(1e-6, _ROUNDING),
        fp16=(1e-3, "a twentieth of a quantized format's; measured 2e-6"),
        bf16=(5e-3, "64 times fp16's squared error, which uses little of its limit; measured 8e-5"),
        eight_bits=(0.02, "skill a planner can miss; measured int8 8e-4 to 2e-3, fp8 2e-3"),
        four_bits=(0.02, "skill a planner can miss; measured int4 0.011, nvfp4 0.010"),
    ),
    # Rounding has no direction and a stale history has; its age is 1.
    "history_age_steps": LimitRow(
        "max",
        fp32=(0.01, "half the most measured in any format, 0.02 in int4"),
        fp16=(0.05, "2.5 times the most measured in any format"),
        bf16=(0.05, "2.5 times the most measured in any format"),
        eight_bits=(0.2, "10 times the most measured in any format"),
        four_bits=(0.2, "10 times the most measured in any format"),
    ),
    "inputs_matter": _constant(
        "min",
        1e-3,
        "an exchanged input changes the output by about its spread, an ignored one by 0",
    ),
}
IMAGINE_TABLE = {
    "imagine_rank": LimitRow(
        "min",
        fp32=(0.9999, _ROUNDING),
        fp16=(0.999, "measured 0.9999"),
        bf16=(0.995, "measured 0.9998"),
        eight_bits=(0.99, "the bar of INT8 planning; measured int8 0.999, fp8 0.998"),
        four_bits=(0.98, _NO_FOUR_BITS),
    ),
    # Half-way through a search candidates differ by a tenth of what they differed by at first, so
    # the same noise costs more ranks.
    "imagine_rank_narrow": LimitRow(
        "min",
        fp32=(0.999, _ROUNDING),
        fp16=(0.99, "measured 0.9999"),
        bf16=(0.98, "measured 0.998"),
        eight_bits=(0.95, "measured int8 0.995, fp8 0.97"),
        four_bits=(0.90, _NO_FOUR_BITS),
    ),
    "imagine_elites": LimitRow(
        "min",
        fp32=(0.99, _ROUNDING),
        fp16=(0.95, "measured 1"),
        bf16=(0.90, "measured 0.98"),
        eight_bits=(0.80, "measured int8 0.94, fp8 0.92; cpu int8 with the hazard 0.85"),
        four_bits=(0.70, _NO_FOUR_BITS),
    ),
    # Where costs keep a rank correlation of c, limits in the middle forbid arccos(c) / pi others.
    "imagine_feasible": LimitRow(
        "min",
        fp32=(0.995, "1 - arccos(c) / pi for the limit c of imagine_rank"),
        fp16=(0.985, "1 - arccos(c) / pi"),
        bf16=(0.968, "1 - arccos(c) / pi"),
        eight_bits=(0.955, "1 - arccos(c) / pi"),
        four_bits=(0.936, "1 - arccos(c) / pi"),
    ),
    # A planner whose goal input is zeroed is 0.2 to 0.3 away.
    "imagine_first_action": LimitRow(
        "max",
        fp32=(0.01, _ROUNDING),
        fp16=(0.03, "measured 0"),
        bf16=(0.05, "measured 0.006"),
        eight_bits=(0.10, "measured int8 0.03 to 0.05, fp8 0.05"),
        four_bits=(0.15, _NO_FOUR_BITS),
    ),
    # Rounding decides between plans that cost the same, to either side and in every format.
    "imagine_regret": _constant("max", 0.05, "measured 0.01 everywhere, without the goal 0.8"),
}


def _limits(table: Mapping[str, LimitRow]) -> Limits:
    return {
        name: (row.direction, {precision: limit for precision, (limit, _) in row.cells().items()})
        for name, row in table.items()
    }


LIMITS, IMAGINE_LIMITS = _limits(TABLE), _limits(IMAGINE_TABLE)


def graphs_of(gate: str) -> tuple[str, ...]:
    """Graphs whose precision decides the limit of a gate."""
    prefix = gate.split("_", 1)[0]
    if prefix == "latent":
        return ("encode",)
    if prefix == IMAGINE:
        return (IMAGINE,)
    return (prefix,) if prefix in GRAPHS else GRAPHS


def limit_of(gate: str, precision: Mapping[str, str]) -> tuple[Direction, float]:
    """Direction and limit of a gate; where both graphs matter, by the coarser of the two.

    Example:
        >>> limit_of("latent_sqnr_db", {"encode": "fp16", "forecast": "int8"})
        ('min', 40.0)
        >>> limit_of("rollout_drift", {"encode": "fp16", "forecast": "int8"})
        ('max', 0.02)
    """
    direction, limits = (LIMITS | IMAGINE_LIMITS)[gate]
    loosest = min if direction == "min" else max
    return direction, loosest(limits[precision[graph]] for graph in graphs_of(gate))


def within(gate: str, precision: Mapping[str, str], value: float) -> bool:
    """Return True if a value of a gate keeps its limit; a NaN never does."""
    direction, limit = limit_of(gate, precision)
    # Comparisons with NaN are false, so these must say what passes and not what fails.
    return value >= limit if direction == "min" else value <= limit
