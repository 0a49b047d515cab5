"""`jetsight compile` as a function: a list of passes from a checkpoint to a bundle.

`compile_checkpoint` runs the passes in the order in which they stand below. What the user got wrong
is refused before any long work. What fails a gate goes back to float or is left out (`settle`), so
that only what passed is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from jetsight.bundle import manifest
from jetsight.bundle.bundle import Bundle
from jetsight.bundle.fallbacks import Fallback
from jetsight.bundle.model_spec import FrameSpec
from jetsight.bundle.planner_spec import PlannerSpec
from jetsight.datasets.dataset import FeatureMap
from jetsight.errors import GateError
from jetsight_compile.calibration.data import Episodes, load_episodes
from jetsight_compile.config.precision import METHODS
from jetsight_compile.config.targets import FamilyPlan, check_planner, plan
from jetsight_compile.export.layers import Compute
from jetsight_compile.pipeline import pack
from jetsight_compile.pipeline.camera import CameraRequest, camera_gate
from jetsight_compile.pipeline.checks import check_methods, check_tools
from jetsight_compile.pipeline.family import FamilyBuilder, FamilyGraphs, Options, check_form
from jetsight_compile.pipeline.family_passes import export_family, gate_family, quantize_family
from jetsight_compile.pipeline.outcome import renamed
from jetsight_compile.pipeline.settle import (
    SettledFamily,
    fallbacks_of,
    settle_graphs,
    settle_planner,
    without_planner,
)
from jetsight_compile.planner_graph import settings as planners
from jetsight_compile.planner_graph.settings import PlannerPreset, PlannerSettings
from jetsight_compile.quantize.mixed_precision import PrecisionTrial
from jetsight_compile.validate import gates as gate
from jetsight_compile.validate import planner_gates
from jetsight_compile.validate.metrics import FloatReference, reference
from jetsight_compile.validate.planner_reference import Truth, truth_of
from jetsight_compile.validate.planner_reference import reference as golden_of
from jetsight_train import checkpoint
from jetsight_train.checkpoint import CheckpointDescription
from jetsight_train.model.world_model import WorldModel

Say = Callable[[str], None]


@dataclass(frozen=True)
class CompileRequest:
    """Inputs, output and options of one compile.

    Attributes:
        checkpoint: folder that `jetsight train` wrote.
        calib: recorded dataset; half of it calibrates, the other half judges.
        out: final name of the bundle.
        targets: names out of `targets.TARGETS`.
        precisions: on every target, like `int8`, `encode=fp16,forecast=int8` or `auto`; each
            target's default if empty.
        methods: candidates for finding ranges, out of `precision.METHODS`.
        keep_float: patterns of layers that stay float in quantized families.
        base: float format of what a quantization leaves float, on TensorRT targets.
        tar: True writes one archive instead of a folder.
        force: True replaces an older bundle of that name.
        planners: each becomes one graph of every family; none if empty.
        settings: of the planners.
        camera: camera of another size that the graphs take; None for that of training.
        features: which features of `calib` are actions, states and frames.
        strict: True refuses a bundle from which anything would be left out.
    """

    checkpoint: Path
    calib: Path
    out: Path
    targets: Sequence[str] = ("cpu",)
    precisions: Sequence[str] = ()
    methods: Sequence[str] = METHODS
    keep_float: Sequence[str] = ()
    base: Compute = "fp16"
    tar: bool = False
    force: bool = False
    planners: Sequence[PlannerPreset] = ()
    settings: PlannerSettings = field(default_factory=PlannerSettings)
    camera: CameraRequest | None = None
    features: FeatureMap = field(default_factory=FeatureMap)
    strict: bool = False


@dataclass(frozen=True)
class Compiled:
    """The result of one compile.

    Attributes:
        bundle: the bundle, opened.
        trials: rows of every search for a precision, by family.
    """

    bundle: Bundle
    trials: dict[str, tuple[PrecisionTrial, ...]]

    @property
    def complete(self) -> bool:
        """Everything is in the bundle in the number format that was requested."""
        return all(each.partial for each in self.bundle.manifest.fallbacks)


@dataclass
class Compilation:
    """The state that the passes share; each field is set by the pass that is named with it.

    Attributes:
        request: inputs, output and options.
        say: is called with the name of each stage when it begins.
        plans: the families to make (`check_request`).
        model: the float model (`load_checkpoint`).
        about: the checkpoint's description of it (`load_checkpoint`).
        trained: frame of training, where the graphs take a larger one (`load_checkpoint`).
        planners: the planners that the bundle gets (`load_checkpoint`).
        episodes: data that calibrates and data that judges (`load_calibration`).
        builder: exports and quantizations that families share (`load_calibration`).
        families: exported, then quantized, then with graphs back in float, then those that passed
            (`export_graphs`, `quantize_graphs`, `gate_graphs`, `gate_planners`, `require_gates`).
        requested: precision of each graph before the gates, by family (`quantize_graphs`).
        expected: answers of the float model on held-out episodes (`run_float_model`).
        plans_expected: plans of the float planners, by graph (`run_float_model`).
        gates: passed or not, by family (`gate_graphs`, `gate_planners`).
        fallbacks: what failed its gates cost (every pass from `quantize_graphs` on).
        bundle: opened (`write_bundle`).
    """

    request: CompileRequest
    say: Say
    plans: list[FamilyPlan] = field(init=False)
    model: WorldModel = field(init=False)
    about: CheckpointDescription = field(init=False)
    trained: FrameSpec | None = field(init=False, default=None)
    planners: tuple[PlannerSpec, ...] = field(init=False)
    episodes: Episodes = field(init=False)
    builder: FamilyBuilder = field(init=False)
    families: list[FamilyGraphs] = field(init=False)
    requested: dict[str, Mapping[str, str]] = field(init=False)
    expected: FloatReference = field(init=False)
    plans_expected: dict[str, Truth] = field(init=False)
    gates: dict[str, list[manifest.Gate]] = field(init=False)
    fallbacks: list[Fallback] = field(default_factory=list)
    bundle: Bundle = field(init=False)

    def leave_out(self, family: FamilyPlan, graph: str, reason: str) -> None:
        """Note that a planner's graph, or a family where `graph` is empty, is not written."""
        self.fallbacks.append(Fallback(family.name, graph, "left_out", "", reason))
        self.say(f"{family.name} {graph}".rstrip() + ": left out")


