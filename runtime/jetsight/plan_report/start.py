"""Frames to plan from or towards: single images, and ticks of recorded episodes.

Shapes: h, w frame size, K history, B ticks per block, a size of one robot action, n ticks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

import numpy as np

from jetsight.bundle.runtime_spec import StreamSpec
from jetsight.cameras.images import SUFFIXES, read_image
from jetsight.cameras.source import SourceInfo, StreamRequest, defect
from jetsight.clock import Clock
from jetsight.datasets.dataset import FeatureMap, RecordedDataset
from jetsight.datasets.fit import check_dataset_fits
from jetsight.datasets.open import open_for
from jetsight.datasets.pyav import resize
from jetsight.engine import NDArray
from jetsight.errors import CameraError, DataError, UsageError
from jetsight.stream.frames import Frame

_RECORDED = re.compile(r"(?:lerobot:)?(?P<folder>.+)#(?P<episode>\d{1,9}):(?P<tick>\d{1,9})")


@dataclass(frozen=True, slots=True)
class EpisodeTick:
    """One tick of one episode of a dataset, written `FOLDER#EPISODE:TICK`."""

    folder: Path
    episode: int
    tick: int

    def __str__(self) -> str:
        return f"{self.folder}#{self.episode}:{self.tick}"


class StartKind(Enum):
    """Origin of the history before a plan."""

    RECORDED = "recorded"  # frames and executed actions of an episode
    HISTORY = "history"  # images one block apart
    AT_REST = "at rest"  # one image repeated


@dataclass(frozen=True, slots=True)
class Start:
    """History of the model when a plan begins.

    Args:
        frames_u8: K frames `[h, w, 3]`, or `[C, h, w, 3]` of several cameras, one block apart,
            oldest first.
        actions: `float32 [n, a]` executed before the newest frame; the last row just before it.
        tick: of the newest frame.
        kind: origin of frames and actions.
        neutral_held: the actions are the neutral one, for want of a known one.
        states: `float32 [K, s]` beside the frames; None for a model that reads none.
    """

    frames_u8: tuple[NDArray, ...]
    actions: NDArray
    tick: int
    kind: StartKind
    neutral_held: bool = False
    states: NDArray | None = None


@dataclass(frozen=True, slots=True)
class Resized:
    """A frame that was brought to the model's size.

    Args:
        label: names the frame.
        width_px: its own width.
        height_px: its own height.
    """

    label: str
    width_px: int
    height_px: int


@dataclass(frozen=True, slots=True)
class StartReader:
    """Reader of frames for one model.

    Args:
        spec: of the model.
        resize: bring frames of another size to the model's, instead of refusing them.
        resized: filled with the frames that were resized.
        features: which features of a dataset are actions, states and frames.
    """

    spec: StreamSpec
    resize: bool = False
    resized: list[Resized] = field(default_factory=list)
    features: FeatureMap = field(default_factory=FeatureMap)

    def frame(self, text: str) -> NDArray:
        """Read the frame of an image file or a recorded tick.

        Args:
            text: `IMAGE`, for a model of several cameras `IMAGE,IMAGE` in its order, or
                `DATASET#EPISODE:TICK`.

        Raises:
            CameraError: it is no image, or has another size than the model's frames.
            DataError: the dataset cannot be read.
            UsageError: there is no such tick.
        """
        place = parse(text)
        if isinstance(place, EpisodeTick):
            return self._recorded(self._open(place), place, (place.tick,))[0]
        names = self.spec.cameras
        if len(names) < 2:
            return self._fitting(read_image(place), text)
        files = text.split(",")
        if len(files) != len(names):
            raise UsageError(
                f"{text[:200]!r} is {len(files)} images, but the model takes {len(names)} cameras; "
                f"give {','.join(f'{name}.png' for name in names)} in this order"
            )
        images = [self._sized(read_image(Path(file)), file) for file in files]
        return self._checked(np.stack(images), text)

    def state(self, text: str, given: NDArray | None, option: str) -> NDArray | None:
        """Read the state `[s]` beside a frame; None for a model that reads none.

        Args:
            text: see `frame`.
            given: of an option, for images.
            option: its name, for messages.

        Raises:
            UsageError: it is missing beside an image, or given beside a recorded tick.
        """
        place, names = parse(text), self.spec.state_names
        if given is not None and (not names or isinstance(place, EpisodeTick)):
            why = "is recorded with its state" if names else "is all that the model reads"
            raise UsageError(f"{text[:200]!r} {why}; leave out {option}")
        if not names or given is not None:
            return given
        if isinstance(place, Path):
            listed = ",".join(names)
            raise UsageError(
                f"the model reads the state {listed} beside {text[:200]!r}; add {option} {listed} "
                "with its numbers"
            )
        state: NDArray = self._states(self._open(place), place, (place.tick,))[0]
        return state

    def still(
        self,
        frame: str,
        history: Sequence[str] = (),
        last_action: NDArray | None = None,
        state: NDArray | None = None,
    ) -> Start:
        """Read a start from images: one of a scene at rest, or K of them one block apart.

        Args:
            frame: the newest image.
            history: K - 1 images before it, oldest first; none for a scene at rest.
            last_action: `[a]` held since the oldest image; None for the neutral one.
            state: `[s]` beside the image, for a model that reads one.

        Raises:
            CameraError: see `frame`.
            UsageError: the history has another length.
        """
        spec, before = self.spec, self.spec.history - 1
        if history and len(history) != before:
            raise UsageError(
                f"--history is given {len(history)} times, but the model looks back on {before} "
                f"frames before --frame, {spec.action_block} ticks apart; give them oldest first, "
                "or none for a scene at rest"
            )
        known = self.state(frame, state, "--state")
        if history and known is not None:
            raise UsageError(
                "the model reads a state beside every frame, which images of a history lack; leave "
                "out --history for a scene at rest, or give --frame DATASET#EPISODE:TICK"
            )
        newest = self.frame(frame)
        frames = (*(self.frame(image) for image in history), newest)
        held = spec.neutral if last_action is None else last_action
        return Start(
            frames_u8=frames if history else (newest,) * spec.history,
            actions=np.tile(held, (spec.history * spec.action_block, 1)).astype(np.float32),
            tick=before * spec.action_block,
            kind=StartKind.HISTORY if history else StartKind.AT_REST,
            neutral_held=last_action is None,
            states=None if known is None else np.tile(known, (spec.history, 1)),
        )

    def recorded(self, place: EpisodeTick) -> Start:
        """Read a start from an episode: its frames, and the actions that were executed.

        Raises:
            CameraError: the dataset is of another camera, rate or robot.
            DataError: it cannot be read.
            UsageError: there is no such tick, or too little happened before it.
        """
        spec, data = self.spec, self._open(place)
        self._check_robot(data)
        if place.tick < spec.span_ticks:
            raise UsageError(
                f"{place} has {place.tick} ticks before it, but the model looks back on "
                f"{spec.span_ticks}; give tick {spec.span_ticks} or a later one"
            )
        ticks = range(place.tick - spec.span_ticks, place.tick + 1, spec.action_block)
        frames = self._recorded(data, place, ticks)
        actions = data.rows(place.episode).actions
        # One block more than the history spans, where the episode has it.
        first = max(0, place.tick - spec.history * spec.action_block)
        return Start(
            frames_u8=tuple(frames),
            actions=actions[first : place.tick],
            tick=place.tick,
            kind=StartKind.RECORDED,
            states=self._states(data, place, ticks) if spec.state_names else None,
        )

    def _open(self, place: EpisodeTick) -> RecordedDataset:
        wanted = StreamRequest.of(self.spec).recording_spec
        return open_for(place.folder, wanted, self.features)

    def _states(self, data: RecordedDataset, place: EpisodeTick, ticks: Sequence[int]) -> NDArray:
        """Read the states `[len(ticks), s]` that the model reads."""
        self._check_robot(data)
        return states_of(data, place.episode, self.spec.state_names)[list(ticks)]

    def _check_robot(self, data: RecordedDataset) -> None:
        wanted = StreamRequest.of(self.spec).recording_spec
        # Frames of another size are resized where the user allows it.
        wanted = replace(wanted, height_px=data.height, width_px=data.width)
        try:
            check_dataset_fits(data.path, data.spec, wanted)
        except DataError as error:
            raise CameraError(str(error)) from None

    def _recorded(
        self, data: RecordedDataset, place: EpisodeTick, ticks: Sequence[int]
    ) -> list[NDArray]:
        frames = frames_at(data, place.episode, ticks)
        return [self._fitting(frame, str(place)) for frame in frames]

    def _fitting(self, frame: NDArray, label: str) -> NDArray:
        """Check a frame, and bring its cameras to the model's size where that is allowed."""
        if frame.ndim == 4:
            frame = np.stack([self._sized(camera, label) for camera in frame])
        else:
            frame = self._sized(frame, label)
        return self._checked(frame, label)

    def _sized(self, image: NDArray, label: str) -> NDArray:
        spec = self.spec
        (height, width), wanted = image.shape[:2], (spec.height_px, spec.width_px)
        if (height, width) != wanted:
            if not self.resize:
                raise CameraError(
                    f"{label} is {width}x{height} px, but the model takes {spec.width_px}x"
                    f"{spec.height_px} (width x height) and never resizes silently; give a frame "
                    "of the model's camera, or add --resize"
                )
            self.resized.append(Resized(label, width, height))
            image = resize(image, *wanted)
        return image

    def _checked(self, frame: NDArray, label: str) -> NDArray:
        # After resizing: `defect` also checks the size.
        problem = defect(frame, StreamRequest.of(self.spec))
        if problem is not None:
            raise CameraError(f"{label} {problem}; give a frame that shows the scene")
        return frame


