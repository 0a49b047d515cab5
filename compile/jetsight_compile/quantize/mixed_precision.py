"""`--precision auto`: the precision of each graph, block by block, by measurement.

Every precision that a target runs is tried. Where a quantization loses too much, blocks go back to
float (`float_fallback`) until the latents and the planner's choices are good enough or less than
half of the work is left to quantize. Of what passes, the one with the lowest floor is chosen: the
time that the smallest module of the target needs at least, for reading the weights and for the
products, whichever is longer. Only a device shows what it really takes, so `jetsight build`
measures it there.

The search uses calibration episodes only; the gates judge its result on held-out ones.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from jetsight.errors import EngineError, GateError, UsageError
from jetsight.machine.jetson_modules import MODULES, Module
from jetsight_compile.config.precision import QUANTIZED
from jetsight_compile.export.onnx_graph import quantizable, work
from jetsight_compile.quantize import qdq, schemes
from jetsight_compile.quantize.float_fallback import BlockFallback
from jetsight_compile.quantize.quantized import (
    Quantized,
    Sample,
    outputs,
    parted,
    relative_error,
)
from jetsight_compile.validate.plan_agreement import Agreement, PlannerQuery, agreement, costs

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
        graph: its name.
        precision: of its quantized layers, or of all.
        kept: blocks that went back to float.
        share: part of the multiply-accumulates in that precision.
        sqnr_db: of the outputs against the float model's.
        plan: agreement of a planner's choices; None for a graph that plans nothing.
        floor_ms: least time on the smallest module of the target.
        module: that module's name.
        passed: True if it is good enough.
        chosen: True for the trial that was taken.
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
    """The precision of one graph, and everything that was tried.

    Attributes:
        precision: the precision chosen.
        made: the quantized float32 graph; None where a float format was chosen.
        trials: all rows; the chosen one says so.
    """

    precision: str
    made: Quantized | None
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
        query: what a planner reads from this graph; None if it plans nothing.
        module: whose floor decides.
        say: is called with a line for each trial.
    """

    graph: str
    export: Export
    allowed: Sequence[str]
    base: str
    samples: Sequence[Sample]
    methods: Sequence[str]
    keep_float: Sequence[str]
    query: PlannerQuery | None
    module: Module
    say: Callable[[str], None]


def choose(task: Task) -> PrecisionChoice:
    """Try every precision of a task and take the one with the lowest floor that passes.

    Raises:
        GateError: not even a float format passes.
    """
    judge = _Judge(task)
    quantizable(judge.exact, task.keep_float)  # a pattern that fits nothing is the user's mistake
    found: list[tuple[PrecisionTrial, Quantized | None]] = []
    for precision in task.allowed:
        task.say(f"try {task.graph} in {precision}")
        if precision in QUANTIZED:
            found += _quantized(task, judge, precision)
        else:
            found.append((judge.trial(precision, task.export(precision)), None))
    good = [pair for pair in found if pair[0].passed]
    if not good:
        raise GateError(
            f"no precision of {', '.join(task.allowed)} keeps graph {task.graph!r} close enough to "
            "its float model; train longer, or compile this target in fp32"
        )
    # fp8 and int8, or fp16 and bf16, have equal floors: there the more exact one wins.
    chosen, made = min(good, key=lambda pair: (pair[0].floor_ms, -pair[0].sqnr_db))
    rows = (dataclasses.replace(trial, chosen=trial is chosen) for trial, _ in found)
    return PrecisionChoice(chosen.precision, made, tuple(rows))


def smallest_module(targets: Collection[str]) -> Module:
    """Return the module of least bandwidth among these targets; the largest for a PC's GPU."""
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
        # 4-bit weights are dequantized and multiplied in the float format.
        fast = kind in ("int8", "fp8")
        rate = module.int8_tops if fast else module.fp16_tflops / (2 if kind == "fp32" else 1)
        seconds += 2 * products / (rate * 1e12)
        # Per use, so an unrolled forecast counts its weights at every step.
        size += weights.get(inputs[name], 0) * _BYTES[kind]
    return 1e3 * max(seconds, size / (module.bandwidth_gb_s * 1e9))


class _Judge:
    """Measures graphs of one task against its float32 graph."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.exact = task.export("fp32")
        _, self.judging = parted(task.samples)
        self.expected = outputs(self.exact, self.judging)
        self._exact_costs = self._plan_costs(self.exact)

    def trial(
        self, precision: str, model: onnx.ModelProto, made: Quantized | None = None
    ) -> PrecisionTrial:
        """Measure a graph.

        Args:
            precision: of the graph, or of its quantized layers.
            model: the graph.
            made: its quantization; None for a float format.
        """
        task = self.task
        error = relative_error(outputs(model, self.judging), self.expected)
        # 200 dB stands for no error at all, as in the gates.
        sqnr_db = float(-10.0 * np.log10(max(error, 1e-20)))
        plan = (
            None
            if self._exact_costs is None
            else agreement(self._plan_costs(model), self._exact_costs)
        )
        layers, base = (made.layers, task.base) if made else ((), precision)
        return PrecisionTrial(
            graph=task.graph,
            precision=precision,
            kept=made.kept if made else (),
            share=made.share if made else 1.0,
            sqnr_db=sqnr_db,
            plan=plan,
            floor_ms=floor_ms(self.exact, precision, layers, base, task.module),
            module=task.module.name,
            passed=sqnr_db >= LEAST_DB and (plan is None or plan.rank >= LEAST_RANK),
        )

    def _plan_costs(self, model: onnx.ModelProto) -> Any:
        query = self.task.query
        return None if query is None else costs(outputs(model, query.samples), query)


def _quantized(
    task: Task, judge: _Judge, precision: str
) -> Iterator[tuple[PrecisionTrial, Quantized | None]]:
    """One precision, then the same with blocks back in float until it passes."""
    request = schemes.QuantizeRequest(
        judge.exact, precision, task.samples, task.methods, task.keep_float
    )
    try:
        whole = schemes.quantize(request, "trt")  # a CPU has nothing to search
    except (UsageError, EngineError) as error:
        # No layer has a form in it, or the quantizer found none worth it: another one is chosen.
        task.say(f"{task.graph} cannot be {precision}: {error}")
        return
    fewer = BlockFallback(whole, judge.exact, task.samples)
    for made in itertools.chain([whole], iter(fewer.next, None)):
        trial = judge.trial(precision, made.model, made)
        yield trial, made
        # Every later one quantizes less and so costs more.
        if trial.passed:
            return
