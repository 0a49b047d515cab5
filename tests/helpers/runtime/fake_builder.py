"""A TensorRT that builds what a test says: plans, log lines, parser errors, inspector JSON."""

from __future__ import annotations

import enum
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from helpers.runtime.engine_factory import make_plan
from jetsight.tensorrt.bindings import TensorRtModule
from jetsight.testing import FakeArray


class Severity(enum.Enum):
    """TensorRT's own names."""

    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class ILogger:
    """Base of every logger."""

    ERROR, INTERNAL_ERROR = Severity.ERROR, Severity.INTERNAL_ERROR


class FakeTensorRT:
    """What `import tensorrt` gives, scripted.

    Args:
        version: what it calls itself and writes into its plans.
        plan: bytes of every engine; None for a build that fails.
        says: severity and text of what it logs while it builds.
        parser_errors: node, operator and text of what the parser refuses.
        inspector: JSON of the engine inspector.
        raises: what the builder's constructor raises, if anything.
        during: called in the middle of a build.
        quantized: whether the parsed network has Q/DQ.
    """

    def __init__(
        self,
        version: tuple[int, int, int, int] = (10, 3, 0, 26),
        *,
        plan: bytes | None = b"",
        says: Sequence[tuple[str, str]] = (),
        parser_errors: Sequence[tuple[str, str, str]] = (),
        inspector: str = '{"Layers": []}',
        raises: Exception | None = None,
        during: Callable[[Any], None] | None = None,
        quantized: bool = False,
    ) -> None:
        self.__version__ = ".".join(map(str, version))
        self.plan = make_plan(version) if plan == b"" else plan
        self.says, self.parser_errors, self.raises = says, parser_errors, raises
        self.inspector, self.during, self.quantized = inspector, during, quantized
        self.flags: list[int] = []
        self.configs: list[Any] = []
        self.deserialized: list[bytes] = []
        self.ILogger = ILogger
        self.uint8, self.float32, self.float16 = "u8", "f32", "f16"
        self.NetworkDefinitionCreationFlag = types.SimpleNamespace(STRONGLY_TYPED=1)
        self.MemoryPoolType = types.SimpleNamespace(WORKSPACE="workspace")
        self.ProfilingVerbosity = types.SimpleNamespace(DETAILED="detailed")
        self.LayerInformationFormat = types.SimpleNamespace(JSON="json")
        self.IProgressMonitor = type("IProgressMonitor", (), {"__init__": lambda self: None})

    def Builder(self, logger: Any) -> Any:
        if self.raises is not None:
            raise self.raises

        def network(flags: int) -> Any:
            self.flags.append(flags)
            return FakeNetwork(self.quantized)

        def config() -> FakeConfig:
            self.configs.append(FakeConfig())
            return self.configs[-1]

        def build(network: Any, config: FakeConfig) -> bytes | None:
            for severity, text in self.says:
                logger.log(Severity[severity], text)
            if self.during is not None:
                self.during(config)
            config.measure()
            return self.plan

        return types.SimpleNamespace(
            create_network=network, create_builder_config=config, build_serialized_network=build
        )

    def OnnxParser(self, network: Any, logger: Any) -> Any:
        errors = [
            types.SimpleNamespace(
                node_name=lambda n=name: n,
                node_operator=lambda o=operator: o,
                desc=lambda t=text: t,
            )
            for name, operator, text in self.parser_errors
        ]
        return types.SimpleNamespace(
            parse=lambda data: not errors, num_errors=len(errors), get_error=errors.__getitem__
        )

    def Runtime(self, logger: Any) -> Any:
        def deserialize(plan: bytes) -> Any:
            self.deserialized.append(plan)
            inspector = types.SimpleNamespace(get_engine_information=lambda form: self.inspector)
            return types.SimpleNamespace(create_engine_inspector=lambda: inspector)

        return types.SimpleNamespace(deserialize_cuda_engine=deserialize)

    def library(self) -> TensorRtModule:
        """This module, as the code under test takes it."""
        numbers = tuple(int(n) for n in self.__version__.split("."))
        name = "tensorrt" if numbers[0] >= 8 else "tensorrt_rtx"
        return TensorRtModule(self, name, numbers)  # type: ignore[arg-type]


