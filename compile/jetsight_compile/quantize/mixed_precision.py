"""`--precision auto`: which precision each graph gets, block by block, by measurement.

Every precision a target runs is tried. Where a quantization loses too much, the block whose return
to float helps most is given back, then the next, until the latents and the planner's choices are
good enough or less than half of the work is left to quantize. Of what passes, the one with the
lowest floor wins: the time that the smallest module of the target needs at least, for reading the
weights and for the products, whichever is longer. Only a device can say what it really takes, so
`jetsight build` measures it there.

Nothing here sees held-out episodes; the gate judges the result on those.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from jetsight.errors import EngineError, GateError, UsageError
from jetsight_compile.config.hardware import MODULES, Module
from jetsight_compile.config.precision import QUANTIZED, WEIGHT_ONLY
from jetsight_compile.export.onnx_graph import block_of, quantizable, share, work
from jetsight_compile.quantize import qdq, schemes
from jetsight_compile.validate.plan_agreement import Agreement, PlannerQuery, agreement, costs

# A quantization that keeps less than this is not worth its reformats.
FEWEST_SHARE = 0.5
# What must be reached on calibration episodes: the gate's own int8 limits for the latents
# (20 dB) and for drift, with 2 dB of room for other episodes, and the planner's bar.
LEAST_DB, LEAST_RANK = 22.0, 0.99
# With the scales of the groups, in float16 and in FP8.
_FOUR_BITS = {"int4": 0.5 + 2 / qdq.GROUP["int4"], "nvfp4": 0.5 + 1 / qdq.GROUP["nvfp4"]}
_BYTES = {"fp32": 4.0, "fp16": 2.0, "bf16": 2.0, "fp8": 1.0, "int8": 1.0, **_FOUR_BITS}
Export = Callable[[str], onnx.ModelProto]


@dataclass(frozen=True)
class PrecisionTrial:
    """One row of the trade-off table.

    Attributes:
        graph: which graph.
        precision: of its quantized layers, or of all.
        kept: blocks that went back to float.
        share: part of the multiply-accumulates in that precision.
        sqnr_db: of the outputs against the float model's.
        plan: agreement of a planner's choices; None for a graph that plans nothing.
        floor_ms: least time on the smallest module of the target.
        module: that module's name.
        passed: whether it is good enough.
        chosen: whether it is the one.
    """

    graph: str
    precision: str
    kept: tuple[str, ...]
    share: float
    sqnr_db: float
    plan: Agreement | None
    floor_ms: float
    module: str
    passed: bool
    chosen: bool = False


@dataclass(frozen=True)
class PrecisionChoice:
    """What was chosen for one graph, and everything that was tried.

    Attributes:
        precision: the precision chosen.
        made: the quantized float32 graph; None where a float format was chosen.
        trials: all rows; the chosen one says so.
    """

    precision: str
    made: schemes.Quantized | None
    trials: tuple[PrecisionTrial, ...]


@dataclass(frozen=True)
class Task:
    """One graph to search for.

    Attributes:
        graph: its name.
        export: the graph in a float format.
        allowed: precisions to try.
        base: float format of what is not quantized.
        samples: calibration inputs.
        methods: calibration methods to try.
        keep_float: patterns of layers that stay float whatever is tried.
        asked: what a planner asks of this graph; None if it plans nothing.
        module: whose floor decides.
        say: told about each trial.
    """

    graph: str
    export: Export
    allowed: Sequence[str]
    base: str
    samples: Sequence[schemes.Sample]
    methods: Sequence[str]
    keep_float: Sequence[str]
    asked: PlannerQuery | None
    module: Module
    say: Callable[[str], None]


def choose(task: Task) -> PrecisionChoice:
    """Try every precision of a task and take the one with the lowest floor that passes.

    Raises:
        GateError: not even a float format passes.
    """
    judge = _Judge(task)
    quantizable(judge.exact, task.keep_float)  # a pattern that fits nothing is the user's mistake
    found: list[tuple[PrecisionTrial, schemes.Quantized | None]] = []
    for precision in task.allowed:
        task.say(f"try {task.graph} in {precision}")
        if precision in QUANTIZED:
            found += _quantized(task, judge, precision)
        else:
            found.append((judge.trial(precision, task.export(precision), 1.0, ()), None))
    good = [pair for pair in found if pair[0].passed]
    if not good:
        raise GateError(
            f"no precision of {', '.join(task.allowed)} keeps graph {task.graph!r} close enough to "
            "its float model; train longer, or compile this target in fp32"
        )
    chosen, made = min(good, key=lambda pair: (pair[0].floor_ms, -pair[0].sqnr_db))
    rows = (dataclasses.replace(trial, chosen=trial is chosen) for trial, _ in found)
    return PrecisionChoice(chosen.precision, made, tuple(rows))


def smallest_module(targets: Collection[str]) -> Module:
    """The module with the least bandwidth that these targets serve; the largest for a PC's GPU."""
    served = [module for module in MODULES if set(module.targets) & set(targets)]
    return min(served, key=lambda m: (m.bandwidth_gb_s, m.int8_tops)) if served else MODULES[-1]


