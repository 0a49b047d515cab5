"""Stream held-out episodes through a bundle and judge everything the demo reports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jetsight.backends import registry
from jetsight.bundle.bundle import Bundle
from jetsight.bundle.runtime_spec import StreamSpec
from jetsight.clock import Clock
from jetsight.datasets.lerobot import LeRobotDataset
from jetsight.machine.cpu import default_threads
from jetsight.session import Session
from jetsight.stream.frames import Forecast
from jetsight_compile.demo.forecast_images import ForecastExample, show_moments
from jetsight_compile.demo.library import DatasetFrames, build_library
from jetsight_compile.demo.metrics import (
    HorizonErrors,
    Parity,
    SurpriseReport,
    engine_parity,
    horizon_errors,
    surprise_report,
)
from jetsight_compile.demo.positions import Places, Probe, locate, picture_marker
from jetsight_compile.demo.scenario import (
    Scenario,
    ScenarioSource,
    Watched,
    held_out_episodes,
    plan_scenario,
    watch,
)
from jetsight_compile.pipeline.shipped import FAMILY


@dataclass(frozen=True)
class StreamResult:
    """Everything the reports are made from."""

    bundle: Bundle
    scenario: Scenario
    spec: StreamSpec
    watched: Watched
    control: Watched
    errors: HorizonErrors
    surprise: SurpriseReport
    parity: Parity
    library: DatasetFrames
    moments: list[ForecastExample]
    places: list[Places]
    library_episodes: Sequence[int]
    source: str
    rate_hz: float
    threads: int


def _plan(data: LeRobotDataset, used: list[int], frames: int, spec: StreamSpec) -> Scenario:
    held_out = held_out_episodes(len(data), used)
    lengths = {episode: data.episode_lengths[episode] for episode in held_out}
    return plan_scenario(lengths, frames, spec.history, spec.action_block)


def stream_and_judge(
    bundle: Bundle,
    data: LeRobotDataset,
    *,
    frames: int,
    backend: str | None = None,
    rate_hz: float | None = None,
    clock: Clock | None = None,
    progress: Callable[[Forecast], None] = lambda forecast: None,
) -> StreamResult:
    """Stream held-out episodes of `data` through `bundle` and measure all the reports need.

    Args:
        bundle: with a family `cpu-int8`; its provenance says which episodes calibrated it.
        data: the dataset it was calibrated on.
        frames: to show, the planted change included.
        backend: name of a backend; None for the preferred one.
        rate_hz: frames per second; None for the model's camera rate.
        clock: of the session.
        progress: told of every forecast of the stream.

    Raises:
        UsageError: `frames` is too few, or there is no such backend.
        DataError: the dataset has too few held-out episodes.
    """
    spec = StreamSpec.from_manifest(bundle.manifest)
    calibration = bundle.manifest.provenance.calibration
    used = list(calibration.episodes) if calibration else []
    scenario = _plan(data, used, frames, spec)
    footage = {episode: data.episode(episode) for episode in scenario.episodes}
    rate_hz = spec.camera_hz if rate_hz is None else rate_hz
    source = f"{data.path.name} episodes {', '.join(map(str, scenario.episodes))}"
    with Session.open(bundle, backend, FAMILY, clock=clock) as session:
        camera = ScenarioSource(scenario, footage, data.fps, source)
        watched = watch(session, camera, rate_hz, progress)
        unchanged = ScenarioSource(scenario.unchanged(), footage, data.fps, source)
        control = watch(session, unchanged, 0)
    errors = horizon_errors(watched, scenario, spec)
    encode = registry.open_backend(session.backend, FAMILY).load(bundle.graph(FAMILY, "encode"))
    library = build_library(data.episode, used, scenario.episodes, encode, spec.latent_std)
    encode.close()
    probe = Probe.fit(library.z, library.states)
    marker = picture_marker(probe, data.state_names, bundle.manifest.action)
    return StreamResult(
        bundle=bundle,
        scenario=scenario,
        spec=spec,
        watched=watched,
        control=control,
        errors=errors,
        surprise=surprise_report(watched, control, scenario, spec),
        parity=engine_parity(bundle, FAMILY),
        library=library,
        moments=show_moments(watched, errors, scenario, spec, library, footage, marker),
        places=locate(watched, errors, scenario, spec, probe, footage, data.state_names),
        library_episodes=used,
        source=source,
        rate_hz=rate_hz,
        threads=default_threads(),
    )
