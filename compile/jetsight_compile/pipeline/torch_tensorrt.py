"""A second route to an engine: torch.export and torch-tensorrt instead of ONNX and its parser.

It needs what a robot rarely has: torch, a GPU, and a torch-tensorrt built for the same TensorRT
that the runtime loads engines with. Where any of them is missing it refuses, and the first route
remains. The engine passes the same precision, parity and latency checks; it is built only from the
checkpoint that the bundle was compiled from.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from jetsight.bundle.golden import layout
from jetsight.bundle.manifest import Family, Manifest
from jetsight.errors import EngineError, MissingDependency, UsageError, first_line
from jetsight.storage.atomic import write_file
from jetsight.tensorrt.bindings import TensorRtModule
from jetsight.tensorrt.builder.onnx_parser import PortSpec
from jetsight.tensorrt.builder.verify import REFERENCE
from jetsight.tensorrt.fingerprint import BuildOptions
from jetsight_compile.export.encoder import EncodeGraph
from jetsight_compile.export.layers import Style
from jetsight_compile.export.onnx_export import Sizes
from jetsight_compile.export.predictor import ForecastGraph
from jetsight_train import checkpoint as checkpoints
from jetsight_train.model.world_model import WorldModel

_OTHER_ROUTE = "leave --via torch-tensorrt out"
_FLOAT = ("fp32", "fp16", "bf16")
# torch-tensorrt reads neither opsets nor ONNX's fused operator: attention stays in parts, which
# TensorRT fuses by their pattern.
_OPSET = 23


@dataclass(frozen=True)
class Converted:
    """An engine and its signature.

    Attributes:
        plan: the serialized engine.
        inputs: name to (type, shape).
        outputs: the same, by the graph's names.
        renamed: the engine's name of an output to the graph's, where they differ.
    """

    plan: bytes
    inputs: dict[str, PortSpec]
    outputs: dict[str, PortSpec]
    renamed: dict[str, str] = field(default_factory=dict)


def convert(
    checkpoint: Path,
    manifest: Manifest,
    family: Family,
    graph: str,
    *,
    library: TensorRtModule,
    options: BuildOptions,
    log: Path,
    gpu: str | None,
) -> Converted:
    """Build one graph's engine from its PyTorch model.

    Args:
        checkpoint: the model the bundle was compiled from.
        manifest: of that bundle.
        family: names the precision.
        graph: `"encode"` or `"forecast"`.
        library: the TensorRT that will load the engine.
        options: memory limit and optimization level.
        log: file for the messages of torch-tensorrt.
        gpu: name of this machine's GPU; None if there is none.

    Raises:
        UsageError: another checkpoint, a quantized family, or a graph without a torch form.
        MissingDependency: torch-tensorrt is not installed.
        EngineError: no GPU, another TensorRT, or the conversion fails; one line.
    """
    precision = family.precision.get(graph, "")
    _refuse_unfit(family, graph, precision)
    route = _torch_tensorrt(library, gpu)
    model, about = checkpoints.load(checkpoint)
    # Parity is checked against the bundle's golden data, which come from these weights.
    if about.weights.sha256 != manifest.provenance.checkpoint_sha256:
        raise UsageError(
            f"{checkpoint} has weights {about.weights.sha256[:12]}, but the bundle was compiled "
            f"from {manifest.provenance.checkpoint_sha256[:12]}; give the checkpoint it came from"
        )
    inputs = {name: (str(dtype), shape) for name, (dtype, shape) in layout(manifest).items()}
    module = _module(model, graph, Style(_OPSET).computing(precision))  # type: ignore[arg-type]
    # By the graph's signature, because the order of the arguments is that of the ONNX inputs.
    names = list(Sizes.of(model).signature(graph)[0])
    examples = [torch.zeros(inputs[n][1], dtype=getattr(torch, inputs[n][0])) for n in names]
    output = REFERENCE[graph]
    plan, renamed = _converted(route, module, examples, output, options, log)
    return Converted(plan, {n: inputs[n] for n in names}, {output: inputs[output]}, renamed)


def _refuse_unfit(family: Family, graph: str, precision: str) -> None:
    if graph not in REFERENCE:
        raise UsageError(f"graph {graph!r} has no torch form; {_OTHER_ROUTE}")
    if precision not in _FLOAT:
        raise UsageError(
            f"family {family.name!r} is {precision}, but its Q/DQ is in the ONNX graph alone; "
            f"{_OTHER_ROUTE}, or choose a float family"
        )


def _torch_tensorrt(library: TensorRtModule, gpu: str | None) -> Any:
    """Import the module, if it is installed, has a GPU, and uses the TensorRT of the runtime."""
    if not _installed("torch_tensorrt"):
        raise MissingDependency("torch_tensorrt", "torch-tensorrt", "--via torch-tensorrt")
    if gpu is None:
        raise EngineError(
            f"--via torch-tensorrt needs a GPU, and this machine has none; {_OTHER_ROUTE}"
        )
    try:
        module: Any = importlib.import_module("torch_tensorrt")
        theirs = importlib.import_module("tensorrt").__version__
    except (ImportError, OSError, RuntimeError) as error:
        raise EngineError(
            f"torch_tensorrt is installed but does not load ({first_line(error)}); {_OTHER_ROUTE}"
        ) from error
    ours = str(library.module.__version__)
    # A plan loads only in the exact TensorRT version that built it.
    if theirs != ours or library.name != "tensorrt":
        raise EngineError(
            f"torch-tensorrt builds for TensorRT {theirs}, but engines are loaded with {library} "
            f"here, which refuses them; {_OTHER_ROUTE}"
        )
    return module


def _installed(name: str) -> bool:
    """Return whether a package is installed; not imported, because without a GPU that can crash."""
    if name in sys.modules:
        return sys.modules[name] is not None
    return importlib.util.find_spec(name) is not None


def _device() -> torch.device:
    """Return the GPU of the engine, on which the model is exported."""
    if not torch.cuda.is_available():
        raise EngineError(
            f"the installed torch {torch.__version__} has no CUDA here, which torch-tensorrt "
            f"needs; {_OTHER_ROUTE}"
        )
    return torch.device("cuda")


def _module(model: WorldModel, graph: str, style: Style) -> nn.Module:
    made = EncodeGraph(model, style) if graph == "encode" else ForecastGraph(model, style)
    return made.eval()


def _converted(
    route: Any,
    module: nn.Module,
    examples: list[torch.Tensor],
    output: str,
    options: BuildOptions,
    log: Path,
) -> tuple[bytes, dict[str, str]]:
    """Build the engine; return it with the names of the outputs to rename."""
    convert = route.dynamo.convert_exported_program_to_serialized_trt_engine
    # All of it or nothing: the runtime has no torch to run a remainder with.
    arguments: dict[str, Any] = {"require_full_compilation": True, "min_block_size": 1}
    # Its default reads every attention bias as causal, which is wrong for windows and images.
    arguments["attn_bias_is_causal"] = False
    # Up to 2.11 the default computes in float32 whatever the module's types say.
    arguments["use_explicit_typing"] = True
    # Its default is one file in /tmp for every user of the machine.
    arguments["timing_cache_path"] = str(log.with_name("timing.cache"))
    if options.workspace_mb is not None:
        arguments["workspace_size"] = options.workspace_mb << 20
    if options.level is not None:
        arguments["optimization_level"] = options.level
    # Options come and go between releases, and an unknown one is an error.
    known = inspect.signature(convert).parameters
    arguments = {name: value for name, value in arguments.items() if name in known}
    renamed = {"output0": output}
    if "output_binding_names" in known:  # 2.14; older ones number the outputs
        arguments["output_binding_names"], renamed = [output], {}
    device = _device()
    module, examples = module.to(device), [example.to(device) for example in examples]
    try:
        with _detailed(route, log), torch.no_grad():
            program = torch.export.export(module, tuple(examples))
            plan = convert(program, arg_inputs=tuple(examples), **arguments)
    except Exception as error:  # torch and torch-tensorrt raise anything
        raise EngineError(
            f"torch-tensorrt cannot compile the graph: {first_line(error)}; {_OTHER_ROUTE}"
        ) from error
    return bytes(plan), renamed


@contextlib.contextmanager
def _detailed(route: Any, log: Path) -> Iterator[None]:
    """Build with layer details, which the precision proof reads, and keep the log."""
    # Not every release has it; without it the engine still builds.
    debugger = getattr(route.dynamo, "Debugger", None)
    if debugger is None:
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        with debugger(log_level="info", logging_dir=folder, engine_builder_monitor=False):
            yield
        said = [p.read_bytes() for p in sorted(Path(folder).glob("*.log"))]
        if said:
            write_file(log, b"\n".join(said))