def parse(text: str) -> Path | EpisodeTick:
    """Parse `IMAGE` or `DATASET#EPISODE:TICK`.

    Raises:
        UsageError: it is neither.
    """
    path, match = Path(text), _RECORDED.fullmatch(text)
    # An image whose name happens to look like a tick of a recording is still an image.
    if match and not path.is_file():
        return EpisodeTick(Path(match["folder"]), int(match["episode"]), int(match["tick"]))
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"{text[:200]!r} is neither an image ({', '.join(SUFFIXES)}) nor a tick of a "
            "dataset, like calib_data/pusht#3:40 for tick 40 of episode 3"
        )
    return path


def states_of(data: RecordedDataset, episode: int, names: Sequence[str]) -> NDArray:
    """Read the states `[T, s]` of an episode that a model reads, in its order."""
    return data.rows(episode).states[:, [data.state_names.index(name) for name in names]]


def frames_at(data: RecordedDataset, episode: int, ticks: Sequence[int]) -> list[NDArray]:
    """Read frames of an episode at ascending `ticks`.

    Raises:
        DataError: the episode cannot be read.
        UsageError: there is no such episode or tick.
    """
    frames = data.frames(episode)  # first, because it refuses an episode that does not exist
    length = data.episode_lengths[episode]
    if ticks[-1] >= length:
        raise UsageError(
            f"{data.path} has no tick {ticks[-1]} in episode {episode}; choose one of "
            f"0..{length - 1}"
        )
    wanted, found = set(ticks), []
    for tick, frame in enumerate(frames):
        if tick in wanted:
            found.append(frame)
        # Decoding the rest of the episode would be wasted.
        if tick == ticks[-1]:
            break
    return found


