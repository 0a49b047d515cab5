"""Build of the graphs of a family into engines that are proven on this machine.

    parse -> strongly typed build -> precision proof -> parity -> latency -> record

Nothing is kept of an engine whose build fails. Without a GPU TensorRT-RTX still builds ahead of
time; the record then lists the skipped checks, and the store never returns such an engine.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jetsight.bundle.bundle import Bundle
from jetsight.bundle.manifest import Family
from jetsight.engine import Engine
from jetsight.errors import EngineError, UsageError, missing
from jetsight.tensorrt import plan_header
from jetsight.tensorrt.bindings import RTX
from jetsight.tensorrt.builder import onnx_parser, precision_proof, verify
from jetsight.tensorrt.builder import request as units
from jetsight.tensorrt.builder.progress import ProgressLine
from jetsight.tensorrt.builder.request import (
    BuildContext,
    BuildRequest,
    choose_families,
    graphs_of,
    refuse_unfit,
)
from jetsight.tensorrt.builder.timing_cache import TimingCache
from jetsight.tensorrt.fingerprint import Fingerprint
from jetsight.tensorrt.record import BuildRecord, Latency, Parity, Port, Proof

_QUANTIZED = ("int8", "fp8", "int4", "fp4", "nvfp4")
# Imported by name: the runtime must not depend on the compiler.
_TORCH_ROUTE = "jetsight_compile.pipeline.torch_tensorrt"
_AHEAD = "built ahead of time on a machine without a GPU"


@dataclass(frozen=True)
class BuiltEngine:
    """One engine in the store; `reused` if it had been built before."""

    record: BuildRecord
    reused: bool


@dataclass(frozen=True)
class _Compiled:
    """Result of either route."""

    plan: bytes
    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]
    layers: Mapping[str, int]
    quantized: int = 0
    weight_only: int = 0
    renamed: Mapping[str, str] = field(default_factory=dict)


def build_bundle(
    bundle: Bundle, request: BuildRequest, context: BuildContext, progress: ProgressLine
) -> list[BuiltEngine]:
    """Build the requested engines, one after the other.

    Raises:
        UsageError: no such family or graph, or options that contradict each other.
        EngineError: no GPU although one is needed, a graph that TensorRT refuses, or a gate that
            fails; engines built before are kept.
        StorageError: the store cannot be written.
    """
    refuse_unfit(context)
    jobs = [
        (family, graph)
        for family in choose_families(bundle, request.families, context.host)
        for graph in graphs_of(bundle, family, request.graphs)
    ]
    # All jobs are checked before the first long build.
    for family, graph in jobs:
        units.require(family.precision.get(graph, ""), context.host, f"{family.name} {graph}")
    try:
        return [_Job(bundle, request, context, progress, *job).run() for job in jobs]
    finally:
        progress.close()


class _Job:
    """One graph of one family."""

    def __init__(
        self,
        bundle: Bundle,
        request: BuildRequest,
        context: BuildContext,
        progress: ProgressLine,
        family: Family,
        graph: str,
    ) -> None:
        self._bundle, self._request, self._context = bundle, request, context
        self._progress, self._family, self._graph = progress, family, graph
        self._precision = family.precision.get(graph, "unknown")
        self._what = f"{family.name} {graph}"
        self._data = bundle.graph(family.name, graph)
        self._skipped: dict[str, str] = {}
        self._fingerprint = Fingerprint(
            hashlib.sha256(self._data).hexdigest(),
            family.name,
            self._precision,
            request.options,
            context.host,
        )

    def run(self) -> BuiltEngine:
        """Build and prove the engine, unless the store has it."""
        store, key = self._context.store, self._fingerprint.key
        with store.building(key, self._waiting):
            # Under the lock: the build that held it may have made this very engine.
            known = None if self._request.force else store.get(key)
            if known is not None and self._is_enough(known):
                return BuiltEngine(known, reused=True)
            log = store.failure_log(key)
            with _naming(log):
                record, plan = self._proven(log)
            store.add(plan, record, log.read_text(errors="replace") if log.exists() else "")
            store.forget_failure(key)
            return BuiltEngine(record, reused=False)

    def _is_enough(self, record: BuildRecord) -> bool:
        """Return whether the record has every check that is possible here."""
        if self._context.host.gpu is None:
            return True
        compared = record.parity is not None or not self._can_compare
        return compared and (record.latency is not None or not self._request.measure)

    @property
    def _can_compare(self) -> bool:
        return verify.can_compare(self._bundle.golden(), self._graph)

    def _waiting(self, holder: str) -> None:
        self._progress.step(f"{self._what}: waiting for another build (process {holder})")

    def _proven(self, log: Path) -> tuple[BuildRecord, bytes]:
        clock = self._context.clock
        self._progress.step(f"{self._what}: building")
        start = clock.now_ns()
        compiled = self._compiled(log)
        seconds = (clock.now_ns() - start) / 1e9
        library = self._context.library
        # Before the proof, which is the first to deserialize it.
        header = plan_header.check(compiled.plan, library.name, library.version, self._what)
        proof = self._proof(compiled.plan)
        parity, latency = self._run(compiled)
        record = BuildRecord(
            fingerprint=self._fingerprint,
            bundle=self._bundle.manifest.name,
            graph=self._graph,
            built_utc=_now(),
            seconds=seconds,
            plan_bytes=len(compiled.plan),
            plan_sha256=hashlib.sha256(compiled.plan).hexdigest(),
            plan_version=str(header),
            inputs=compiled.inputs,
            outputs=compiled.outputs,
            layers=compiled.layers,
            quantized=compiled.quantized,
            weight_only=compiled.weight_only,
            renamed=compiled.renamed,
            proof=proof,
            parity=parity,
            latency=latency,
            skipped=self._skipped,
        )
        return record, compiled.plan

    def _compiled(self, log: Path) -> _Compiled:
        context, options = self._context, self._request.options
        if options.via != "onnx":
            return self._through_torch(log)
        timing = context.store.timing_file(self._fingerprint.host_key)
        built = onnx_parser.build(
            self._data,
            log,
            library=context.library,
            options=options,
            what=self._what,
            timing=TimingCache(timing, context.library),
            say=self._progress.done,
        )
        # A quantizer may insert nothing without an error (ModelOpt 0.44 in FP8, graphs of MatMul).
        if self._precision in _QUANTIZED and not built.quantized + built.weight_only:
            raise EngineError(
                f"{self._what}: is of {self._precision}, but TensorRT read no product with a "
                "dequantized input from its graph; compile the bundle again: jetsight compile"
            )
        ports = _ports(built.inputs), _ports(built.outputs)
        return _Compiled(built.engine, *ports, built.layers, built.quantized, built.weight_only)

    def _through_torch(self, log: Path) -> _Compiled:
        if self._request.checkpoint is None:
            raise UsageError("--via torch-tensorrt needs the PyTorch model: add --checkpoint CKPT")
        try:
            route: Any = importlib.import_module(_TORCH_ROUTE)
        except ImportError as error:
            raise missing(error, "building through torch-tensorrt") or error from None
        result = route.convert(
            self._request.checkpoint,
            self._bundle.manifest,
            self._family,
            self._graph,
            library=self._context.library,
            options=self._request.options,
            log=log,
            gpu=self._context.host.gpu,
        )
        ports = _ports(result.inputs), _ports(result.outputs)
        return _Compiled(result.plan, *ports, layers={}, renamed=result.renamed)

    def _proof(self, plan: bytes) -> Proof | None:
        if self._context.host.gpu is None:
            self._skipped["proof"] = f"{_AHEAD}; the inspector needs one"
            return None
        self._progress.step(f"{self._what}: proving precision")
        text = precision_proof.inspect(self._context.library, plan)
        try:
            proof = precision_proof.prove(text, self._precision)
        except EngineError as error:
            if self._context.library.name != RTX:
                raise
            self._skipped["proof"] = str(error)  # TensorRT-RTX chooses kernels at run time
            return None
        reason = precision_proof.unproven(proof, ahead=self._context.library.name == RTX)
        if reason is not None:
            self._skipped["proof"] = reason
            return None
        precision_proof.refuse_fallback(proof, self._what)
        return proof

    def _run(self, compiled: _Compiled) -> tuple[Parity | None, Latency | None]:
        """Measure parity, then latency, on one loaded engine."""
        if self._context.host.gpu is None:
            self._skipped.update(parity=_AHEAD, latency=_AHEAD)
            return None, None
        self._progress.step(f"{self._what}: comparing with PyTorch")
        with self._loaded(compiled) as engine:
            parity = latency = None
            if self._can_compare:
                golden = self._bundle.golden()
                parity = verify.parity(engine, golden, self._graph, self._precision, self._what)
            else:
                self._skipped["parity"] = "the bundle has no reference data for this graph"
            if self._request.measure:
                self._progress.step(f"{self._what}: measuring latency")
                latency = verify.latency(engine, self._context.clock, self._context.root)
            else:
                self._skipped["latency"] = "not requested (--no-measure)"
        return parity, latency

    @contextlib.contextmanager
    def _loaded(self, compiled: _Compiled) -> Iterator[Engine]:
        with (
            contextlib.closing(self._context.open_backend()) as backend,
            contextlib.closing(backend.load_plan(compiled.plan, compiled.renamed)) as engine,
        ):
            yield engine


@contextlib.contextmanager
def _naming(log: Path) -> Iterator[None]:
    """Add the path of TensorRT's log to every error of a build."""
    try:
        yield
    except EngineError as error:
        if str(log) in str(error) or not log.exists():
            raise
        raise type(error)(f"{error}; TensorRT's log is in {log}") from error


def _ports(ports: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, Port]:
    return {name: Port(dtype, shape) for name, (dtype, shape) in ports.items()}


def _now() -> str:
    # One fixed width, because the store sorts records by this text.
    now = datetime.datetime.now(datetime.timezone.utc)
    return now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
