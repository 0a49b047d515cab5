"""Interface between the kinds of cameras and the camera thread: `Source.read() -> Reading`.

Shapes: h, w frame size; n steps; a size of one robot action.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from jetsight.bundle.model_spec import frame_shape
from jetsight.bundle.runtime_spec import StreamSpec
from jetsight.datasets.fit import RecordingSpec, camera_mend, rates_agree
from jetsight.datasets.names import ACTION_KEY, unnamed
from jetsight.datasets.picture import PictureFormat
from jetsight.engine import NDArray
from jetsight.errors import CameraError, UsageError
from jetsight.stream.loop import FrameFeed


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """Requirements of a model on its camera.

    Args:
        height_px: frame height.
        width_px: frame width.
        camera_hz: rate of the model's time grid.
        action_block: B, ticks per action block.
        plan_ticks: upcoming actions that a forecast uses.
        step_size: a, numbers in one robot action.
        action_names: of its dimensions; if empty, only their number is compared.
        resample: rule for the actions of a faster recording, see `ActionSpec.resample`.
        cameras: names of the cameras of a frame, in order; empty for one without a name.
        state_names: of the numbers the model reads beside the frame; empty without a state.
    """

    height_px: int
    width_px: int
    camera_hz: float
    action_block: int
    plan_ticks: int
    step_size: int
    action_names: tuple[str, ...] = ()
    resample: str = "hold"
    cameras: tuple[str, ...] = ()
    state_names: tuple[str, ...] = ()

    @classmethod
    def of(cls, spec: StreamSpec) -> StreamRequest:
        """Take the requirements of the model of `spec`."""
        return cls(
            height_px=spec.height_px,
            width_px=spec.width_px,
            camera_hz=spec.camera_hz,
            action_block=spec.action_block,
            plan_ticks=spec.plan_ticks,
            step_size=spec.step_size,
            action_names=spec.action_names,
            resample=spec.resample,
            cameras=spec.cameras,
            state_names=spec.state_names,
        )

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of a frame: `(h, w, 3)`, or `(C, h, w, 3)` with C > 1 cameras."""
        return frame_shape(self.cameras, self.height_px, self.width_px)

    @property
    def recording_spec(self) -> RecordingSpec:
        """Cameras, rate, actions and state of the recordings that fit."""
        return RecordingSpec(
            self.height_px,
            self.width_px,
            self.camera_hz,
            self.action_names or unnamed(ACTION_KEY, self.step_size),
            cameras=self.cameras,
            state_names=self.state_names,
        )

    @property
    def alone(self) -> StreamRequest:
        """The same request to the source of one of several cameras."""
        return replace(self, cameras=(), state_names=())


@dataclass(frozen=True, slots=True)
class SourceFormat:
    """Declaration of the user about a source whose files do not say it.

    Args:
        fps: frames per second, evenly spaced; time stamps of the source are then not read.
        picture: bits and channel order of its pictures.

    Raises:
        UsageError: that is no rate.
    """

    fps: float | None = None
    picture: PictureFormat = field(default_factory=PictureFormat)

    def __post_init__(self) -> None:
        if self.fps is not None and not 0.01 <= self.fps <= 1000:
            raise UsageError(f"fps is {self.fps:g}, expected 0.01 to 1000 frames per second")


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """Description of a source that was started.

    Args:
        label: name in messages and reports.
        height_px: height of its frames.
        width_px: width of its frames.
        fps: its own rate; None without one (a folder of images).
        physical: a real sensor: it paces itself, may be lost and reconnected, and its noise never
            repeats exactly the same pixels.
        notes: one line per fact that was assumed, for the summary.
        simulated: its frames are drawn, so a black one is a picture and no covered lens.
        cameras: number of cameras in a frame.
        has_state: its readings have the state that the request names.
        reports_actions: its readings carry the robot's actions; a video or a webcam has none.
    """

    label: str
    height_px: int
    width_px: int
    fps: float | None
    physical: bool = False
    notes: tuple[str, ...] = ()
    cameras: int = 1
    has_state: bool = False
    simulated: bool = False
    reports_actions: bool = False


@dataclass(slots=True)
class Reading:
    """One frame of a source, with its actions and state.

    Args:
        image_hwc_u8: `uint8 [h, w, 3]` RGB, or `[C, h, w, 3]` of several cameras, unchanged by the
            source until the next `read`; None if it could not be decoded.
        media_ns: position on the source's own time line; decides the tick.
        stamp_ns: time of capture on the session's clock; None to use the time of delivery.
        actions: `float32 [n, a]` executed since the previous reading; None if unknown.
        plan: `float32 [n, a]` that will be executed next; None if unknown.
        cut: the scene is unrelated to the one before (another episode).
        state: `float32 [s]` of the robot, as the request names it; None if unknown.
        why: reason for an image that is None, to follow "frame 7 "; empty if it was not decoded.
    """

    image_hwc_u8: NDArray | None
    media_ns: int
    stamp_ns: int | None = None
    actions: NDArray | None = None
    plan: NDArray | None = None
    cut: bool = False
    state: NDArray | None = None
    why: str = ""


