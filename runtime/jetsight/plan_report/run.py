"""One plan as it is asked for on a command line: from texts to a report.

Shapes: h, w frame size, D latent size, H horizon, a size of one robot action.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jetsight.backends import registry
from jetsight.bundle.bundle import Bundle
from jetsight.bundle.planner_spec import PlannerSpec
from jetsight.bundle.runtime_spec import PlanSpec
from jetsight.datasets.lerobot import LeRobotDataset
from jetsight.engine import Engine, NDArray
from jetsight.errors import CameraError, UsageError
from jetsight.plan_report import start as moments
from jetsight.plan_report.figure import FigureImages
from jetsight.plan_report.nearest_frames import Neighbour, build_library, library_episodes, pictures
from jetsight.plan_report.report import PlanReport
from jetsight.plan_report.start import EpisodeTick, Reader, Slides, Start
from jetsight.planning.goal import Goal
from jetsight.planning.limits import Limits
from jetsight.session import Session

Progress = Callable[[int], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True, kw_only=True)
class OfflinePlanArgs:
    """The options of `jetsight imagine` as strings, before they are parsed.

    Args:
        frame: image or moment to plan from.
        goal: image or moment to plan towards.
        targets: `NAME=VALUE` of the probe.
        history: images before `frame`.
        last_action: `X,Y` held until now.
        planner: name of a graph.
        iterations: exactly so many.
        budget_ms: deadline.
        arrive: ticks until the goal is due.
        seed: of the draws.
        low: `X,Y` smallest action.
        high: `X,Y` largest.
        no_constraint: do not heed hazards.
        resize: resize frames of another size.
        library: dataset that shows the imagined path.
        backend: see `Session.open`.
        family: likewise.
        threads: likewise.
    """

    frame: str
    goal: str | None = None
    targets: Sequence[str] = ()
    history: Sequence[str] = ()
    last_action: str | None = None
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


@dataclass(frozen=True)
class _Asked:
    """Wishes, read and checked."""

    start: Start
    goal: Goal
    low: NDArray | None
    high: NDArray | None
    library: LeRobotDataset | None
    without: set[int]  # episodes of the library that would flatter the model
    told: tuple[str, str]  # what is planned from, and towards


def plan_once(
    bundle: Bundle, wishes: OfflinePlanArgs, progress: Progress
) -> tuple[PlanReport, FigureImages]:
    """Do what somebody asks for; all that is read is read before an engine is loaded.

    Args:
        bundle: verified.
        wishes: what is asked for.
        progress: given the number of a library's frames, told how many of them are done.

    Raises:
        JetsightError: what is asked for cannot be done. That there is no plan is not one.
    """
    spec = PlanSpec.from_manifest(bundle.manifest)
    asked = _read(wishes, spec)
    with Session.open(bundle, wishes.backend, wishes.family, threads=wishes.threads) as session:
        facts = _planner(session, wishes)
        z_now = _watch(session, asked.start)
        plan = session.imagine(
            asked.goal,
            wishes.budget_ms,
            planner=facts.graph,
            iterations=wishes.iterations,
            limits=Limits(asked.low, asked.high),
            constrain=not wishes.no_constraint,
            seed=wishes.seed,
            arrive_ticks=wishes.arrive,
        ).copy()
        ran_on = (session.backend, session.family, session.precision[facts.graph])
    maker = registry.open_backend(ran_on[0], ran_on[1], threads=wishes.threads)
    z_goal, near = _look(
        lambda: maker.load(bundle.graph(ran_on[1], "encode")),
        asked,
        plan.z_future,
        spec.stream.latent_std,
        progress,
    )
    report = PlanReport(
        plan,
        facts,
        spec,
        bundle.manifest.action,
        (bundle.manifest.name, *ran_on),
        asked.told,
        asked.start.actions,
        asked.low,
        asked.high,
        z_now,
        z_goal,
        asked.goal.targets,
        wishes.arrive,
        not wishes.no_constraint,
        near,
        "" if asked.library is None else str(asked.library.path),
    )
    seen = () if asked.library is None else pictures(asked.library, near)
    return report, FigureImages(asked.start.frames_u8[-1], asked.goal.image_hwc_u8, seen)


def _read(wishes: OfflinePlanArgs, spec: PlanSpec) -> _Asked:
    if wishes.budget_ms is not None and not 0 <= wishes.budget_ms < math.inf:
        raise UsageError(f"--budget-ms is {wishes.budget_ms}, expected milliseconds from 0")
    low = _vector(wishes.low, spec.names, "--low")
    high = _vector(wishes.high, spec.names, "--high")
    targets = _targets(wishes.targets)
    if wishes.goal is None and not targets:
        raise UsageError("there is no goal; give an image with --goal or values with --probe-goal")
    reader = Reader(spec.stream, wishes.resize)
    start = _start(wishes, spec, reader)
    image = None if wishes.goal is None else reader.frame(wishes.goal)
    wanted = [wishes.goal] if wishes.goal else []
    wanted += [f"{name} = {value:g}" for name, value in targets.items()]
    told = f"{wishes.frame} ({start.said})", ", ".join(wanted)
    if reader.resized:
        told = f"{told[0]}; resized: {', '.join(dict.fromkeys(reader.resized))}", told[1]
    goal = Goal(image_hwc_u8=image, targets=targets)
    library = _library(wishes, spec)
    without = set() if library is None else _own_episodes(wishes, library)
    return _Asked(start, goal, low, high, library, without, told)


def _start(wishes: OfflinePlanArgs, spec: PlanSpec, reader: Reader) -> Start:
    place = moments.parse(wishes.frame)
    last = _vector(wishes.last_action, spec.names, "--last-action")
    if isinstance(place, EpisodeTick):
        if wishes.history or last is not None:
            raise UsageError(
                f"{place} is recorded together with its history and actions; leave out --history "
                "and --last-action"
            )
        return reader.recorded(place)
    if last is not None and not ((spec.low <= last) & (last <= spec.high)).all():
        raise UsageError(
            f"--last-action is {wishes.last_action}, which is outside the robot's bounds "
            f"{spec.low.tolist()} to {spec.high.tolist()}"
        )
    return reader.still(wishes.frame, wishes.history, last)


def _vector(text: str | None, names: Sequence[str], option: str) -> NDArray | None:
    """One number per action dimension."""
    if text is None:
        return None
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
        return math.nan


def _library(wishes: OfflinePlanArgs, spec: PlanSpec) -> LeRobotDataset | None:
    if wishes.library is None:
        return None
    data, stream = LeRobotDataset.open(wishes.library), spec.stream
    if (data.height, data.width) != (stream.height_px, stream.width_px):
        raise CameraError(
            f"{data.path} has frames of {data.width}x{data.height} px, but the model takes "
            f"{stream.width_px}x{stream.height_px} (width x height); name a library of the model's "
            "camera"
        )
    library_episodes(data, _own_episodes(wishes, data))
    return data


def _own_episodes(wishes: OfflinePlanArgs, data: LeRobotDataset) -> set[int]:
    """Episodes of the library that the start or the goal is a moment of."""
    places = [moments.parse(text) for text in (wishes.frame, wishes.goal) if text]
    return {
        place.episode
        for place in places
        if isinstance(place, EpisodeTick) and place.folder.resolve() == data.path.resolve()
    }


def _planner(session: Session, wishes: OfflinePlanArgs) -> PlannerSpec:
    """The planner to use, loaded: a start must not grow old while engines are made."""
    planners, name = {p.graph: p for p in session.planners}, wishes.planner
    if name is not None and planners and name not in planners:
        raise UsageError(
            f"{session.family} has no planner {name[:100]!r}; choose one of {', '.join(planners)}"
        )
    if name is None and wishes.budget_ms is not None and len(planners) > 1:
        name = session.tune(wishes.budget_ms).planner
    session.load_planner(name)
    return planners[name or next(iter(planners))]


def _watch(session: Session, start: Start) -> NDArray | None:
    """Let the session see everything; the newest latent `[D]`, None if it is not finite."""
    z = None
    for forecast in session.stream(Slides(start, session.spec.action_block, session.clock)):
        z = None if forecast.z is None else forecast.z.copy()
    return z


def _look(
    encode: Callable[[], Engine],
    asked: _Asked,
    z_future: NDArray | None,
    spread: NDArray,
    progress: Progress,
) -> tuple[NDArray | None, list[Neighbour]]:
    """Latent of the goal's image, and the recorded frames along the imagined path."""
    image, library = asked.goal.image_hwc_u8, asked.library
    if image is None and (library is None or z_future is None):
        return None, []
    with closing(encode()) as engine:
        z_goal = None
        if image is not None:
            engine.inputs["frame_hwc_u8"].write(np.ascontiguousarray(image))
            engine.run()
            z_goal = engine.outputs["z"].read().copy()
        if library is None or z_future is None:
            return z_goal, []
        episodes = library_episodes(library, asked.without)
        with progress(sum(library.episode_lengths[i] for i in episodes)) as done:
            known = build_library(library, engine, spread, without=asked.without, progress=done)
        return z_goal, known.nearest(z_future)
