"""`jetsight compile` as a function: checkpoint -> graphs -> quantized -> gated -> bundle.

What the user got wrong is refused before any long work, and nothing is written before every gate
has passed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from jetsight import manifest
from jetsight.backends import available
from jetsight.backends.onnxruntime import OnnxRuntimeBackend
from jetsight.bundle import Bundle
from jetsight.engine import Backend
from jetsight.errors import MissingDependency
from jetsight_compile import gate, pack, quantize
from jetsight_compile.calibration import (
    CALIBRATION_FRAMES,
    CALIBRATION_WINDOWS,
    Episodes,
    Side,
    load_episodes,
    spread,
)
from jetsight_compile.dense import Style
from jetsight_compile.graphs import export_encode, export_forecast
from jetsight_compile.measure import reference
from jetsight_compile.targets import FamilyPlan, plan
from jetsight_train import checkpoint
from jetsight_train.model.world_model import WorldModel

GRAPHS = {"encode": export_encode, "forecast": export_forecast}
Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What to compile and how.

    Attributes:
        checkpoint: folder that `jetsight train` wrote.
        calib: LeRobot dataset to calibrate with and judge by.
        out: final name of the bundle.
        targets: names out of `targets.TARGETS`.
        precisions: on every target; each target's default if empty.
        methods: candidates for finding ranges, out of `quantize.METHODS`.
        keep_float: patterns of layers that stay float in int8 families.
        tar: one archive instead of a folder.
        force: replace an older bundle of that name.
    """

    checkpoint: Path
    calib: Path
    out: Path
    targets: Sequence[str] = ("cpu",)
    precisions: Sequence[str] = ()
    methods: Sequence[str] = quantize.METHODS
    keep_float: Sequence[str] = ()
    tar: bool = False
    force: bool = False


@dataclass
class _Work:
    """What one compile has made so far."""

    model: WorldModel
    episodes: Episodes
    say: Say
    exported: dict[tuple[str, Style], onnx.ModelProto] = field(default_factory=dict)
    quantized: dict[str, quantize.Quantized] = field(default_factory=dict)


def compile_checkpoint(request: Request, say: Say = lambda stage: None) -> Bundle:
    """Compile a checkpoint into a bundle and return it opened.

    Args:
        request: what to do.
        say: told the name of each stage when it begins.

    Raises:
        UsageError: a target cannot run a precision, or an option matches nothing.
        CheckpointError, DataError: an input is unusable.
        MissingDependency: a package of the extra `compile` is not installed.
        GateError: a compiled graph does not do what the float model does.
        StorageError: the bundle cannot be written.
    """
    plans = plan(request.targets, request.precisions)
    pack.check_target(request.out, force=request.force)
    _check_tools()
    say(f"read {request.checkpoint}")
    model, about = checkpoint.load(request.checkpoint)
    say(f"read and encode {request.calib}")
    work = _Work(model, load_episodes(request.calib, model), say)
    families = [_family(work, each, request) for each in plans]
    gates = _judged(work, families)
    say(f"write {request.out}")
    contents = pack.Contents(
        model,
        about,
        work.episodes,
        [_entry(work, each, made) for each, made in zip(plans, families, strict=True)],
        {(f.name, g): getattr(f, g).SerializeToString() for f in families for g in GRAPHS},
        gates,
        _notes(work),
    )
    return pack.write(request.out, contents, tar=request.tar, force=request.force)


def _check_tools() -> None:
    """Miss a package now, and not after a minute of work."""
    OnnxRuntimeBackend()
    if importlib.util.find_spec("onnxscript") is None:
        raise MissingDependency("onnxscript", "compile", "exporting a graph")


def _family(work: _Work, wanted: FamilyPlan, request: Request) -> gate.Family:
    graphs = {name: _exported(work, name, wanted.style) for name in GRAPHS}
    if wanted.precision == "int8":
        samples = _samples(work.episodes.calibration)
        keep = _keep_float(graphs, request.keep_float)
        for name, graph in graphs.items():
            work.say(f"quantize {name} for {wanted.name}")
            made = quantize.cpu_int8(
                graph, samples[name], methods=request.methods, keep_float=keep[name]
            )
            work.quantized[name], graphs[name] = made, made.model
    return gate.Family(wanted.name, wanted.precision, graphs["encode"], graphs["forecast"])


def _exported(work: _Work, name: str, style: Style) -> onnx.ModelProto:
    if (name, style) not in work.exported:
        work.say(f"export {name}, opset {style.opset}{', float16' if style.half else ''}")
        work.exported[name, style] = GRAPHS[name](work.model, style)
    return work.exported[name, style]


def _keep_float(
    graphs: Mapping[str, onnx.ModelProto], patterns: Sequence[str]
) -> dict[str, list[str]]:
    """Each pattern beside the graphs it is about; one that fits nothing goes to both, and fails."""
    fits = {
        name: [p for p in patterns if quantize.matches_any(graph, p)]
        for name, graph in graphs.items()
    }
    lost = [p for p in patterns if not any(p in fitting for fitting in fits.values())]
    return {name: fitting + lost for name, fitting in fits.items()}


def _samples(side: Side) -> dict[str, list[quantize.Sample]]:
    """Graph inputs out of the calibration episodes, evenly spread."""
    windows = side.windows.thinned(CALIBRATION_WINDOWS)
    frames = side.frames_u8[spread(len(side.frames_u8), CALIBRATION_FRAMES)]
    return {
        "encode": [{"frame_hwc_u8": frame} for frame in frames],
        "forecast": [windows.inputs(index) for index in range(len(windows))],
    }


def _judged(work: _Work, families: Sequence[gate.Family]) -> list[manifest.Gate]:
    truth = reference(work.model, work.episodes.held_out)
    gates: list[manifest.Gate] = []
    for family in families:
        work.say(f"gate {family.name}")
        gates += gate.judge(family, truth, _backends(family.name))
    gate.require(gates)
    return gates


def _backends(family: str) -> list[Backend]:
    """Who judges: ONNX Runtime always, and OpenVINO where it is what would run the family."""
    judges: list[Backend] = [OnnxRuntimeBackend()]
    if any(b.name == "openvino" and b.reason is None and b.runs(family) for b in available()):
        from jetsight.backends.openvino import OpenVinoBackend

        judges.append(OpenVinoBackend())
    return judges


def _entry(work: _Work, wanted: FamilyPlan, made: gate.Family) -> manifest.Family:
    int8 = wanted.precision == "int8"
    return manifest.Family(
        name=wanted.name,
        opset=made.encode.opset_import[0].version,
        precision=dict.fromkeys(GRAPHS, wanted.precision),
        targets=wanted.targets,
        tensors=sum(each.tensors for each in work.quantized.values()) if int8 else None,
    )


def _notes(work: _Work) -> dict[str, str]:
    return {f"calibration_{name}": made.method for name, made in work.quantized.items()}
