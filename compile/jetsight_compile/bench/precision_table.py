"""Cost to build and numerical loss of each TensorRT family, fp32 to nvfp4 side by side.

Every graph is exported, quantized, judged on held-out episodes beside its negative controls, and
compiled by the TensorRT of this machine; TensorRT-RTX needs no GPU for it. A failed gate is a
result here, not an error. Latency is not measured: that needs the device, and `jetsight build`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jetsight.bundle.manifest import Gate
from jetsight.clock import MonotonicClock
from jetsight.errors import UsageError
from jetsight.tensorrt import bindings
from jetsight.tensorrt.builder import onnx_parser
from jetsight_compile.calibration.data import load_episodes
from jetsight_compile.config.targets import TARGETS, FamilyPlan, plan
from jetsight_compile.export.onnx_graph import weighted
from jetsight_compile.pipeline.checks import check_methods
from jetsight_compile.pipeline.family import FamilyBuilder, FamilyGraphs, Options
from jetsight_compile.pipeline.family_passes import export_family, gate_family, quantize_family
from jetsight_compile.validate.metrics import reference
from jetsight_train import checkpoint

Say = Callable[[str], None]


@dataclass(frozen=True)
class PrecisionRow:
    """One graph of one family.

    Attributes:
        family: its family.
        graph: its name.
        opset: ONNX opset.
        onnx_bytes: size of the graph in a bundle.
        build_s: seconds TensorRT took to parse and compile it.
        engine_bytes: size of the engine.
        layers: layers of the parsed network.
        quantize: QuantizeLinear layers in it.
        dequantize: DequantizeLinear layers in it.
        products: matrix products and convolutions with a constant weight.
        quantized: number of products on quantized numbers, weight-only ones included.
        method: calibration method; empty if nothing is quantized.
        tried: output error by calibration method, the chosen one included.
    """

    family: str
    graph: str
    opset: int
    onnx_bytes: int
    build_s: float
    engine_bytes: int
    layers: int
    quantize: int
    dequantize: int
    products: int
    quantized: int
    method: str
    tried: Mapping[str, float] = field(default_factory=dict)


@dataclass
class PrecisionTable:
    """Results of one run.

    Attributes:
        model: name of the model.
        compiler: name and version of TensorRT.
        rows: one per graph.
        gates: every gate of every family.
        left_out: reason by name of a family that was not compiled.
    """

    model: str
    compiler: str
    rows: list[PrecisionRow] = field(default_factory=list)
    gates: list[Gate] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def measure(
    checkpoint_path: Path, data: Path, targets: Sequence[str], methods: Sequence[str], say: Say
) -> PrecisionTable:
    """Export, judge and build every family of `targets`.

    Args:
        checkpoint_path: folder that `jetsight train` wrote.
        data: LeRobot dataset to calibrate with and judge by.
        targets: TensorRT rows of `TARGETS`, each in every precision it runs.
        methods: calibration methods to try.
        say: called with a line when a step begins.

    Raises:
        UsageError: an unknown target, or a method that TensorRT's quantizers lack.
        MissingDependency: TensorRT or ModelOpt is not installed.
        EngineError: TensorRT refuses a graph.
    """
    plans = _plans(targets)
    for family in plans:  # before the model and TensorRT are loaded
        check_methods(family, methods)
    trt = bindings.open_library()
    model, about = checkpoint.load(checkpoint_path)
    episodes = load_episodes(data, model)
    truth = reference(model, episodes.held_out)
    builder = FamilyBuilder(model, episodes, Options(methods), say)
    results = PrecisionTable(about.name, f"{trt.name} {'.'.join(map(str, trt.version))}")
    for family in plans:
        try:
            compiled = quantize_family(builder, export_family(builder, family))
        except UsageError as error:
            results.left_out[family.name] = str(error)
            continue
        say(f"gate {family.name}")
        results.gates += gate_family(compiled, truth)
        results.rows += _built(compiled, trt, say)
    return results


def _plans(targets: Sequence[str]) -> list[FamilyPlan]:
    """Plan every family of the targets, each once, from exact to coarse."""
    for name in targets:
        if name not in TARGETS or TARGETS[name].prefix == "cpu":
            known = ", ".join(t.name for t in TARGETS.values() if t.prefix != "cpu")
            raise UsageError(f"{name!r} is no TensorRT target; choose one or more of {known}")
    plans = {p.name: p for name in targets for p in plan([name], TARGETS[name].allowed)}
    return list(plans.values())


def _built(
    compiled: FamilyGraphs, trt: bindings.TensorRtModule, say: Say
) -> Iterator[PrecisionRow]:
    clock = MonotonicClock()
    for name, graph in compiled.graphs.items():
        say(f"build {name} of {compiled.plan.name}")
        data = graph.SerializeToString()
        start_ns = clock.now_ns()
        built = onnx_parser.build(data, library=trt, what=f"{name} of {compiled.plan.name}")
        build_s = (clock.now_ns() - start_ns) / 1e9
        constants = {tensor.name for tensor in compiled.exact[name].graph.initializer}
        products = [
            n for n in weighted(compiled.exact[name]) if constants.intersection(n.input[:2])
        ]
        quantized = compiled.quantized.get(name)
        yield PrecisionRow(
            family=compiled.plan.name,
            graph=name,
            opset=graph.opset_import[0].version,
            onnx_bytes=len(data),
            build_s=build_s,
            engine_bytes=len(built.engine),
            layers=built.layers.total(),
            quantize=built.layers["QUANTIZE"],
            dequantize=built.layers["DEQUANTIZE"],
            products=len(products),
            quantized=built.quantized + built.weight_only,
            method=quantized.method if quantized else "",
            tried=quantized.tried if quantized else {},
        )


def lines(results: PrecisionTable) -> Iterator[str]:
    """Format the page for a terminal."""
    from jetsight.cli.table import human_bytes, table

    yield f"{results.model} compiled by {results.compiler}; nothing ran on a GPU"
    yield ""
    head = ("family", "graph", "ONNX", "build s", "engine", "layers", "Q", "DQ", "quantized", "by")
    rows = (
        (
            *(r.family, r.graph, human_bytes(r.onnx_bytes)),
            *(f"{r.build_s:.1f}", human_bytes(r.engine_bytes)),
            *map(str, (r.layers, r.quantize, r.dequantize)),
            *(f"{r.quantized} of {r.products}", r.method or "-"),
        )
        for r in results.rows
    )
    yield from table(head, rows)
    yield ""
    yield from _calibrations(results)
    yield ""
    yield from _ladder(results)
    for name in dict.fromkeys(gate.name for gate in results.gates):
        yield ""
        yield from _gate_table(name, [gate for gate in results.gates if gate.name == name])
    for family, reason in results.left_out.items():
        yield ""
        yield f"{family} was left out: {reason}"
    failed = sorted({gate.family for gate in results.gates if not gate.passed})
    passed = len({gate.family for gate in results.gates}) - len(failed)
    yield ""
    yield f"{passed} families pass every gate; fail: {', '.join(failed) or 'none'}"


def _calibrations(results: PrecisionTable) -> Iterator[str]:
    """List the output error of every calibration, relative to the outputs' variance."""
    from jetsight.cli.table import table

    rows = [row for row in results.rows if len(row.tried) > 1]
    names = list(dict.fromkeys(name for row in rows for name in row.tried))
    marked = [
        {n: f"{error:.2e}{' *' if n == row.method else ''}" for n, error in row.tried.items()}
        for row in rows
    ]
    cells = (
        (f"{row.family} {row.graph}", *(errors.get(name, "-") for name in names))
        for row, errors in zip(rows, marked, strict=True)
    )
    return table(("error by calibration", *names), cells)