def floor_ms(
    graph: onnx.ModelProto, precision: str, layers: Collection[str], base: str, module: Module
) -> float:
    """Least time for one run: weights read once per use, or products, whichever takes longer.

    Args:
        graph: the float32 graph.
        precision: of `layers`.
        layers: names of the layers in that precision; the rest is in `base`.
        base: float format of the rest.
        module: whose rates count.
    """
    weights = {t.name: int(np.prod(t.dims)) for t in graph.graph.initializer}
    inputs = {node.name: node.input[1] for node in graph.graph.node if len(node.input) > 1}
    seconds, size = 0.0, 0.0
    for name, products in work(graph).items():
        kind = precision if name in layers else base
        fast = kind in ("int8", "fp8")
        rate = module.int8_tops if fast else module.fp16_tflops / (2 if kind == "fp32" else 1)
        seconds += 2 * products / (rate * 1e12)
        size += weights.get(inputs[name], 0) * _BYTES[kind]
    return 1e3 * max(seconds, size / (module.bandwidth_gb_s * 1e9))


class _Judge:
    """Measures graphs of one task against its float32 graph."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.exact = task.export("fp32")
        _, self.judging = schemes.parted(task.samples)
        self.expected = schemes.outputs(self.exact, self.judging)
        self._costs = self._asked(self.exact)

    def trial(
        self,
        precision: str,
        model: onnx.ModelProto,
        part: float,
        kept: tuple[str, ...],
        layers: Collection[str] = (),
    ) -> PrecisionTrial:
        error = schemes.relative_error(schemes.outputs(model, self.judging), self.expected)
        sqnr_db = float(-10.0 * np.log10(max(error, 1e-20)))
        plan = None if self._costs is None else agreement(self._asked(model), self._costs)
        base = self.task.base if precision in QUANTIZED else precision
        floor = floor_ms(self.exact, precision, layers, base, self.task.module)
        passed = sqnr_db >= LEAST_DB and (plan is None or plan.rank >= LEAST_RANK)
        module = self.task.module.name
        return PrecisionTrial(
            self.task.graph, precision, kept, part, sqnr_db, plan, floor, module, passed
        )

    def most_harmful(self, recipe: schemes.Recipe) -> list[str]:
        """Blocks whose return to float helps most, first."""
        return schemes.most_harmful(self.exact, recipe, self.judging, self.expected)

    def _asked(self, model: onnx.ModelProto) -> Any:
        asked = self.task.asked
        return None if asked is None else costs(schemes.outputs(model, asked.samples), asked)


def _quantized(
    task: Task, judge: _Judge, precision: str
) -> list[tuple[PrecisionTrial, schemes.Quantized | None]]:
    """One precision, then the same with blocks given back to float until it passes."""
    try:
        whole = _make(task, judge.exact, precision)
    except (UsageError, EngineError) as error:
        # No layer has a form in it, or the quantizer found none worth it: another one is chosen.
        task.say(f"{task.graph} cannot be {precision}: {error}")
        return []
    if whole.recipe is None:
        return []
    trial = judge.trial(precision, whole.model, whole.share, (), whole.layers)
    found: list[tuple[PrecisionTrial, schemes.Quantized | None]] = [(trial, whole)]
    kept: tuple[str, ...] = ()
    for block in [] if trial.passed else judge.most_harmful(whole.recipe):
        kept = (*kept, block)
        left = tuple(name for name in whole.layers if block_of(name) not in kept)
        if share(judge.exact, left) < FEWEST_SHARE:
            break
        made = schemes.restore_float(whole, judge.exact, kept)
        trial = judge.trial(precision, made.model, made.share, kept, left)
        found.append((trial, made))
        if trial.passed:
            break
    return found


def _make(task: Task, exact: onnx.ModelProto, precision: str) -> schemes.Quantized:
    keep = task.keep_float
    if precision not in WEIGHT_ONLY:
        return schemes.tensorrt(
            exact, precision, task.samples, methods=task.methods, keep_float=keep
        )
    return schemes.weight_only(exact, precision, task.samples, keep_float=keep)
