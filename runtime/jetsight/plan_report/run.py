"""One plan from the texts of a command line to a report.

Shapes: h, w frame size, D latent size, H horizon, a size of one robot action.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from jetsight.backends import registry
from jetsight.bundle.bundle import Bundle
from jetsight.bundle.planner_spec import PlannerSpec
from jetsight.bundle.runtime_spec import PlanSpec
from jetsight.cameras.source import StreamRequest
from jetsight.datasets.dataset import FeatureMap, RecordedDataset
from jetsight.datasets.open import open_for
from jetsight.engine import Engine, NDArray
from jetsight.errors import CameraError, UsageError
from jetsight.plan_report.figure import FigureImages
from jetsight.plan_report.nearest_frames import build_library, library_episodes, pictures
from jetsight.plan_report.report import PlanReport, RanOn
from jetsight.plan_report.start import EpisodeTick, Slides, Start, StartReader, parse
from jetsight.planning.goal import Goal, PlanRequest
from jetsight.planning.limits import Limits
from jetsight.session import Session
from jetsight.stream.forecaster import write_frame

Progress = Callable[[int], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True, kw_only=True)
class OfflinePlanArgs:
    """The options of `jetsight imagine` as strings, before they are parsed.

    Args:
        frame: image or recorded tick to plan from.
        goal: image or recorded tick to plan towards.
        targets: `NAME=VALUE` of the probe.
        history: images before `frame`.
        last_action: `X,Y` held until now.
        state: `X,Y` beside `frame`, for a model that reads a state.
        goal_state: `X,Y` beside `goal`.
        planner: name of a graph.
        iterations: exactly so many.
        budget_ms: deadline.
        arrive: ticks until the goal is due.
        seed: of the draws.
        low: `X,Y` smallest action.
        high: `X,Y` largest.
        no_constraint: plan without the bundle's hazards.
        resize: resize frames of another size.
        library: dataset whose frames illustrate the imagined path.
        backend: see `Session.open`.
        family: likewise.
        threads: likewise.
    """

    frame: str
    goal: str | None = None
    targets: Sequence[str] = ()
    history: Sequence[str] = ()
    last_action: str | None = None
    state: str | None = None
    goal_state: str | None = None
    planner: str | None = None
    iterations: int | None = None
    budget_ms: float | None = None
    arrive: int | None = None
    seed: int = 0
    low: str | None = None
    high: str | None = None
    no_constraint: bool = False
    resize: bool = False
    library: Path | None = None
    backend: str | None = None
    family: str | None = None
    threads: int | None = None
    features: FeatureMap = field(default_factory=FeatureMap)


@dataclass(frozen=True)
class _Library:
    """Dataset to illustrate the path with, and its episodes that would flatter the model."""

    data: RecordedDataset
    without: set[int]


def plan_once(
    bundle: Bundle, args: OfflinePlanArgs, progress: Progress
) -> tuple[PlanReport, FigureImages]:
    """Make one plan; all files are read before an engine is loaded.

    Args:
        bundle: verified.
        args: options of the plan.
        progress: context of a library's encoding; takes its number of frames, yields a callable
            that takes how many more of them are done.

    Returns:
        The report, also of a plan that is none, and the images of its figure.

    Raises:
        JetsightError: the options are wrong, or something cannot be read or loaded.
    """
    # Without a family, since frames and options are checked before an engine is chosen.
    spec = PlanSpec.from_manifest(bundle.manifest)
    reader = StartReader(spec.stream, args.resize, features=args.features)
    request, start = _read(args, spec, reader)
    library = _library(args, spec)
    with Session.open(bundle, args.backend, args.family, threads=args.threads) as session:
        planner = _planner(session, request)
        z_now = _watch(session, start)
        # Copied: closing the session releases the buffers that the plan shows.
        plan = session.plan(replace(request, planner=planner.graph)).copy()
        precision = session.precision[planner.graph]
        ran_on = RanOn(bundle.manifest.name, session.backend, session.family, precision)
    report = PlanReport(
        plan=plan,
        request=request,
        start=start,
        frame_source=args.frame,
        goal_source=args.goal,
        resized=reader.resized,
        facts=planner,
        spec=spec,
        action=bundle.manifest.action,
        ran_on=ran_on,
        z_now=z_now,
        library="" if library is None else str(library.data.path),
    )
    report = _look(report, lambda: _encoder(bundle, ran_on, args.threads), library, progress)
    seen = () if library is None else pictures(library.data, report.neighbours)
    return report, FigureImages(start.frames_u8[-1], request.goal.image_hwc_u8, seen)


def _read(args: OfflinePlanArgs, spec: PlanSpec, reader: StartReader) -> tuple[PlanRequest, Start]:
    """Parse the options, and read the frames that they name."""
    if args.budget_ms is not None and not 0 <= args.budget_ms < math.inf:
        raise UsageError(f"--budget-ms is {args.budget_ms}, expected milliseconds from 0")
    low = _vector(args.low, spec.names, "--low")
    high = _vector(args.high, spec.names, "--high")
    targets = _targets(args.targets)
    if args.goal is None and not targets:
        raise UsageError("there is no goal; give an image with --goal or values with --probe-goal")
    start = _start(args, spec, reader)
    request = PlanRequest(
        goal=_goal(args, spec, reader, targets),
        deadline_ms=args.budget_ms,
        planner=args.planner,
        iterations=args.iterations,
        limits=Limits(low, high),
        constrain=not args.no_constraint,
        seed=args.seed,
        arrive_ticks=args.arrive,
    )
    return request, start


def _goal(
    args: OfflinePlanArgs, spec: PlanSpec, reader: StartReader, targets: Mapping[str, float]
) -> Goal:
    state = _vector(args.goal_state, spec.stream.state_names, "--goal-state")
    if args.goal is None:
        if state is not None:
            raise UsageError("--goal-state is given without --goal; give the image it belongs to")
        return Goal(targets=targets)
    state = reader.state(args.goal, state, "--goal-state")
    return Goal(image_hwc_u8=reader.frame(args.goal), targets=targets, state=state)


def _start(args: OfflinePlanArgs, spec: PlanSpec, reader: StartReader) -> Start:
    place = parse(args.frame)
    last = _vector(args.last_action, spec.names, "--last-action")
    if isinstance(place, EpisodeTick):
        if args.history or last is not None or args.state is not None:
            raise UsageError(
                f"{place} is recorded together with its history, actions and state; leave out "
                "--history, --last-action and --state"
            )
        return reader.recorded(place)
    if last is not None and not ((spec.low <= last) & (last <= spec.high)).all():
        raise UsageError(
            f"--last-action is {args.last_action}, which is outside the robot's bounds "
            f"{spec.low.tolist()} to {spec.high.tolist()}"
        )
    state = _vector(args.state, spec.stream.state_names, "--state")
    return reader.still(args.frame, args.history, last, state)


def _vector(text: str | None, names: Sequence[str], option: str) -> NDArray | None:
    """Parse one number per name."""
    if text is None:
        return None
    if not names:
        raise UsageError(f"{option} is {text[:200]!r}, but the model reads no such numbers")
    values = [_number(part) for part in text.split(",")]
    if len(values) != len(names) or not np.isfinite(values).all():
        raise UsageError(
            f"{option} is {text[:200]!r}, expected {len(names)} finite numbers with commas between "
            f"({', '.join(names)})"
        )
    return np.asarray(values, np.float32)


def _targets(texts: Sequence[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for text in texts:
        name, _, value = (part.strip() for part in text.rpartition("="))
        number = _number(value)
        if not name or not math.isfinite(number):
            raise UsageError(
                f"--probe-goal is {text[:200]!r}, expected NAME=VALUE with a finite number"
            )
        if name in found:
            raise UsageError(f"--probe-goal gives {name!r} twice")
        found[name] = number
    return found


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        # NaN, so that one check below refuses words and infinities alike.
        return math.nan


def _library(args: OfflinePlanArgs, spec: PlanSpec) -> _Library | None:
    if args.library is None:
        return None
    stream = spec.stream
    data = open_for(args.library, StreamRequest.of(stream).recording_spec, args.features)
    if (data.height, data.width) != (stream.height_px, stream.width_px):
        raise CameraError(
            f"{data.path} has frames of {data.width}x{data.height} px, but the model takes "
            f"{stream.width_px}x{stream.height_px} (width x height); name a library of the model's "
            "camera"
        )
    library = _Library(data, _own_episodes(args, data))
    library_episodes(data, library.without)  # refuses a library without other episodes
    return library


def _own_episodes(args: OfflinePlanArgs, data: RecordedDataset) -> set[int]:
    """List the episodes of the library that the start or the goal is taken from."""
    places = [parse(text) for text in (args.frame, args.goal) if text]
    return {
        place.episode
        for place in places
        if isinstance(place, EpisodeTick) and place.folder.resolve() == data.path.resolve()
    }


def _planner(session: Session, request: PlanRequest) -> PlannerSpec:
    """Choose and load the planner, so that the start is not stale when the engines are ready."""
    planners, name = {p.graph: p for p in session.planners}, request.planner
    # Without planners `load_planner` below gives the better message.
    if name is not None and planners and name not in planners:
        raise UsageError(
            f"{session.family} has no planner {name[:100]!r}; choose one of {', '.join(planners)}"
        )
    if name is None and request.deadline_ms is not None and len(planners) > 1:
        name = session.tune(request.deadline_ms).planner
    session.load_planner(name)
    return planners[name or next(iter(planners))]


def _watch(session: Session, start: Start) -> NDArray | None:
    """Stream the start; returns the newest latent `[D]`, None if it is not finite."""
    z = None
    for forecast in session.stream(Slides(start, session.spec.action_block, session.clock)):
        # Each forecast overwrites the view of the one before.
        z = None if forecast.z is None else forecast.z.copy()
    return z


def _encoder(bundle: Bundle, ran_on: RanOn, threads: int | None) -> Engine:
    backend = registry.open_backend(ran_on.backend, ran_on.family, threads=threads)
    return backend.load(bundle.graph(ran_on.family, "encode"))


def _look(
    report: PlanReport,
    encode: Callable[[], Engine],
    library: _Library | None,
    progress: Progress,
) -> PlanReport:
    """Add the goal's latent, and the recorded frames along the imagined path."""
    image, path = report.request.goal.image_hwc_u8, report.plan.z_future
    if image is None and (library is None or path is None):
        return report
    with closing(encode()) as engine:
        if image is not None:
            goal, stream = report.request.goal, report.spec.stream
            write_frame(stream, engine, np.ascontiguousarray(image), goal.state)
            engine.run()
            report = replace(report, z_goal=engine.outputs["z"].read().copy())
        if library is None or path is None:
            return report
        data, without = library.data, library.without
        episodes, stream = library_episodes(data, without), report.spec.stream
        with progress(sum(data.episode_lengths[i] for i in episodes)) as done:
            known = build_library(
                data,
                engine,
                stream.latent_std,
                without=without,
                state_names=stream.state_names,
                progress=done,
            )
        return replace(report, neighbours=known.nearest(path))