def _ladder(results: PrecisionTable) -> Iterator[str]:
    """List the loss of each family on one line, without limits and controls."""
    from jetsight.cli.table import table

    columns = {
        "latent cosine": "latent_cosine",
        "worst 1 %": "latent_cosine_worst",
        "latent dB": "latent_sqnr_db",
        "inside encode dB": "encode_inside_sqnr_db",
        "inside forecast dB": "forecast_inside_sqnr_db",
        "rollout drift": "rollout_drift",
    }
    rows = []
    for family in dict.fromkeys(gate.family for gate in results.gates):
        gates = {gate.name: gate for gate in results.gates if gate.family == family}
        passed = sum(gate.passed for gate in gates.values())
        failed = sum(gate.control_failed for gate in gates.values())
        rows.append(
            (
                family,
                *(f"{gates[name].value:.4g}" for name in columns.values()),
                f"{passed} of {len(gates)} pass",
                f"{failed} of {len(gates)} faults detected",
            )
        )
    return table(("family", *columns, "gates", "controls"), rows)


def _gate_table(name: str, gates: Sequence[Gate]) -> Iterator[str]:
    from jetsight.cli.table import table

    sign = ">=" if gates[0].direction == "min" else "<="
    rows = (
        (
            g.family,
            f"{g.value:.6g}",
            f"{sign} {g.limit:g}",
            "passed" if g.passed else "FAILED",
            f"{g.control_value:.4g}, fault {'detected' if g.control_failed else 'NOT DETECTED'}",
        )
        for g in gates
    )
    return table((name, "value", "limit", "verdict", "negative control"), rows)