def compile_checkpoint(request: CompileRequest, say: Say = lambda stage: None) -> Compiled:
    """Compile a checkpoint into a bundle.

    Args:
        request: inputs, output and options.
        say: is called with the name of each stage when it begins.

    Raises:
        UsageError: a target cannot run a precision or a planner, or an option matches nothing.
        CheckpointError, DataError: an input is unusable.
        MissingDependency: a package of the extra `compile` or `quantize` is not installed.
        EngineError: a graph cannot be run, or a quantizer did nothing.
        GateError: no family does what the float model does, or a negative control passed; with
            `strict`, any gate failed.
        StorageError: the bundle cannot be written.
    """
    state = Compilation(request, say)
    for run in (
        check_request,
        load_checkpoint,
        load_calibration,
        export_graphs,
        quantize_graphs,
        run_float_model,
        gate_graphs,
        gate_planners,
        require_gates,
        name_families,
        write_bundle,
    ):
        run(state)
    return Compiled(state.bundle, {f.plan.name: f.trials for f in state.families if f.trials})


def check_request(state: Compilation) -> None:
    """Refuse what no target, installed package or free name allows; plan the families."""
    request = state.request
    state.plans = plan(request.targets, request.precisions, request.base)
    for each in state.plans:
        # Before the checkpoint is read: these need the command line alone.
        check_methods(each, request.methods)
    for preset in request.planners:
        elites = planners.elites_of(preset, request.settings)
        check_planner(request.targets, str(preset), elites)
    # Now, since a taken name that is found at the end would cost a whole compile.
    pack.check_target(request.out, force=request.force)
    check_tools(state.plans)


def load_checkpoint(state: Compilation) -> None:
    """Read the model; size the planners, which takes its horizon and action size."""
    request = state.request
    state.say(f"read {request.checkpoint}")
    state.model, state.about = checkpoint.load(request.checkpoint)
    if request.camera is not None:
        _take_camera(state, request.camera)
    for each in state.plans:
        check_form(each, state.model)
    state.planners = planners.specs(request.planners, state.model, request.settings)


def load_calibration(state: Compilation) -> None:
    """Read, split and encode the recorded episodes."""
    request = state.request
    state.say(f"read and encode {request.calib}")
    state.episodes = load_episodes(request.calib, state.model, request.features, state.trained)
    options = Options(request.methods, request.keep_float)
    state.builder = FamilyBuilder(state.model, state.episodes, options, state.say, state.planners)


def export_graphs(state: Compilation) -> None:
    """Export the float32 graphs of every family, on which quantizations are found."""
    state.families = [export_family(state.builder, each) for each in state.plans]


def quantize_graphs(state: Compilation) -> None:
    """Give every graph its precision, and write the graphs that ship."""
    exported, state.families = state.families, []
    for each in exported:
        try:
            state.families.append(quantize_family(state.builder, each))
        except GateError as error:
            # A search that found nothing; the last family has nothing to be left out of.
            if state.request.strict or (each is exported[-1] and not state.families):
                raise
            state.leave_out(each.plan, "", str(error))
    state.requested = {each.plan.name: each.precision for each in state.families}


