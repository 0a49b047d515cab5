"""`jetsight build`: every graph of a family becomes an engine that was proven on this machine.

    parse -> strongly typed build -> precision proof -> parity -> latency -> record

A step that fails says why and what to try next, and nothing of that engine is kept. Without a GPU
TensorRT-RTX still builds ahead of time; what could not be checked then is in the record, with the
reason, and the store never hands out such an engine.
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
from jetsight.errors import EngineError, UsageError
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
from jetsight.tensorrt.record import BuildRecord, Port, Proof

_QUANTIZED = ("int8", "fp8", "int4", "fp4", "nvfp4")
_TORCH_ROUTE = "jetsight_compile.pipeline.torch_tensorrt"  # by name: the runtime never imports it
_AHEAD = "built ahead of time on a machine without a GPU"


@dataclass(frozen=True)
class BuiltEngine:
    """One engine that is now in the store; `reused` if it was there before."""

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
    bundle: Bundle, request: BuildRequest, workshop: BuildContext, progress: ProgressLine
) -> list[BuiltEngine]:
    """Build what `request` asks for, one engine after the other.

    Raises:
        UsageError: no such family or graph, or options that do not go together.
        EngineError: no GPU where one is needed, a graph that TensorRT refuses, or a gate that
            fails; what was made before it is kept.
        StorageError: the store cannot be written.
    """
    refuse_unfit(workshop)
    jobs = [
        (family, graph)
        for family in choose_families(bundle, request.families, workshop.host)
        for graph in graphs_of(bundle, family, request.graphs)
    ]
    for family, graph in jobs:
        units.require(family.precision.get(graph, ""), workshop.host, f"{family.name} {graph}")
    try:
        return [_Job(bundle, request, workshop, progress, *job).run() for job in jobs]
    finally:
        progress.close()


class _Job:
    """One graph of one family."""

    def __init__(
        self,
        bundle: Bundle,
        request: BuildRequest,
        workshop: BuildContext,
        progress: ProgressLine,
        family: Family,
        graph: str,
    ) -> None:
        self._bundle, self._request, self._workshop = bundle, request, workshop
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
            workshop.host,
        )

    def run(self) -> BuiltEngine:
        """Build and prove, unless the same engine is there already."""
        store, key = self._workshop.store, self._fingerprint.key
        with store.building(key, self._waiting):
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
        """Return whether everything that can be checked here was."""
        if self._workshop.host.gpu is None:
            return True
        compared = record.parity is not None or not self._can_compare
        return compared and (record.latency is not None or not self._request.measure)

    @property
    def _can_compare(self) -> bool:
        return verify.can_compare(self._bundle.golden(), self._graph)

    def _waiting(self, holder: str) -> None:
        self._progress.step(f"{self._what}: waiting for another build (process {holder})")

    def _proven(self, log: Path) -> tuple[BuildRecord, bytes]:
        clock = self._workshop.clock
        self._progress.step(f"{self._what}: building")
        start = clock.now_ns()
        made = self._compiled(log)
        seconds = (clock.now_ns() - start) / 1e9
        header = plan_header.check_for(made.plan, self._workshop.library, self._what)
        proof = self._proof(made.plan)
        parity, latency = self._run(made)
        record = BuildRecord(
            fingerprint=self._fingerprint,
            bundle=self._bundle.manifest.name,
            graph=self._graph,
            built_utc=_now(),
            seconds=seconds,
            plan_bytes=len(made.plan),
            plan_sha256=hashlib.sha256(made.plan).hexdigest(),
            plan_version=str(header),
            inputs=made.inputs,
            outputs=made.outputs,
            layers=made.layers,
            quantized=made.quantized,
            weight_only=made.weight_only,
            renamed=made.renamed,
            proof=proof,
            parity=parity,
            latency=latency,
            skipped=self._skipped,
        )
        return record, made.plan

    def _compiled(self, log: Path) -> _Compiled:
        workshop, options = self._workshop, self._request.options
        if options.via != "onnx":
            return self._through_torch(log)
        timing = workshop.store.timing_file(self._fingerprint.host_key)
        built = onnx_parser.build(
            self._data,
            log,
            library=workshop.library,
            options=options,
            what=self._what,
            timing=TimingCache(timing, workshop.library),
            say=self._progress.done,
        )
        if self._precision in _QUANTIZED and not built.quantized + built.weight_only:
            raise EngineError(
                f"{self._what}: asks for {self._precision}, but TensorRT read no product with a "
                "dequantized input from its graph; compile the bundle again: jetsight compile"
            )
        return _Compiled(
            built.engine,
            _ports(built.inputs),
            _ports(built.outputs),
            built.layers,
            built.quantized,
            built.weight_only,
        )

    def _through_torch(self, log: Path) -> _Compiled:
        if self._request.checkpoint is None:
            raise UsageError("--via torch-tensorrt needs the PyTorch model: add --checkpoint CKPT")
        try:
            route: Any = importlib.import_module(_TORCH_ROUTE)
        except ImportError as error:
            from jetsight.errors import missing

            raise missing(error, "building through torch-tensorrt") or error from None
        result = route.convert(
            self._request.checkpoint,
            self._bundle.manifest,
            self._family,
            self._graph,
            library=self._workshop.library,
            options=self._request.options,
            log=log,
            gpu=self._workshop.host.gpu,
        )
        return _Compiled(
            result.plan,
            _ports(result.inputs),
            _ports(result.outputs),
            {},
            renamed=result.renamed,
        )

    def _proof(self, plan: bytes) -> Proof | None:
        if self._workshop.host.gpu is None:
            self._skipped["proof"] = f"{_AHEAD}; the inspector needs one"
            return None
        self._progress.step(f"{self._what}: proving precision")
        text = precision_proof.inspect(self._workshop.library, plan)
        try:
            proof = precision_proof.prove(text, self._precision)
        except EngineError as error:
            if self._workshop.library.name != RTX:
                raise
            self._skipped["proof"] = str(error)  # its kernels are only chosen at run time
            return None
        reason = precision_proof.unproven(proof, ahead=self._workshop.library.name == RTX)
        if reason is not None:
            self._skipped["proof"] = reason
            return None
        precision_proof.refuse_fallback(proof, self._what)
        return proof

    def _run(self, made: _Compiled) -> tuple[Any, Any]:
        """Parity, then latency, on one loaded engine."""
        if self._workshop.host.gpu is None:
            self._skipped.update(parity=_AHEAD, latency=_AHEAD)
            return None, None
        self._progress.step(f"{self._what}: comparing with PyTorch")
        with self._loaded(made) as engine:
            parity = latency = None
            if self._can_compare:
                golden = self._bundle.golden()
                parity = verify.parity(engine, golden, self._graph, self._precision, self._what)
            else:
                self._skipped["parity"] = "the bundle has no reference data for this graph"
            if self._request.measure:
                self._progress.step(f"{self._what}: measuring latency")
                latency = verify.latency(engine, self._workshop.clock, self._workshop.root)
            else:
                self._skipped["latency"] = "not asked for (--no-measure)"
        return parity, latency

    @contextlib.contextmanager
    def _loaded(self, made: _Compiled) -> Iterator[Engine]:
        backend = self._workshop.open_backend()
        try:
            engine = backend.load_plan(made.plan, made.renamed)
            try:
                yield engine
            finally:
                engine.close()
        finally:
            backend.close()


@contextlib.contextmanager
def _naming(log: Path) -> Iterator[None]:
    """Let every failure of a build say where TensorRT's log is."""
    try:
        yield
    except EngineError as error:
        if str(log) in str(error) or not log.exists():
            raise
        raise type(error)(f"{error}; TensorRT's log is in {log}") from error


def _ports(ports: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, Port]:
    return {name: Port(dtype, shape) for name, (dtype, shape) in ports.items()}


def _now() -> str:
    now = datetime.datetime.now(datetime.timezone.utc)
    return now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
