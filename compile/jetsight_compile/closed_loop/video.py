"""Video of the first episodes: camera frame, goal, and imagined future.

The model predicts latents, not pictures: each imagined latent is shown as the recorded frame with
the nearest latent, from a dataset that contains no episode of the evaluation.

Shapes: h, w frame size, H horizon, D latent size.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from jetsight.backends import registry
from jetsight.bundle.bundle import Bundle
from jetsight.datasets.dataset import FeatureMap, RecordedDataset
from jetsight.datasets.open import open_dataset
from jetsight.datasets.pyav import import_av
from jetsight.engine import NDArray
from jetsight.errors import DataError, MissingDependency
from jetsight.plan_report.nearest_frames import FrameIndex, build_library, pictures
from jetsight.plan_report.style import BLUE, FAINT, GREEN, GREY, INK, RED
from jetsight.storage import atomic
from jetsight_compile.closed_loop.config import EvalConfig
from jetsight_compile.closed_loop.report import format_measure, shown_unit
from jetsight_compile.closed_loop.results import BUNDLE, FREE
from jetsight_compile.closed_loop.rollout import EpisodeResult, EpisodeTrace
from jetsight_compile.closed_loop.tasks.region import Region
from jetsight_compile.closed_loop.tasks.task import EvalTask, Judgement
from jetsight_compile.pipeline.shipped import find_data

_PURPOSE = "the video of an evaluation"
_LAST_FRAME_S = 1.5  # duration of the last frame of an episode
Imagined = Mapping[int, Sequence[NDArray]]  # pictures of a plan, by the tick of the plan

SIZE = (1008, 704)  # width, height; H.264 requires even numbers
_LARGE, _SMALL, _GAP, _MARGIN = 360, 176, 20, 24
_TOP, _STRIP = 88, 500
_MOST_MEASURES = 3  # rows beside the pictures; the results have them all


@dataclass(frozen=True)
class Studio:
    """Inputs of a video, checked before the first episode runs.

    Args:
        bundle: its encoder indexes the frames.
        family: of the encoder; None for the first CPU family, else the first.
        backend: of the encoder; None for the preferred one.
        data: frames that represent imagined latents.
        target: file to write.
    """

    bundle: Bundle
    family: str | None
    backend: str | None
    data: RecordedDataset
    target: Path

    @classmethod
    def open(
        cls,
        settings: EvalConfig,
        target: Path,
        data: Path | None,
        features: FeatureMap | None = None,
    ) -> Studio:
        """Check dataset and libraries of a video.

        Raises:
            DataError: there is no dataset, or its frame size is not the model's.
            MissingDependency: Pillow or PyAV is not installed.
        """
        _pillow()
        import_av(_PURPOSE)
        bundle = Bundle.open(settings.bundle)
        frame, dataset = bundle.manifest.frame, open_dataset(find_data(data), features)
        if (dataset.height, dataset.width) != (frame.height_px, frame.width_px):
            raise DataError(
                f"{dataset.path} has {dataset.width}x{dataset.height} frames, but the model takes "
                f"{frame.width_px}x{frame.height_px}; name another dataset with --data"
            )
        return cls(bundle, settings.family, settings.backend, dataset, target)

    def publish(
        self, films: Sequence[Sequence[EpisodeTrace]], task: EvalTask, region: Region | None
    ) -> None:
        """Write the video.

        Args:
            films: arms of each episode; `chosen` selects those to show.
            task: of the evaluation.
            region: drawn into the pictures if the task knows where.

        Raises:
            StorageError: the file cannot be written.
        """
        shown = [film for arms in films for film in chosen(arms)]
        library = self._library() if any(film.futures for film in shown) else None
        drawn = self._drawn(shown, library, Screen(self.bundle.manifest.name, task, region))
        fps = round(self.bundle.manifest.timing.camera_hz)
        atomic.write_file(self.target, encode(drawn, fps))

    def _drawn(
        self, films: Sequence[EpisodeTrace], library: FrameIndex | None, screen: Screen
    ) -> Iterator[NDArray]:
        timing = self.bundle.manifest.timing
        for film in films:
            known = {} if library is None else imagined_frames(film, library, self.data)
            for view in views(film, known, timing.action_block, round(timing.camera_hz)):
                yield screen.draw(view)

    def _library(self) -> FrameIndex:
        families = [family.name for family in self.bundle.manifest.families]
        family = self.family or next((f for f in families if f.startswith("cpu")), families[0])
        maker = registry.open_backend(self.backend, family)
        scale = np.asarray(self.bundle.manifest.latent.std, np.float32)
        with closing(maker.load(self.bundle.graph(family, "encode"))) as engine:
            return build_library(self.data, engine, scale, most=None)


def imagined_frames(film: EpisodeTrace, library: FrameIndex, data: RecordedDataset) -> Imagined:
    """Find the recorded frames nearest to the imagined latents, by the tick of the plan."""
    near = {tick: library.nearest(z) for tick, z in film.futures.items()}
    frames = iter(pictures(data, [each for row in near.values() for each in row]))
    return {tick: [next(frames) for _ in row] for tick, row in near.items()}


def chosen(arms: Sequence[EpisodeTrace]) -> list[EpisodeTrace]:
    """Select the arms to show: the bundle, also without its constraint; else the first."""
    planned = [film for film in arms if film.trial.arm in (BUNDLE, FREE)]
    return planned or list(arms[:1])


def views(film: EpisodeTrace, imagined: Imagined, block: int, fps: int) -> Iterator[View]:
    """Yield the views of an episode, tick by tick; the last one is repeated.

    Args:
        film: the episode.
        imagined: pictures of each plan, by tick.
        block: ticks per action block.
        fps: frames per second.
    """
    running: tuple[tuple[int, NDArray], ...] = ()
    cost: float | None = None
    reached = False
    for tick, (frame, found) in enumerate(zip(film.frames_u8, film.judgements, strict=True)):
        if tick in imagined:
            blocks = enumerate(imagined[tick], start=1)
            running = tuple((tick + k * block, picture) for k, picture in blocks)
        cost = film.costs.get(tick, cost)
        reached = reached or (tick > 0 and found.success)
        view = View(
            film.trial, tick, frame, film.goal_u8, found, running, cost=cost, reached=reached
        )
        last = tick == len(film.frames_u8) - 1
        for _ in range(round(_LAST_FRAME_S * fps) if last else 1):
            yield view


def encode(pictures: Iterable[NDArray], fps: int) -> bytes:
    """Encode `uint8 [h, w, 3]` pictures of `SIZE` as H.264 mp4, one at a time in memory."""
    av = import_av(_PURPOSE)
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


@dataclass(frozen=True)
class View:
    """Content of one picture.

    Args:
        trial: the episode and the arm.
        tick: ticks since the start.
        frame_u8: `[h,w,3]` newest camera frame.
        goal_u8: `[h,w,3]` goal.
        judgement: distance to the goal at this tick.
        imagined: `(tick, [h,w,3])` per block of the running plan; empty without one.
        cost: cost of the running plan.
        reached: the goal was reached at this tick or before.
    """

    trial: EpisodeResult
    tick: int
    frame_u8: NDArray
    goal_u8: NDArray
    judgement: Judgement
    imagined: tuple[tuple[int, NDArray], ...]
    cost: float | None
    reached: bool


class Screen:
    """Draws views.

    Args:
        title: text above every picture.
        task: of the evaluation.
        region: keep-out region, drawn over camera frame and goal if the task knows where.
    """

    def __init__(self, title: str, task: EvalTask, region: Region | None = None) -> None:
        self._title, self._task, self._region = title, task, region
        self._image, self._draw, self._font = _pillow()
        self._fonts = {size: self._font.load_default(size) for size in (15, 18, 26)}

    def draw(self, view: View) -> NDArray:
        """`uint8 [h, w, 3]` of `SIZE`."""
        canvas = self._image.new("RGB", SIZE, "white")
        pen = self._draw.Draw(canvas)
        trial = view.trial
        self._text(pen, (_MARGIN, 18), f"{self._title}   {trial.arm}", 26, INK)
        right = SIZE[0] - _MARGIN
        self._text(pen, (right, 24), f"episode {trial.episode}", 18, GREY, "ra")
        goal_x = _MARGIN + _LARGE + _GAP
        self._panel(canvas, pen, view.frame_u8, (_MARGIN, _TOP), _LARGE, "camera")
        self._panel(canvas, pen, view.goal_u8, (goal_x, _TOP), _LARGE, "goal")
        if self._region is not None:
            self._disc(pen, self._region)
        self._numbers(pen, view, goal_x + _LARGE + _GAP + 4)
        self._future(canvas, pen, view)
        return np.asarray(canvas, np.uint8)

    def _panel(
        self, canvas: Any, pen: Any, picture: NDArray, at: tuple[int, int], size: int, label: str
    ) -> None:
        scaled = self._image.fromarray(picture).resize((size, size), self._image.BICUBIC)
        canvas.paste(scaled, at)
        pen.rectangle((at[0] - 1, at[1] - 1, at[0] + size, at[1] + size), outline=FAINT)
        self._text(pen, (at[0], at[1] - 24), label, 18, INK)

    def _numbers(self, pen: Any, view: View, x: int) -> None:
        off, trial = view.judgement.off, view.trial
        cost = "no plan" if view.cost is None else f"{view.cost:.3g}"
        rows = [("tick", f"{view.tick}")]
        for measure in self._task.measures[:_MOST_MEASURES]:
            value = f"{format_measure(measure, off[measure.key])} {shown_unit(measure)}"
            rows.append((f"{measure.name} off by", value))
        if trial.plans:
            rows.append(("cost of the plan", cost))
        for i, (name, value) in enumerate(rows):
            self._text(pen, (x, _TOP + 54 * i), name, 15, GREY)
            self._text(pen, (x, _TOP + 54 * i + 17), value, 26, INK)
        if view.reached:
            self._text(pen, (x, _TOP + 286), "goal reached", 26, GREEN)
        elif view.tick == trial.ticks:
            self._text(pen, (x, _TOP + 286), "not reached", 26, RED)
        if trial.inside_ticks and self._region is not None and view.tick == trial.ticks:
            self._text(pen, (x, _TOP + 322), f"{trial.inside_ticks} ticks inside", 18, RED)

    def _future(self, canvas: Any, pen: Any, view: View) -> None:
        if not view.imagined:
            return
        words = "imagined at the last plan: the recorded frame nearest to each latent"
        self._text(pen, (_MARGIN, _STRIP - 36), words, 18, BLUE)
        step = min(_SMALL + _GAP, (SIZE[0] - 2 * _MARGIN + _GAP) // len(view.imagined))
        for i, (tick, picture) in enumerate(view.imagined):
            at = (_MARGIN + i * step, _STRIP + 14)
            color = BLUE if tick >= view.tick else GREY
            self._panel(canvas, pen, picture, at, step - _GAP, "")
            self._text(pen, (at[0], at[1] - 21), f"tick {tick}", 15, color)

    def _disc(self, pen: Any, region: Region) -> None:
        frame = self._task.region
        if frame is None or frame.to_picture is None:
            return
        centre = np.array([region.x, region.y])
        shares = frame.to_picture(np.stack([centre - region.radius, centre + region.radius]))
        # Sorted: y may point up in the state, and down in the picture.
        low, high = np.sort(shares, axis=0) * _LARGE
        for x in (_MARGIN, _MARGIN + _LARGE + _GAP):
            box = [x + low[0], _TOP + low[1], x + high[0], _TOP + high[1]]
            pen.ellipse(box, outline=RED, width=3)

    def _text(
        self, pen: Any, at: tuple[int, int], text: str, size: int, color: str, anchor: str = "la"
    ) -> None:
        pen.text(at, text, fill=color, font=self._fonts[size], anchor=anchor)


def _pillow() -> tuple[Any, Any, Any]:
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError as problem:
        raise MissingDependency("PIL", "train", _PURPOSE) from problem
    return Image, ImageDraw, ImageFont
