"""Check that recorded data fits a model: cameras, rate, actions and state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jetsight.bundle.model_spec import ActionSpec, FrameSpec, StateSpec, TimingSpec, is_camera
from jetsight.datasets.lerobot_meta import ACTION_KEY, unnamed
from jetsight.errors import DataError, did_you_mean

# Wide enough for 29.97 against 30, narrow enough that 200 ticks drift by at most one.
RATE_TOLERANCE = 0.005


@dataclass(frozen=True, slots=True)
class RecordingSpec:
    """Cameras, rate, actions and state of a recording, or of the recordings a model takes.

    Args:
        height_px: frame height.
        width_px: frame width.
        hz: frames per second.
        action_names: in order; empty without recorded actions.
        cameras: of a recording, the features its frames are read from, in order; of a model, the
            names of its cameras. Empty for one camera of any name.
        state_names: of a recording, all its state columns; of a model, those it reads, in order.
    """

    height_px: int
    width_px: int
    hz: float
    action_names: Sequence[str]
    cameras: Sequence[str] = ()
    state_names: Sequence[str] = ()

    @classmethod
    def taken_by(
        cls,
        frame: FrameSpec,
        timing: TimingSpec,
        action: ActionSpec,
        state: StateSpec | None = None,
    ) -> RecordingSpec:
        """Derive the recordings that a model of these specs takes."""
        return cls(
            frame.height_px,
            frame.width_px,
            timing.camera_hz,
            action.names,
            cameras=frame.cameras,
            state_names=() if state is None else state.names,
        )


def check_dataset_fits(where: object, found: RecordingSpec, wanted: RecordingSpec) -> None:
    """Refuse a recording of other cameras, another rate or robot.

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
    _check_cameras(where, list(found.cameras), list(wanted.cameras))
    for name in wanted.state_names:
        if name not in found.state_names:
            hint = did_you_mean(name, found.state_names, "it has")
            raise DataError(
                f"{where}: no state {name!r}, which the model reads; {hint}; use data of the robot "
                "it was trained for, or name the feature with --map state=FEATURE"
            )


def _check_cameras(where: object, found: list[str], wanted: list[str]) -> None:
    # One camera without a name is any single camera; a name of its own was chosen by the reader.
    if max(1, len(found)) != max(1, len(wanted)):
        raise DataError(
            f"{where}: frames are of {found or 'one camera'}, but the model takes "
            f"{wanted or 'one camera'}; choose them in this order with --map "
            f"camera={','.join(wanted) or 'FEATURE'}"
        )
    for place, name in enumerate(wanted):
        others = [i for i, key in enumerate(found) if is_camera(name, key) and i != place]
        # Keys that a mapping of the user names otherwise are taken in the order they are given.
        if others and not is_camera(name, found[place]):
            raise DataError(
                f"{where}: cameras are {found}, but the model takes {wanted} in this order; give "
                f"--map camera={','.join(wanted)}"
            )


def rates_agree(found_hz: float, wanted_hz: float) -> bool:
    """Return whether two rates agree within `RATE_TOLERANCE`."""
    return abs(found_hz - wanted_hz) <= RATE_TOLERANCE * wanted_hz