class FakeNetwork:
    """A parsed network of one product, with or without dequantized inputs."""

    num_inputs = num_outputs = 1

    def __init__(self, quantized: bool) -> None:
        kinds = ["DEQUANTIZE", "MATRIX_MULTIPLY"] if quantized else ["MATRIX_MULTIPLY"]
        self._layers = [
            types.SimpleNamespace(
                type=types.SimpleNamespace(name=kind),
                num_inputs=2,
                num_outputs=1,
                get_input=lambda i: types.SimpleNamespace(name="from DEQUANTIZE"),
                get_output=lambda i, kind=kind: types.SimpleNamespace(name=f"from {kind}"),
            )
            for kind in kinds
        ]
        self.num_layers = len(kinds)

    def get_layer(self, index: int) -> Any:
        return self._layers[index]

    def get_input(self, index: int) -> Any:
        return types.SimpleNamespace(name="frame_hwc_u8", dtype="u8", shape=(8, 12, 3))

    def get_output(self, index: int) -> Any:
        return types.SimpleNamespace(name="z", dtype="f32", shape=(4,))


class FakeCache:
    """A timing cache: a set of lines."""

    def __init__(self, data: bytes) -> None:
        if data and not data.startswith(b"cache"):
            raise RuntimeError("not a timing cache")
        self.lines = set(data.split(b"\n")[1:])

    def combine(self, other: FakeCache, ignore_mismatch: bool) -> bool:
        self.lines |= other.lines
        return True

    def serialize(self) -> bytes:
        return b"\n".join([b"cache", *sorted(self.lines)])


class FakeConfig:
    """A builder config that remembers what was set; a build adds one measured kernel."""

    def __init__(self) -> None:
        self.pools: dict[str, int] = {}
        self.builder_optimization_level = 3
        self.profiling_verbosity = "names"
        self.progress_monitor: Any = None
        self.cache: FakeCache | None = None
        self.measures = b"kernel"

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        self.pools[pool] = size

    def create_timing_cache(self, data: bytes) -> FakeCache:
        return FakeCache(data)

    def set_timing_cache(self, cache: FakeCache, ignore_mismatch: bool) -> bool:
        self.cache = cache
        return True

    def get_timing_cache(self) -> FakeCache | None:
        return self.cache

    def measure(self) -> None:
        if self.cache is not None:
            self.cache.lines.add(self.measures)


class FakePlanBackend:
    """Loads any plan into an engine that returns what a test says.

    Args:
        golden: reference data; an output is the one that belongs to the input it was given.
        spoil: added to the first number of every output.
        output: `"z"` or `"z_future"`, which tells the graph.
        called: the engine's own name for that output.
        on_run: called at every run, e.g. to move a clock.
    """

    def __init__(
        self,
        golden: dict[str, Any],
        *,
        spoil: float = 0.0,
        output: str = "z",
        called: str | None = None,
        on_run: Callable[[], None] | None = None,
    ) -> None:
        self.golden, self.spoil, self.on_run = golden, spoil, on_run
        self.output, self.called = output, called or output
        self.loaded: list[bytes] = []
        self.open = 0

    def load_plan(self, plan: bytes, renamed: Mapping[str, str] | None = None) -> Any:
        self.loaded.append(plan)
        self.open += 1
        return _Engine(self, (renamed or {}).get(self.called, self.called))

    def close(self) -> None:
        assert self.open == 0, "an engine was left open"


class _Engine:
    """Answers with the golden output that belongs to the golden input it was given."""

    def __init__(self, backend: FakePlanBackend, called: str) -> None:
        self._backend, self._called, golden = backend, called, backend.golden
        names = {"z": ["frame_hwc_u8"], "z_future": ["z_hist", "a_hist", "actions"]}
        self._names = names[backend.output]
        self.inputs = {n: FakeArray(golden[n][0].shape, golden[n].dtype) for n in self._names}
        row = golden[backend.output][0]
        self.outputs = {called: FakeArray(row.shape, row.dtype)}

    def bind(self, name: str, array: Any) -> None:
        raise NotImplementedError

    def run(self) -> None:
        backend, first = self._backend, self._names[0]
        if backend.on_run is not None:
            backend.on_run()
        given = self.inputs[first].read()
        index = next(i for i, x in enumerate(backend.golden[first]) if np.array_equal(x, given))
        answer = backend.golden[backend.output][index].copy()
        answer.flat[0] += backend.spoil
        self.outputs[self._called].write(answer)

    def close(self) -> None:
        self._backend.open -= 1
