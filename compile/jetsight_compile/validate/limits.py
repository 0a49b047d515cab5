"""What a family must reach, by number format, and what to try when it does not.

Origins. Ends of the pipe: fp32 is float rounding with room for another order of summation. fp16 is
0.1 of what NVIDIA's GR00T deployment accepts for bf16, which is 0.999; int8 latents follow its FP8
bar (0.99), with room in the worst percentile for frames near the mean, whose standardised latents
are short. A cosine c of rounded values goes with 1 / (2 - 2c) of signal to error, so 0.999, 0.995
and 0.99 say 27, 20 and 17 dB. 4 bits of a Gaussian weight, one step per group, hold 20 dB per
layer, and the latents are a few layers deep: 17 dB. Measured on a pusht-nano of 2.3 M parameters:
fp16 53 dB and 2e-6, bf16 forecast 8e-5, cpu int8 32 dB and 8e-4, TensorRT int8 31 dB and 2e-3, fp8
28 dB and 2e-3, int4 21 dB and 0.011, nvfp4 21 dB and 0.010.

Drift may cost 0.02 of skill in every quantized format: a planner does not care which. bf16 has 3
bits less than fp16, that is 64 times its squared error, of which fp16's limit leaves most unused.

Inside, one tensor stands alone, its frozen parts are noise and nothing is averaged yet, so a tap
may be 5 to 10 dB below the latents: pusht-nano's worst are, in dB, fp16 36, bf16 37, cpu int8 20,
TensorRT int8 22, fp8 24, int4 16, nvfp4 17. 0.98 refuses the INT8 ViT that broke a tap to 0.971
while its action cosine still read 0.999999.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from jetsight.bundle.manifest import GRAPHS
from jetsight_compile.config.precision import (
    AUTO,
    FLOATS,
    IMAGINE,
    PRECISIONS,
    QUANTIZED,
    of_planners,
)

Direction = Literal["min", "max"]


def _row(
    direction: Direction, fp32: float, fp16: float, bf16: float, eight: float, four: float
) -> tuple[Direction, dict[str, float]]:
    """Limits by precision; `eight` and `four` bits each have one, whatever the format."""
    each = (fp32, fp16, bf16, eight, eight, four, four)
    return direction, dict(zip(PRECISIONS, each, strict=True))


_COSINE = _row("min", 0.999999, 0.999, 0.99, 0.98, 0.97)
_COSINE_WORST = _row("min", 0.99999, 0.995, 0.95, 0.90, 0.87)
_SQNR_DB = _row("min", 80.0, 30.0, 18.0, 15.0, 12.0)
# name: (direction, {precision: limit}).
LIMITS: dict[str, tuple[Direction, dict[str, float]]] = {
    "latent_cosine": _row("min", 0.999999, 0.9999, 0.999, 0.995, 0.99),
    "latent_cosine_worst": _row("min", 0.99999, 0.999, 0.99, 0.95, 0.93),
    "latent_sqnr_db": _row("min", 80.0, 40.0, 27.0, 20.0, 17.0),
    "encode_inside_cosine": _COSINE,
    "encode_inside_cosine_worst": _COSINE_WORST,
    "encode_inside_sqnr_db": _SQNR_DB,
    "forecast_inside_cosine": _COSINE,
    "forecast_inside_cosine_worst": _COSINE_WORST,
    "forecast_inside_sqnr_db": _SQNR_DB,
    "rollout_drift": _row("max", 1e-6, 1e-3, 5e-3, 0.02, 0.02),
    # Rounding has no direction and a stale history has: 0.02 was the most of any format (int4).
    "history_age_steps": _row("max", 0.01, 0.05, 0.05, 0.2, 0.2),
    # Swapping an input for another recorded one moves the output by about its own spread.
    "inputs_matter": _row("min", 1e-3, 1e-3, 1e-3, 1e-3, 1e-3),
}
# What a planner must do; `imagine_gate` says what is measured. 0.99 is the bar of INT8 planning.
# Half-way through a search candidates differ by a tenth of what they differed by at first, so the
# same noise costs more ranks. Measured on pusht-nano, ranks wide and narrow: fp16 0.9999 and
# 0.9999, bf16 0.9998 and 0.998, cpu and TensorRT int8 0.999 and 0.995, fp8 0.998 and 0.97; elites
# 1, 0.98, 0.94, 0.92 where cost alone decides, 0.85 in cpu int8 with the hazard; the next mean
# begins 0, 0.006, 0.03 to 0.05 and 0.05 std elsewhere, and 0.2 to 0.3 if it is deaf to the goal.
# Regret is 1 % to either side in every format, fp16 too, because rounding decides between plans
# that cost the same; deaf to the goal 80 % of the gain is lost.
IMAGINE_LIMITS: dict[str, tuple[Direction, dict[str, float]]] = {
    "imagine_rank": _row("min", 0.9999, 0.999, 0.995, 0.99, 0.98),
    "imagine_rank_narrow": _row("min", 0.999, 0.99, 0.98, 0.95, 0.90),
    "imagine_elites": _row("min", 0.99, 0.95, 0.90, 0.80, 0.70),
    # Where costs keep a rank correlation of c, limits in the middle forbid arccos(c) / pi others.
    "imagine_feasible": _row("min", 0.995, 0.985, 0.968, 0.955, 0.936),
    "imagine_first_action": _row("max", 0.01, 0.03, 0.05, 0.10, 0.15),
    "imagine_regret": _row("max", 0.05, 0.05, 0.05, 0.05, 0.05),
}
# Next thing to try; `{block}` ends at the worst tap, `{graph}` and `{other}` are the two graphs.
_KEEP = "the worst tap is after {block}: keep it in float with --keep-float '{block}[./]*'{auto}"
KNOBS = {
    "fp32": "report it: a float32 graph must agree with its model (the worst tap is after {block})",
    "fp16": "the worst tap is after {block}; if values leave float16's range there, compile this "
    "graph in bf16, else in fp32: --precision {graph}=fp32,{other}=fp16",
    "bf16": "the worst tap is after {block}; compile this graph in fp16, which rounds 8 times "
    "finer, or in fp32: --precision {graph}=fp32,{other}=bf16",
    "fp8": f"{_KEEP}, try another --method, or compile this graph in fp16",
    "int8": f"{_KEEP}, try another --method, calibrate with more varied episodes, or compile this "
    "graph in {float}",
    "int4": f"{_KEEP}, or compile this graph in int8 or fp16; nothing is calibrated in int4",
    "nvfp4": f"{_KEEP}, or compile this graph in fp8 or fp16; nothing is calibrated in nvfp4",
}
_CHOSEN = (
    "what was chosen by measurement is not close enough (the worst tap is after {block}); name a "
    "finer precision for each graph, like --precision encode=fp16,forecast=int8, or calibrate with "
    "more varied episodes"
)
_FLOAT = "compile the planners in {float}: --precision {others},imagine={float}"
IMAGINE_KNOBS = {
    "fp32": "report it: a float32 planner must agree with its model",
    "fp16": _FLOAT,
    "bf16": _FLOAT,
    **dict.fromkeys(
        QUANTIZED,
        "with less than half of its products left to quantize it is still too coarse; calibrate "
        f"with more varied episodes, or {_FLOAT}",
    ),
}


def graphs_of(gate: str) -> tuple[str, ...]:
    """Which graphs' precision a gate is about."""
    prefix = gate.split("_", 1)[0]
    if prefix == "latent":
        return ("encode",)
    if prefix == IMAGINE:
        return (IMAGINE,)
    return (prefix,) if prefix in GRAPHS else GRAPHS


