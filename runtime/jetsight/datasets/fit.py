"""Check that recorded data fits a model: camera frame, rate, and actions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jetsight.bundle.model_spec import ActionSpec, FrameSpec, TimingSpec
from jetsight.datasets.names import ACTION_KEY, unnamed
from jetsight.errors import DataError

# Wide enough for 29.97 against 30, narrow enough that 200 ticks drift by at most one.
RATE_TOLERANCE = 0.005


@dataclass(frozen=True, slots=True)
class RecordingSpec:
    """Frame size, rate and actions of a recording, or of the recordings a model takes.

    Args:
        height_px: frame height.
        width_px: frame width.
        hz: frames per second.
        action_names: in order; empty without recorded actions.
        no_actions: of a recording, why it has none, with the option that chooses them.
    """

    height_px: int
    width_px: int
    hz: float
    action_names: Sequence[str]
    no_actions: str = ""

    @classmethod
    def taken_by(cls, frame: FrameSpec, timing: TimingSpec, action: ActionSpec) -> RecordingSpec:
        """Derive the recordings that a model of these specs takes."""
        return cls(frame.height_px, frame.width_px, timing.camera_hz, action.names)


def check_dataset_fits(where: object, found: RecordingSpec, wanted: RecordingSpec) -> None:
    """Refuse a recording of another camera, rate or robot.

    Args:
        where: the recording, first words of the message.
        found: spec of the recording.
        wanted: spec of the model. Where either has no names, actions are only counted.

    Raises:
        DataError: it does not fit; one line with both values and the next step.
    """
    if (found.height_px, found.width_px) != (wanted.height_px, wanted.width_px):
        raise DataError(
            f"{where}: frames are {found.width_px}x{found.height_px}, but the model takes "
            f"{wanted.width_px}x{wanted.height_px} (width x height); record with the model's "
            "camera, or train for this one"
        )
    if not rates_agree(found.hz, wanted.hz):
        raise DataError(
            f"{where}: recorded at {found.hz:g} Hz, but the model steps at {wanted.hz:g} Hz; "
            "record at the model's rate, or train for this one"
        )
    names, expected = list(found.action_names), list(wanted.action_names)
    # Made-up names (`action_0`) carry no order that could be compared.
    counted = len(names) == len(expected) and unnamed(ACTION_KEY, len(names)) in (names, expected)
    if names != expected and not counted:
        raise DataError(
            f"{where}: actions are {names}, but the model takes {expected} in this order; use data "
            "of the robot it was trained for, or train for this one"
        )


def rates_agree(found_hz: float, wanted_hz: float) -> bool:
    """Return whether two rates agree within `RATE_TOLERANCE`."""
    return abs(found_hz - wanted_hz) <= RATE_TOLERANCE * wanted_hz