class Source(Protocol):
    """Frame source, used by one thread at a time; `start` is called again to reconnect."""

    def start(self, request: StreamRequest) -> SourceInfo:
        """Open it for `request`.

        Raises:
            CameraError: it cannot be opened; one line with the next step.
        """
        ...

    def read(self) -> Reading | None:
        """Take the next reading, or None at the end; may block without limit.

        Raises:
            CameraError: it failed.
        """
        ...

    def close(self) -> None:
        """Release it; allowed if it was never started."""
        ...


class FrameStream(FrameFeed, Protocol):
    """Interface of a camera to a session: `jetsight.Camera`, `jetsight.testing.ScriptedCamera`."""

    def start(self, request: StreamRequest, rate_hz: float | None = None) -> SourceInfo:
        """Begin to deliver frames for `request`."""
        ...


def check_start(info: SourceInfo, request: StreamRequest) -> None:
    """Refuse a source whose cameras, size, rate or state the model was not trained for.

    Raises:
        CameraError: with both values and the next step.
    """
    _check_inputs(info, request)
    found, wanted = (info.height_px, info.width_px), (request.height_px, request.width_px)
    if found != wanted:
        mend = camera_mend(found, wanted)
        raise CameraError(
            f"{info.label} delivers {info.width_px}x{info.height_px} frames, but the model takes "
            f"{request.width_px}x{request.height_px} (width x height) and never resizes silently; "
            f"set the camera to that size, or {mend}"
        )
    # A faster source is fine: the time grid takes the frame nearest to each tick.
    if info.fps is not None and info.fps < 0.95 * request.camera_hz:
        raise CameraError(
            f"{info.label} delivers {info.fps:g} frames per second, but the model takes one every "
            f"1/{request.camera_hz:g} s; use a source of at least {request.camera_hz:g} frames "
            "per second, or train for this rate"
        )


def noting_rate(info: SourceInfo, request: StreamRequest) -> SourceInfo:
    """Add a note to the description of a source that is faster than the model."""
    if (
        info.fps is None
        or info.fps <= request.camera_hz
        or rates_agree(info.fps, request.camera_hz)
    ):
        return info
    note = (
        f"{info.fps:.4g} frames per second on the model's {request.camera_hz:g} Hz: the one "
        "nearest to each tick is used"
    )
    return replace(info, notes=(note, *info.notes))


def _check_inputs(info: SourceInfo, request: StreamRequest) -> None:
    wanted = max(1, len(request.cameras))
    if info.cameras != wanted:
        each = " ".join(f"--source {name}=..." for name in request.cameras) or "--source ..."
        raise CameraError(
            f"{info.label} delivers frames of {_count(info.cameras)}, but the model takes "
            f"{_count(wanted)}{': ' + ', '.join(request.cameras) if wanted > 1 else ''}; give one "
            f"source per camera, as in {each}, or a dataset that has them"
        )
    if request.state_names and not info.has_state:
        raise CameraError(
            f"{info.label} has no state, but the model reads {', '.join(request.state_names)} "
            "beside every frame; stream a dataset that has it, give Camera.open a function with "
            "state=..., or call session.step(Frame(image, state=...)) in a loop of your own"
        )


def _count(cameras: int) -> str:
    return "one camera" if cameras == 1 else f"{cameras} cameras"


def defect(image: NDArray | None, request: StreamRequest, *, simulated: bool = False) -> str | None:
    """Describe why a frame must not reach the encoder; None for a valid one."""
    if image is None:
        return "could not be decoded"
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        return f"is {getattr(image, 'dtype', type(image).__name__)}, expected uint8"
    if image.shape != request.frame_shape:
        return f"is {list(image.shape)}, expected {list(request.frame_shape)}"
    # One after the other: the light of one camera must not hide that another is covered.
    for index, camera in enumerate(image if image.ndim == 4 else image[None]):
        # A maximum allocates nothing, and real darkness has noise.
        if not simulated and int(camera.max()) == 0:
            where = f" of camera {request.cameras[index]!r}" if image.ndim == 4 else ""
            return f"is all black{where}, as from a covered lens or a lost cable"
    return None