def limit_of(gate: str, precision: Mapping[str, str]) -> tuple[Direction, float]:
    """Direction and limit of a gate; where it is about both graphs, by the coarser of the two.

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
    return value >= limit if direction == "min" else value <= limit


def next_knob(family: str, gate: str, block: str) -> str:
    """What to try when `gate` of `family` fails and `block` loses most."""
    named = [part for part in family.split("-") if part in (*PRECISIONS, AUTO)]
    if AUTO in named:
        return _CHOSEN.format(block=block)
    each = dict(zip(GRAPHS, (named[0], named[min(1, len(named) - 1)]), strict=True))
    about = graphs_of(gate)
    if about == (IMAGINE,):
        kind = of_planners({"forecast": named[-1]}, "fp16")
        finer = "fp32" if kind in FLOATS or family.startswith("cpu-") else "fp16"
        others = ",".join(f"{graph}={precision}" for graph, precision in each.items())
        return IMAGINE_KNOBS[kind].format(float=finer, others=others)
    graph = max(about, key=lambda name: PRECISIONS.index(each[name]))
    (other,) = (name for name in GRAPHS if name != graph)
    cpu = family.startswith("cpu-")
    return KNOBS[each[graph]].format(
        block=block,
        graph=graph,
        other=other,
        float="fp32" if cpu else "fp16",
        auto="" if cpu else " (--precision auto finds what to keep)",
    )
