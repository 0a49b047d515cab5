"""A film of the first episodes: what the camera saw, the goal, and the future as it was imagined.

A model of latents has no pictures of its own: each imagined latent is shown by the recorded frame
whose latent is nearest, from a dataset that no episode of the evaluation is part of.

Shapes: h, w frame size, H horizon, D latent size.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from jetsight.backends import registry
from jetsight.bundle.bundle import Bundle
from jetsight.bundle.runtime_spec import StreamSpec
from jetsight.datasets.lerobot import LeRobotDataset
from jetsight.engine import NDArray
from jetsight.errors import DataError, MissingDependency
from jetsight.storage import atomic
from jetsight_compile.closed_loop.config import Settings
from jetsight_compile.closed_loop.results import BUNDLE, FREE
from jetsight_compile.closed_loop.rollout import Film
from jetsight_compile.closed_loop.screen import SIZE, Screen, View, check_pillow
from jetsight_compile.closed_loop.task import Region, Tolerance
from jetsight_compile.demo.library import Library, build_library
from jetsight_compile.demo.run import find_data

_LAST_FRAME_S = 1.5  # how long the end of an episode stays


@dataclass(frozen=True)
class Studio:
    """Everything a film needs, checked before the first episode is played.

    Args:
        bundle: its encoder makes the library.
        family: of the encoder; None for the first that runs here.
        backend: of the encoder.
        data: frames that stand for imagined latents.
        target: file to write.
    """

    bundle: Bundle
    family: str | None
    backend: str | None
    data: LeRobotDataset
    target: Path

    @classmethod
    def open(cls, settings: Settings, target: Path, data: Path | None) -> Studio:
        """Look for what will be needed.

        Raises:
            DataError: there is no dataset, or its frames are of another size than the model's.
            MissingDependency: Pillow or PyAV is not installed.
        """
        check_pillow()
        _av()
        bundle = Bundle.open(settings.bundle)
        frame, dataset = bundle.manifest.frame, LeRobotDataset.open(find_data(data))
        if (dataset.height, dataset.width) != (frame.height_px, frame.width_px):
            raise DataError(
                f"{dataset.path} has {dataset.width}x{dataset.height} frames, but the model takes "
                f"{frame.width_px}x{frame.height_px}; name another dataset with --data"
            )
        return cls(bundle, settings.family, settings.backend, dataset, target)

    def publish(self, films: Sequence[Sequence[Film]], region: Region | None) -> None:
        """Write the film.

        Args:
            films: arms of each episode; of the planning ones those of the bundle are shown.
            region: drawn into the picture.

        Raises:
            StorageError: it cannot be written.
        """
        shown = [film for arms in films for film in chosen(arms)]
        library = self._library() if any(film.futures for film in shown) else None
        spec = StreamSpec.from_manifest(self.bundle.manifest)
        screen = Screen(self.bundle.manifest.name, region)
        pictures = (
            screen.draw(view)
            for film in shown
            for view in views(film, library, spec.action_block, round(spec.camera_hz))
        )
        atomic.write_file(self.target, encode(pictures, round(spec.camera_hz)))

    def _library(self) -> Library:
        families = [family.name for family in self.bundle.manifest.families]
        family = self.family or next((f for f in families if f.startswith("cpu")), families[0])
        engine = registry.open_backend(self.backend, family).load(
            self.bundle.graph(family, "encode")
        )
        try:
            scale = np.asarray(self.bundle.manifest.latent.std, np.float32)
            return build_library(self.data.episode, range(len(self.data)), (), engine, scale)
        finally:
            engine.close()


def chosen(arms: Sequence[Film]) -> list[Film]:
    """The arms worth watching: the bundle, also without its constraint; else the first."""
    planned = [film for film in arms if film.trial.arm in (BUNDLE, FREE)]
    return planned or list(arms[:1])


def views(film: Film, library: Library | None, block: int, fps: int) -> Iterator[View]:
    """What to draw, tick by tick; the last tick stays for a while."""
    tolerance = Tolerance()
    imagined: tuple[tuple[int, NDArray], ...] = ()
    cost: float | None = None
    reached = False
    for tick, (frame, miss) in enumerate(zip(film.frames_u8, film.misses, strict=True)):
        if library is not None and tick in film.futures:
            rows = library.nearest(film.futures[tick])
            ticks = range(tick + block, tick + block * (len(rows) + 1), block)
            imagined = tuple(zip(ticks, library.frames_u8[rows], strict=True))
        cost = film.costs.get(tick, cost)
        reached = reached or (tick > 0 and miss.within(tolerance))
        view = View(film.trial, tick, frame, film.goal_u8, miss, imagined, cost, reached)
        last = tick == len(film.frames_u8) - 1
        for _ in range(round(_LAST_FRAME_S * fps) if last else 1):
            yield view


def encode(pictures: Iterable[NDArray], fps: int) -> bytes:
    """H.264 mp4 of `uint8 [h, w, 3]` pictures, all of `SIZE`, one at a time in memory."""
    av = _av()
    file = io.BytesIO()
    options = {"crf": "20", "preset": "medium"}
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def _av() -> Any:
    try:
        import av
    except ImportError as problem:
        raise MissingDependency("av", "camera", "the film of an evaluation") from problem
    return av
