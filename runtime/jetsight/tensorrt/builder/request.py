"""Preparation of a build: the request, its context, and checks before it starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from jetsight.bundle.bundle import Bundle
from jetsight.bundle.manifest import Family
from jetsight.clock import Clock, MonotonicClock
from jetsight.engine import Engine
from jetsight.errors import EngineError, UsageError
from jetsight.machine import system
from jetsight.tensorrt.bindings import TENSORRT, TensorRtModule, open_library
from jetsight.tensorrt.engine_cache import EngineStore
from jetsight.tensorrt.fingerprint import BuildOptions, HostSpec, host_spec
from jetsight.tensorrt.log_messages import cuda_failure

PREFIX = "trt-"
# CUDA compute capability of the first GPUs with units for the format.
LEAST_SM = {"bf16": (8, 0), "fp8": (8, 9), "nvfp4": (10, 0)}
_SINCE = {"bf16": "Ampere", "fp8": "Ada and Hopper", "nvfp4": "Blackwell and Thor"}


class PlanBackend(Protocol):
    """Loader of a checked engine: `jetsight.tensorrt.backend.TensorRtBackend`."""

    def load_plan(self, plan: bytes, renamed: Mapping[str, str] | None = None) -> Engine:
        """Load an engine from checked bytes; `renamed` maps its names to the graph's."""
        ...

    def close(self) -> None:
        """Release everything."""
        ...


@dataclass(frozen=True)
class BuildRequest:
    """Choice of the engines to build.

    Attributes:
        families: names; those for this machine if empty.
        graphs: names; all of a family if empty.
        options: memory limit, level, front end.
        checkpoint: the PyTorch model, for torch-tensorrt.
        measure: also measure latency.
        force: rebuild existing engines.
    """

    families: tuple[str, ...] = ()
    graphs: tuple[str, ...] = ()
    options: BuildOptions = field(default_factory=BuildOptions)
    checkpoint: Path | None = None
    measure: bool = True
    force: bool = False


@dataclass(frozen=True)
class BuildContext:
    """Machine, store and backend of a build; replaced in tests.

    Attributes:
        library: the TensorRT.
        host: this machine.
        problem: why there is no GPU; None if there is one.
        store: receives the engines.
        open_backend: opens the backend that runs them.
        clock: clock of the measurements.
        root: `/`, for the machine's clock rates.
    """

    library: TensorRtModule
    host: HostSpec
    problem: str | None
    store: EngineStore
    open_backend: Callable[[], PlanBackend]
    clock: Clock = field(default_factory=MonotonicClock)
    root: Path = Path("/")

    @classmethod
    def here(cls, store: EngineStore | None = None) -> BuildContext:
        """Describe this machine with the installed TensorRT.

        Raises:
            MissingDependency: TensorRT is not installed.
        """
        library = open_library()

        def open_backend() -> PlanBackend:
            from jetsight.tensorrt.backend import TensorRtBackend

            return TensorRtBackend(library=library)

        host, problem = host_spec(library), system.cuda(Path("/")).problem
        return cls(library, host, problem, store or EngineStore(), open_backend)


def choose_families(bundle: Bundle, names: Sequence[str], host: HostSpec) -> list[Family]:
    """Choose the requested families, else those compiled for this machine, else all TensorRT ones.

    Raises:
        UsageError: no such family, or none for TensorRT.
    """
    known = {family.name: family for family in bundle.manifest.families}
    for name in names:
        if name not in known:
            raise UsageError(f"{bundle.path} has no family {name!r}; it has: {', '.join(known)}")
        if not name.startswith(PREFIX):
            raise UsageError(f"family {name!r} needs no engine; only {PREFIX}* families do")
    if names:
        return [known[name] for name in dict.fromkeys(names)]
    candidates = [family for name, family in known.items() if name.startswith(PREFIX)]
    if not candidates:
        raise UsageError(
            f"{bundle.path} holds the families {', '.join(known)}, none for TensorRT; compile it "
            f"for this machine: jetsight compile --target {host.target or 'rtx'}"
        )
    return [f for f in candidates if host.target in f.targets] or candidates


def graphs_of(bundle: Bundle, family: Family, requested: Sequence[str]) -> list[str]:
    """Choose the requested graphs of a family; all of them if `requested` is empty.

    Raises:
        UsageError: no such graph.
    """
    names = list(bundle.manifest.graphs(family.name))
    for name in requested:
        if name not in names:
            raise UsageError(
                f"{bundle.path} has no graph {name!r} in family {family.name!r}; it has: "
                f"{', '.join(names)}"
            )
    return [name for name in names if not requested or name in requested]


def refuse_unfit(context: BuildContext) -> None:
    """Raise unless this machine can build engines, and run them if it has a GPU.

    Raises:
        MissingDependency: it has a GPU, but a package to run engines is missing.
        EngineError: TensorRT needs a GPU to build, and there is none.
    """
    if context.host.gpu is not None:
        context.open_backend().close()  # raises before the long build, not after it
        return
    if context.library.name != TENSORRT:  # TensorRT-RTX also builds without a GPU
        return
    problem = context.problem or "no CUDA device"
    raise EngineError(
        f"{context.library} needs a GPU to build: {cuda_failure(problem) or problem}; run "
        "jetsight build on the robot itself (its engines fit no other machine)"
    )


def require(precision: str, host: HostSpec, what: str) -> None:
    """Refuse a graph whose number format this GPU has no units for.

    Raises:
        EngineError: the GPU is older than the format.
    """
    # TensorRT may not refuse it: on Orin FP8 gave engines that crash (NVIDIA/Isaac-GR00T #471).
    least = LEAST_SM.get(precision)
    if least is None or host.sm is None:  # without a GPU the engine is for another machine
        return
    if tuple(map(int, host.sm.split("."))) < least:
        raise EngineError(
            f"{what} is in {precision}, and {host.gpu} (SM {host.sm}) has no units for it; they "
            f"came with {_SINCE[precision]} (SM {least[0]}.{least[1]}): build a family in fp16 or "
            "int8, or compile the bundle for this machine"
        )