def run_float_model(state: Compilation) -> None:
    """Plan and forecast with the float model on held-out episodes, for the gates to compare."""
    held_out = state.episodes.held_out
    state.plans_expected = {}
    for spec in state.planners:
        state.say(f"plan with {spec.graph} in PyTorch")
        state.plans_expected[spec.graph] = truth_of(state.model, spec, held_out.windows)
    state.expected = reference(state.model, held_out)


def gate_graphs(state: Compilation) -> None:
    """Measure every gate of `encode` and `forecast`, each beside its negative control."""
    state.gates = {}
    for index, family in enumerate(state.families):
        state.say(f"gate {family.plan.name}")
        if state.request.strict:
            settled = SettledFamily(family, gate_family(family, state.expected))
        else:
            settled = settle_graphs(state.builder, family, state.expected)
        state.families[index] = settled.family
        state.gates[family.plan.name] = settled.gates
        state.fallbacks += fallbacks_of(settled.family, settled.reasons)
    if state.trained is not None:
        # Of the float model, which every family is compared with, so the same for all of them.
        gate_of_camera = camera_gate(state.model, state.trained, state.episodes.held_out)
        for name, gates in state.gates.items():
            gates.append(replace(gate_of_camera, family=name))
    gate.require_controls([each for gates in state.gates.values() for each in gates])


def gate_planners(state: Compilation) -> None:
    """Measure every gate of the planners; one that fails goes back to float, or is left out."""
    strict = state.request.strict
    for index, family in enumerate(state.families):
        name, results = family.plan.name, []
        if not strict and not all(each.passed for each in state.gates[name]):
            continue  # a family that is left out needs no planner
        for truth in state.plans_expected.values():
            settled = settle_planner(state.builder, family, truth, whole=not strict)
            gate.require_controls(settled.result.gates(name))
            if strict or settled.result.passed:
                family = settled.family
                results.append(settled.result)
                state.fallbacks += fallbacks_of(family, settled.reasons)
            else:
                state.leave_out(family.plan, truth.facts.graph, settled.verdict)
                family = without_planner(family, truth.facts.graph)
        state.families[index] = family
        state.gates[name] += planner_gates.gates(name, results)


def require_gates(state: Compilation) -> None:
    """Leave out the families with a failed gate; stop where that leaves none.

    With `strict`, stop unless every gate passed.
    """
    # All families at once: one cause often fails several, and the message names them together.
    every = [each for gates in state.gates.values() for each in gates]
    if state.request.strict:
        gate.require(every)
        return
    kept = []
    for family in state.families:
        if failed := [each for each in state.gates[family.plan.name] if not each.passed]:
            state.leave_out(family.plan, "", gate.verdicts(failed))
        else:
            kept.append(family)
    if not kept:
        gate.require(every)
    state.families = kept


def name_families(state: Compilation) -> None:
    """Name the families by what they ended with, and merge those that became equal."""
    kept, found = renamed(state.families, state.requested)
    state.fallbacks += found
    state.families = list(kept.values())
    state.gates = {
        family.plan.name: [replace(each, family=family.plan.name) for each in state.gates[old]]
        for old, family in kept.items()
    }


def write_bundle(state: Compilation) -> None:
    """Pack the graphs with what a robot must know about them, in one atomic write."""
    request, families = state.request, state.families
    state.say(f"write {request.out}")
    carried = {graph for family in families for graph in family.graphs}
    contents = pack.Contents(
        model=state.model,
        about=state.about,
        episodes=state.episodes,
        families=[family.describe() for family in families],
        graphs={
            (family.plan.name, name): graph.SerializeToString()
            for family in families
            for name, graph in family.graphs.items()
        },
        gates=[each for gates in state.gates.values() for each in gates],
        notes={key: text for family in families for key, text in family.provenance()},
        planners=tuple(spec for spec in state.planners if spec.graph in carried),
        reference={
            key: array
            for graph, expected in state.plans_expected.items()
            if graph in carried
            for key, array in golden_of(expected).items()
        },
        fallbacks=tuple(state.fallbacks),
    )
    state.bundle = pack.write(request.out, contents, tar=request.tar, force=request.force)


def _take_camera(state: Compilation, camera: CameraRequest) -> None:
    """Give the model a larger camera; its weights stay as they are."""
    trained = state.model.frame
    frame = camera.frame(trained)
    if frame != trained:
        state.model.take_camera(frame)
        state.about, state.trained = replace(state.about, frame=frame), trained
