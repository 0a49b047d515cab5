"""`jetsight compile` as a function: checkpoint -> graphs -> quantized -> gated -> bundle.

What the user got wrong is refused before any long work, and nothing is written before every gate
has passed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from jetsight.backends.onnxruntime import OnnxRuntimeBackend
from jetsight.backends.registry import available
from jetsight.bundle import manifest
from jetsight.bundle.bundle import Bundle
from jetsight.engine import Backend
from jetsight.errors import MissingDependency
from jetsight_compile.calibration.data import load_episodes
from jetsight_compile.config.precision import AUTO, QUANTIZED, WEIGHT_ONLY
from jetsight_compile.config.targets import FamilyPlan, check_planner, plan
from jetsight_compile.export.layers import Compute
from jetsight_compile.pipeline import family as families
from jetsight_compile.pipeline import pack
from jetsight_compile.pipeline.family import FamilyBuilder, FamilyGraphs, Options
from jetsight_compile.pipeline.planner_fallback import settled
from jetsight_compile.planner_graph import settings as planners
from jetsight_compile.planner_graph.settings import PlannerPreset, PlannerSettings
from jetsight_compile.quantize import qdq, schemes, vendor
from jetsight_compile.quantize.mixed_precision import PrecisionTrial
from jetsight_compile.validate import gates as gate
from jetsight_compile.validate import planner_gates
from jetsight_compile.validate.metrics import FloatReference, reference
from jetsight_compile.validate.planner_reference import Truth, truth_of
from jetsight_compile.validate.planner_reference import reference as golden_of
from jetsight_train import checkpoint

Say = Callable[[str], None]


@dataclass(frozen=True)
class CompileRequest:
    """What to compile and how.

    Attributes:
        checkpoint: folder that `jetsight train` wrote.
        calib: LeRobot dataset to calibrate with and judge by.
        out: final name of the bundle.
        targets: names out of `targets.TARGETS`.
        precisions: on every target, like `int8`, `encode=fp16,forecast=int8` or `auto`; each
            target's default if empty.
        methods: candidates for finding ranges, out of `quantize.METHODS`.
        keep_float: patterns of layers that stay float in quantized families.
        base: float format of what a quantization leaves float, on TensorRT targets.
        tar: one archive instead of a folder.
        force: replace an older bundle of that name.
        planners: each becomes one graph of every family; none if empty.
        settings: of the planners.
    """

    checkpoint: Path
    calib: Path
    out: Path
    targets: Sequence[str] = ("cpu",)
    precisions: Sequence[str] = ()
    methods: Sequence[str] = schemes.METHODS
    keep_float: Sequence[str] = ()
    base: Compute = "fp16"
    tar: bool = False
    force: bool = False
    planners: Sequence[PlannerPreset] = ()
    settings: PlannerSettings = field(default_factory=PlannerSettings)


@dataclass(frozen=True)
class Compiled:
    """What one compile made.

    Attributes:
        bundle: the bundle, opened.
        trials: rows of every search for a precision, by family.
    """

    bundle: Bundle
    trials: dict[str, tuple[PrecisionTrial, ...]]


def compile_checkpoint(request: CompileRequest, say: Say = lambda stage: None) -> Compiled:
    """Compile a checkpoint into a bundle.

    Args:
        request: what to do.
        say: told the name of each stage when it begins.

    Raises:
        UsageError: a target cannot run a precision or a planner, or an option matches nothing.
        CheckpointError, DataError: an input is unusable.
        MissingDependency: a package of the extra `compile` or `quantize` is not installed.
        GateError: a compiled graph does not do what the float model does.
        StorageError: the bundle cannot be written.
    """
    plans = plan(request.targets, request.precisions, request.base)
    for preset in request.planners:
        elites = planners.elites_of(preset, request.settings)
        check_planner(request.targets, str(preset), elites)
    pack.check_target(request.out, force=request.force)
    _check_tools(plans)
    say(f"read {request.checkpoint}")
    model, about = checkpoint.load(request.checkpoint)
    for each in plans:
        families.check(each, model)
    specs = planners.specs(request.planners, model, request.settings)
    say(f"read and encode {request.calib}")
    episodes = load_episodes(request.calib, model)
    workshop = FamilyBuilder(
        model, episodes, Options(request.methods, request.keep_float), say, specs
    )
    all_made = [workshop.make(each) for each in plans]
    truths = _truths(workshop)
    all_made, gates = _gated(workshop, all_made, truths, say)
    gate.require(gates)
    say(f"write {request.out}")
    contents = pack.Contents(
        model,
        about,
        episodes,
        [_entry(made) for made in all_made],
        {(m.plan.name, g): x.SerializeToString() for m in all_made for g, x in m.graphs.items()},
        gates,
        {key: text for made in all_made for key, text in _notes(made)},
        specs,
        {key: array for spec in specs for key, array in golden_of(truths[spec.graph]).items()},
    )
    bundle = pack.write(request.out, contents, tar=request.tar, force=request.force)
    return Compiled(bundle, {m.plan.name: m.trials for m in all_made if m.trials})


def _truths(shop: FamilyBuilder) -> dict[str, Truth]:
    """What the float planners do on held-out episodes, by graph."""
    windows = shop.episodes.held_out.windows
    truths = {}
    for each in shop.planners:
        shop.say(f"plan with {each.graph} in PyTorch")
        truths[each.graph] = truth_of(shop.model, each, windows)
    return truths


def _gated(
    shop: FamilyBuilder, all_made: Sequence[FamilyGraphs], truths: Mapping[str, Truth], say: Say
) -> tuple[list[FamilyGraphs], list[manifest.Gate]]:
    """The families as they will be packed, and every gate, passed or not."""
    truth = reference(shop.model, shop.episodes.held_out)
    families: list[FamilyGraphs] = []
    gates: list[manifest.Gate] = []
    for made in all_made:
        say(f"gate {made.plan.name}")
        gates += judged(made, truth)
        made, verdicts = settled(shop, made, truths, _backends(made.plan.name), say)
        gates += planner_gates.gates(made.plan.name, verdicts)
        families.append(made)
    return families, gates


def _check_tools(plans: Sequence[FamilyPlan]) -> None:
    """Miss a package now, and not after a minute of work."""
    OnnxRuntimeBackend()
    if importlib.util.find_spec("onnxscript") is None:
        raise MissingDependency("onnxscript", "compile", "exporting a graph")
    tensorrt = {p for each in plans if each.targets != ("cpu",) for p in each.precision.values()}
    if tensorrt & {AUTO, *QUANTIZED} - set(WEIGHT_ONLY):
        vendor.check_modelopt()


def judged(made: FamilyGraphs, truth: FloatReference) -> list[manifest.Gate]:
    """Every gate of a family, passed or not, each beside its negative control.

    Raises:
        EngineError: a graph cannot be run.
    """
    pair = {graph: made.graphs[graph] for graph in manifest.GRAPHS}
    family = gate.FamilyUnderTest(made.plan.name, made.precision, **pair, exact=made.exact)
    return gate.judge(family, truth, _backends(made.plan.name))


def _backends(family: str) -> list[Backend]:
    """Who judges: what would run the family, and for TensorRT the graph as it is written."""
    if not family.startswith("cpu-"):
        return [OnnxRuntimeBackend(optimise=False)]
    judges: list[Backend] = [OnnxRuntimeBackend()]
    if any(b.name == "openvino" and b.reason is None and b.runs(family) for b in available()):
        from jetsight.backends.openvino import OpenVinoBackend

        judges.append(OpenVinoBackend())
    return judges


def _entry(made: FamilyGraphs) -> manifest.Family:
    tensors = sum(each.tensors for each in made.quantized.values())
    return manifest.Family(
        name=made.plan.name,
        opset=made.graphs["encode"].opset_import[0].version,
        precision=made.precision,
        targets=made.plan.targets,
        tensors=tensors if made.quantized else None,
    )


def _notes(made: FamilyGraphs) -> Iterator[tuple[str, str]]:
    """How each quantized graph came to be, for the provenance."""
    recipes = [each.recipe for each in made.quantized.values()]
    if any(isinstance(recipe, qdq.QuantizationRecipe) and recipe.activations for recipe in recipes):
        yield "nvidia-modelopt", metadata.version("nvidia-modelopt")  # it placed the Q/DQ pairs
    for graph, each in made.quantized.items():
        text = f"{each.method}, {len(each.layers)} layers, {each.share:.1%} of the products"
        text += f"; float for the gates: {', '.join(each.kept)}" if each.kept else ""
        yield f"{made.plan.name}/{graph}", text
