"""Check that recorded data fits a model: cameras, rate, actions and state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jetsight.bundle.model_spec import ActionSpec, FrameSpec, StateSpec, TimingSpec, is_camera
from jetsight.datasets.names import ACTION_KEY, unnamed
from jetsight.errors import DataError, did_you_mean

# Wide enough for 29.97 against 30, narrow enough that 200 ticks drift by at most one.
RATE_TOLERANCE = 0.005
_MOST_SHOWN = 8  # names in a message


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
        recipe: of a model that is still to be trained, the name of its recipe.
        no_actions: of a recording, why it has none, with the option that chooses them.
    """

    height_px: int
    width_px: int
    hz: float
    action_names: Sequence[str]
    cameras: Sequence[str] = ()
    state_names: Sequence[str] = ()
    no_actions: str = ""
    recipe: str = ""

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
    _check_frames(where, found, wanted)
    _check_actions(where, found, wanted)
    _check_cameras(where, list(found.cameras), list(wanted.cameras))
    for name in wanted.state_names:
        if name not in found.state_names:
            hint = did_you_mean(name, found.state_names, "it has")
            other = "name another" if wanted.recipe else "use data of the robot it was trained for"
            raise DataError(
                f"{where}: no state {name!r}, which the model reads; {hint}; {other}, or give the "
                "feature that holds it with --map state=FEATURE"
            )


def _check_frames(where: object, found: RecordingSpec, wanted: RecordingSpec) -> None:
    own_hw, wanted_hw = (found.height_px, found.width_px), (wanted.height_px, wanted.width_px)
    if own_hw != wanted_hw:
        mend = _mend(wanted, f"camera = {list(own_hw)}", "frame")
        mend = mend if wanted.recipe else camera_mend(own_hw, wanted_hw)
        raise DataError(
            f"{where}: frames are {found.width_px}x{found.height_px}, but the model takes "
            f"{wanted.width_px}x{wanted.height_px} (width x height); "
            f"{_convert(where, f'--size {wanted.width_px}x{wanted.height_px}')}, or {mend}"
        )
    if not rates_agree(found.hz, wanted.hz):
        mend = _mend(wanted, f"camera_hz = {found.hz:g}", "timing")
        raise DataError(
            f"{where}: recorded at {found.hz:g} Hz, but the model steps at {wanted.hz:g} Hz; "
            f"{_convert(where, f'--hz {wanted.hz:g}')}, or {mend}"
        )


def _check_actions(where: object, found: RecordingSpec, wanted: RecordingSpec) -> None:
    names, expected = list(found.action_names), list(wanted.action_names)
    if expected and not names:
        reason = found.no_actions or "the recording has none"
        raise DataError(f"{where}: no actions for the model, which takes {expected}: {reason}")
    # Made-up names (`action_0`) carry no order that could be compared.
    counted = len(names) == len(expected) and unnamed(ACTION_KEY, len(names)) in (names, expected)
    if names == expected or counted:
        return
    # A recipe with the same names in another order needs no other feature.
    same = sorted(names) == sorted(expected)
    other = "" if same else ", or choose another feature with --map action=FEATURE"
    mend = _mend(wanted, f"names = {_listed(names)} and their limits", "action")
    raise DataError(
        f"{where}: actions are {_listed(names)}, but the model takes {_listed(expected)} in this "
        f"order; use data of its robot, or {mend}{other}"
    )


def _listed(names: list[str]) -> str:
    """Format names; of many only the first ones."""
    if len(names) <= _MOST_SHOWN:
        return str(names)
    return f"{str(names[:_MOST_SHOWN])[:-1]}, ...] ({len(names)} names)"


def _mend(wanted: RecordingSpec, keys: str, table: str) -> str:
    """Say how the model's side could be brought to fit."""
    if not wanted.recipe:
        return "train for this one"
    return f"set {keys} in [{table}] of recipe {wanted.recipe!r}"


def camera_mend(found_hw: tuple[int, int], wanted_hw: tuple[int, int]) -> str:
    """Say how a trained model takes frames of another size, as the end of a message."""
    if found_hw[0] < wanted_hw[0] or found_hw[1] < wanted_hw[1]:
        return "train for this one"
    # The checkpoint stays as it is: the graph gets the crop and the resize.
    return (
        "compile the model for this camera: jetsight compile CHECKPOINT --camera "
        f"{found_hw[1]}x{found_hw[0]}, or train for this one"
    )


def _convert(where: object, options: str) -> str:
    return f"bring it to that: jetsight data convert {where} NEW {options}"


def _check_cameras(where: object, found: list[str], wanted: list[str]) -> None:
    # One camera without a name is any single camera; a name of its own was chosen by the reader.
    given = f"--map camera={','.join(wanted or found[:1])}"
    if max(1, len(found)) != max(1, len(wanted)):
        raise DataError(
            f"{where}: frames are of {found or 'one camera'}, but the model takes "
            f"{wanted or 'one camera'}; choose them in this order with {given}"
        )
    for place, name in enumerate(wanted):
        others = [i for i, key in enumerate(found) if is_camera(name, key) and i != place]
        # Keys that a mapping of the user names otherwise are taken in the order they are given.
        if others and not is_camera(name, found[place]):
            raise DataError(
                f"{where}: cameras are {found}, but the model takes {wanted} in this order; give "
                f"{given}"
            )


def rates_agree(found_hz: float, wanted_hz: float) -> bool:
    """Return whether two rates agree within `RATE_TOLERANCE`."""
    return abs(found_hz - wanted_hz) <= RATE_TOLERANCE * wanted_hz
