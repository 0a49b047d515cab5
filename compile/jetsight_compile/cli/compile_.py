"""`jetsight compile`: compile a checkpoint into a quantized, gated bundle."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from jetsight.cli import INCOMPLETE
from jetsight.cli.dataset_options import map_option
from jetsight.cli.options import quiet_option
from jetsight.errors import UsageError
from jetsight.progress import StageLines
from jetsight_compile.config.precision import METHODS

_PATH = click.Path(path_type=Path)
# Options that `_planners` turns into the presets and settings of a request.
_PLANNERS = ("planners", "no_planner", "planner_settings")


@click.command("compile")
@click.argument("checkpoint", type=_PATH)
@click.option(
    "--target",
    "targets",
    multiple=True,
    default=("cpu",),
    show_default=True,
    metavar="NAME",
    help="A row of `jetsight targets`; repeatable.",
)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    metavar="NAME",
    help="fp32, fp16, bf16, int8, fp8, int4 or nvfp4 on every target, one per graph like "
    "encode=fp16,forecast=int8, or auto: the cheapest that passes its measurements; "
    "repeatable.  [default: fp32 and int8 on cpu, fp16 elsewhere]",
)
@click.option(
    "--base",
    type=click.Choice(("fp16", "bf16", "fp32")),
    default="fp16",
    show_default=True,
    help="Float format of the layers that are not quantized, on TensorRT targets.",
)
@click.option(
    "--calib",
    required=True,
    type=_PATH,
    help="Recorded dataset: half calibrates, half is held out for the gates.",
)
@map_option
@click.option("--out", required=True, type=_PATH, help="Bundle to write, NAME.jetsight.")
@click.option(
    "--method",
    "methods",
    multiple=True,
    type=click.Choice(METHODS),
    help="Calibration method; the best of those given is used. entropy is only for cpu, mse for "
    "all other targets.  [default: try all]",
)
@click.option(
    "--keep-float",
    multiple=True,
    metavar="PATTERN",
    help="Layers that stay float, like 'trunk.layers.0/*'; repeatable.",
)
@click.option(
    "--planner",
    "planners",
    multiple=True,
    metavar="KIND[:NxH]",
    help="cem, icem or mppi, with N candidates over H action blocks, like icem:256x5; repeatable, "
    "the first one plans by default.  [default: icem:256 and icem:64]",
)
@click.option("--no-planner", is_flag=True, help="No planner: the bundle encodes and forecasts.")
@click.option(
    "--planner-settings",
    type=_PATH,
    help="TOML file whose table [planner] sets elites, iterations, weights and so on.",
)
@click.option(
    "--camera",
    metavar="WxH",
    help="Size of the camera's frames, like 640x480, where the model was trained on smaller ones: "
    "the graph crops and resizes them.  [default: the frames of training]",
)
@click.option(
    "--crop",
    metavar="REGION",
    help="Region of the --camera in use: center for the largest one of the aspect ratio of "
    "training, full, or TOP,LEFT,HEIGHT,WIDTH.  [default: center]",
)
@click.option("--tar", is_flag=True, help="Write one .tar instead of a folder.")
@click.option("--force", is_flag=True, help="Replace an older bundle of that name.")
@click.option(
    "--strict",
    is_flag=True,
    help="Write nothing if any gate fails, instead of what passed.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@quiet_option
def compile_(checkpoint: Path, calib: Path, out: Path, as_json: bool, **options: Any) -> None:
    """Compile CHECKPOINT, a folder that `jetsight train` wrote, into the bundle OUT.

    Graphs are exported, quantized if requested, and compared with the PyTorch model on held-out
    episodes. What fails a comparison goes back to float, block by block, until it passes; what
    never passes is left out. OUT holds what passed, its manifest says what else was requested, and
    the exit code is 12 if it is not all there. If nothing passes, nothing is written.
    """
    from jetsight_compile.pipeline.checks import expected_stages
    from jetsight_compile.pipeline.compile import CompileRequest, compile_checkpoint

    options["camera"] = _camera(options["camera"], options.pop("crop"))
    presets, settings = _planners(**{name: options.pop(name) for name in _PLANNERS})
    options["methods"] = options["methods"] or METHODS
    request = CompileRequest(checkpoint, calib, out, **options, planners=presets, settings=settings)
    compiled = compile_checkpoint(request, StageLines(expected_stages(request)))
    if as_json:
        click.echo(json.dumps(_summary(compiled)))
    else:
        for family, trials in compiled.trials.items():
            _print_trials(family, trials)
        _print_table(compiled.bundle)
    if not compiled.complete:
        click.get_current_context().exit(INCOMPLETE)


def _camera(size: str | None, crop: str | None) -> Any:
    """Parse the camera to compile for; None for that of training."""
    from jetsight_compile.pipeline.camera import CameraRequest

    if size is None:
        if crop is not None:
            raise UsageError(f"--crop {crop} needs the size of the camera: --camera 640x480")
        return None
    return CameraRequest.parse(size, crop or "center")


def _planners(
    planners: Sequence[str], no_planner: bool, planner_settings: Path | None
) -> tuple[Any, Any]:
    """Parse the planners to compile, and their settings."""
    from jetsight_compile.planner_graph import settings

    if no_planner and (planners or planner_settings):
        raise UsageError("--no-planner is given together with planners; leave out one of them")
    presets = () if no_planner else tuple(map(settings.parse, planners)) or settings.DEFAULT
    if planner_settings is None:
        return presets, settings.PlannerSettings()
    return presets, settings.load_settings(planner_settings)


def _summary(compiled: Any) -> dict[str, Any]:
    """Describe the new bundle as one JSON object."""
    bundle, facts = compiled.bundle, compiled.bundle.manifest
    return {
        "path": str(bundle.path),
        "name": facts.name,
        "families": [
            {
                "name": family.name,
                "opset": family.opset,
                "targets": list(family.targets),
                "precision": dict(family.precision),
                "bytes": _size(facts, family.name),
                "quantized_tensors": family.tensors,
                "gates": {g.name: _gate(g) for g in facts.gates if g.family == family.name},
            }
            for family in facts.families
        ],
        "complete": compiled.complete,
        "fallbacks": [dataclasses.asdict(each) for each in facts.fallbacks],
        "search": {
            family: [dataclasses.asdict(trial) for trial in trials]
            for family, trials in compiled.trials.items()
        },
    }


def _gate(gate: Any) -> dict[str, Any]:
    keys = ("value", "limit", "direction", "passed", "control_value", "control_failed")
    return {key: getattr(gate, key) for key in keys}


def _size(facts: Any, family: str) -> int:
    prefix = f"graphs/{family}/"
    return sum(entry.bytes for path, entry in facts.files.items() if path.startswith(prefix))


def _print_trials(family: str, trials: Any) -> None:
    """Print the measurements of the search, with the chosen row of each graph marked."""
    from jetsight.cli.table import table

    click.echo(f"{family}: precisions tried on the calibration episodes")
    agreement = ("plan rank", "elites", "same first action")
    head = ("graph", "precision", "kept float", "products", "SQNR", *agreement, "floor", "")
    rows = []
    for trial in trials:
        kept, plan, agree = ", ".join(trial.kept) or "-", trial.plan, ("-", "-", "-")
        if plan is not None:
            agree = (f"{plan.rank:.4f}", f"{plan.elites:.0%}", f"{plan.first_action:.0%}")
        loss = (f"{trial.share:.0%}", f"{trial.sqnr_db:.1f} dB", *agree)
        verdict = "chosen" if trial.chosen else "good" if trial.passed else "loses too much"
        floor = f"{trial.floor_ms:.3f} ms"
        rows.append((trial.graph, trial.precision, kept, *loss, floor, verdict))
    for line in table(head, rows):
        click.echo(line)
    module = trials[0].module
    click.echo(f"floor: least time on {module}, for weights or products; not a measurement\n")


def _print_table(bundle: Any) -> None:
    from jetsight.cli.table import human_bytes, table

    facts = bundle.manifest
    head = ("family", "opset", "size", "quantized", "gate", "value", "limit", "control")
    rows = []
    for family in facts.families:
        size = human_bytes(_size(facts, family.name))
        first = (family.name, str(family.opset), size, str(family.tensors or "-"))
        for gate in (gate for gate in facts.gates if gate.family == family.name):
            limit = f"{'>=' if gate.direction == 'min' else '<='} {gate.limit:g}"
            control = f"{gate.control_value:.3g} fails"
            rows.append((*first, gate.name, f"{gate.value:.6g}", limit, control))
            first = ("", "", "", "")
    for line in table(head, rows):
        click.echo(line)
    for each in facts.fallbacks:
        click.echo(each.text())
    then = f"next: jetsight run {bundle.path} --source SRC"
    if all(family.name.startswith("trt-") for family in facts.families):
        then = f"next, on the robot: jetsight build {bundle.path}"
    click.echo(f"\n{bundle.path}: written; {then}")