class Slides:
    """Camera that shows the frames of a start one after another, as fast as they are taken."""

    stamps = "replay"
    period_ns = 0  # files have no age
    frozen = False
    rejecting = False

    def __init__(self, start: Start, block: int, clock: Clock) -> None:
        self._start, self._block, self._clock = start, block, clock
        self._shown = 0

    def start(self, request: StreamRequest, rate_hz: float | None = None) -> SourceInfo:
        """Begin; sizes were checked when the frames were read."""
        return SourceInfo(
            "images",
            request.height_px,
            request.width_px,
            request.camera_hz,
            cameras=max(1, len(request.cameras)),
            has_state=self._start.states is not None,
        )

    def next(self, timeout_ns: int) -> Frame | None:
        """Return the next frame; the newest one carries all actions executed before it."""
        frames = self._start.frames_u8
        if self.ended:
            return None
        index, self._shown = self._shown, self._shown + 1
        left = len(frames) - 1 - index
        return Frame(
            image_hwc_u8=frames[index],
            index=index,
            tick=self._start.tick - left * self._block,
            # Stamped when shown, so that no frame from a file is stale.
            captured_ns=self._clock.now_ns(),
            action_since=self._start.actions if left == 0 else None,
            state=None if self._start.states is None else self._start.states[index],
        )

    @property
    def ended(self) -> bool:
        """All were shown."""
        return self._shown == len(self._start.frames_u8)

    def raise_for_error(self) -> None:
        """Do nothing: frames in memory cannot fail."""

    def close(self) -> None:
        """Do nothing: no resource is held."""
