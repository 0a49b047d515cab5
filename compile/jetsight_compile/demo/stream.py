"""Stream held-out episodes through a bundle and judge everything the demo reports.

Shapes: L frames of the library, s state size.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from jetsight.backends import registry
from jetsight.bundle.bundle import Bundle
from jetsight.bundle.runtime_spec import StreamSpec
from jetsight.datasets.dataset import RecordedDataset
from jetsight.engine import NDArray
from jetsight.machine.cpu import default_threads
from jetsight.plan_report.nearest_frames import FrameIndex, build_library
from jetsight.session import Session
from jetsight_compile.demo.forecast_images import ForecastExample, forecast_examples
from jetsight_compile.demo.metrics import (
    HorizonErrors,
    Parity,
    SurpriseReport,
    engine_parity,
    horizon_errors,
    surprise_report,
)
from jetsight_compile.demo.positions import Places, Probe, locate, picture_marker
from jetsight_compile.demo.scenario import Replay
from jetsight_compile.demo.watch import Progress, Watched, watch
from jetsight_compile.pipeline.shipped import FAMILY


@dataclass(frozen=True)
class StreamResult:
    """Everything the reports are made from.

    Args:
        bundle: that was streamed through.
        watched: the stream with the planted change.
        control: the stream without it.
        errors: of the forecasts.
        surprise: judged with its control.
        parity: of every installed backend.
        library: index of frames that stand for forecast latents.
        examples: forecasts as pictures.
        places: forecasts in the robot's units.
        rate_hz: frames per second; 0 for as fast as they are taken.
        threads: of the engines.
    """

    bundle: Bundle
    watched: Watched
    control: Watched
    errors: HorizonErrors
    surprise: SurpriseReport
    parity: Parity
    library: FrameIndex
    examples: list[ForecastExample]
    places: list[Places]
    rate_hz: float
    threads: int


def stream_and_judge(
    bundle: Bundle,
    data: RecordedDataset,
    frames: int,
    backend: str | None = None,
    rate_hz: float | None = None,
    progress: Progress = lambda forecast: None,
) -> StreamResult:
    """Stream held-out episodes of `data` through `bundle` and measure all the reports need.

    Args:
        bundle: with a family `cpu-int8`; its provenance says which episodes calibrated it.
        data: the dataset it was calibrated on.
        frames: to show, the planted change included.
        backend: name of a backend; None for the preferred one.
        rate_hz: frames per second; None for the model's camera rate, 0 for as fast as possible.
        progress: called with every forecast of the stream.

    Raises:
        UsageError: `frames` is too few, or there is no such backend.
        DataError: the dataset has too few held-out episodes.
    """
    spec = StreamSpec.from_manifest(bundle.manifest)
    calibration = bundle.manifest.provenance.calibration
    used = list(calibration.episodes) if calibration else []
    replay = Replay.load(data, used, frames, spec)
    rate_hz = spec.camera_hz if rate_hz is None else rate_hz
    with Session.open(bundle, backend, FAMILY) as session:
        watched = watch(session, replay, rate_hz, progress)
        control = watch(session, replay.unchanged(), 0)
    errors = horizon_errors(watched)
    library = _library(bundle, session.backend, data, used, watched)
    probe = Probe.fit(library.z, _states(data, library))
    # A place in the picture is one of a single camera.
    alone = len(spec.cameras) < 2
    marker = picture_marker(probe, data.state_names, bundle.manifest.action) if alone else None
    return StreamResult(
        bundle=bundle,
        watched=watched,
        control=control,
        errors=errors,
        surprise=surprise_report(watched, control),
        parity=engine_parity(bundle, FAMILY),
        library=library,
        examples=forecast_examples(watched, errors, library, data, marker),
        places=locate(watched, errors, probe),
        rate_hz=rate_hz,
        threads=default_threads(),
    )


def _library(
    bundle: Bundle, backend: str, data: RecordedDataset, episodes: Sequence[int], watched: Watched
) -> FrameIndex:
    """Index every frame of `episodes` with the engine that encoded the stream."""
    maker = registry.open_backend(backend, FAMILY)
    streamed, spec = watched.replay.scenario.episodes, watched.spec
    with closing(maker.load(bundle.graph(FAMILY, "encode"))) as encode:
        return build_library(
            data,
            encode,
            spec.latent_std,
            among=episodes,
            without=streamed,
            most=None,
            state_names=spec.state_names,
        )


def _states(data: RecordedDataset, library: FrameIndex) -> NDArray:
    """`[L, s]` what the robot recorded beside each frame of the library."""
    recorded = {episode: data.rows(episode).states for episode in library.episodes}
    return np.stack([recorded[episode][tick] for episode, tick in library.places])
