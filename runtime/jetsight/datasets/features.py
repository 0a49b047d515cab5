"""Choice of actions, states and cameras among recorded features, the same for every format.

A choice of the user decides; else the names and shapes do, where they leave one possibility. Where
they leave none or several, the reason is kept with the option to type, so that a dataset is never
silently read without its actions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from jetsight.bundle.model_spec import is_camera
from jetsight.datasets.dataset import CameraFeature, FeatureMap
from jetsight.datasets.names import ACTION_KEY, unnamed
from jetsight.errors import UsageError, did_you_mean

# Keys that mean one thing in the datasets they come from: LeRobot, GR00T, robomimic, openpi.
_EXACT = {
    "action": ("action", "actions"),
    "state": ("observation.state", "state", "observation.states", "states", "observation/state"),
}
_WORDS = {
    "action": {"action", "actions", "command", "commands", "cmd", "control", "controls", "ctrl"},
    "state": {"state", "states", "qpos", "proprio", "proprioception"},
}
# Parts of the names of columns that describe rows, and of states of the scene.
_BESIDE = {
    *("timestamp", "time", "index", "id", "task", "reward", "rewards", "done", "success", "next"),
    *("is", "mask", "pad", "prev", "previous", "env", "environment", "annotation", "discount"),
}


@dataclass(frozen=True)
class RecordedFeature:
    """One recorded feature.

    Args:
        key: its name in the dataset.
        shape: of one tick; empty for one number.
        names: of its dimensions, in order; empty without.
        numeric: its values are numbers, not text or pictures.
        listed: the dataset's description lists it; only an option of the user chooses another.
    """

    key: str
    shape: tuple[int, ...]
    names: tuple[str, ...] = ()
    numeric: bool = True
    listed: bool = True

    @property
    def size(self) -> int:
        """Count the numbers of one tick."""
        return prod(self.shape)

    @property
    def is_vector(self) -> bool:
        """True for one vector or number per tick; false for a chunk of several."""
        return self.numeric and self.size > 0 and sum(n != 1 for n in self.shape) <= 1

    def __str__(self) -> str:
        return f"{self.key} {list(self.shape) or [1]}"


@dataclass(frozen=True)
class VectorChoice:
    """Features that are joined to the actions or to the states of a dataset.

    Args:
        features: in order; empty if none is chosen.
        names: of all their dimensions.
        missing: why none is chosen, with the option to type; empty otherwise.
    """

    features: tuple[RecordedFeature, ...] = ()
    names: tuple[str, ...] = ()
    missing: str = ""

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the features."""
        return tuple(feature.key for feature in self.features)


def choose_vector(
    role: str, features: Sequence[RecordedFeature], wanted: str | None, where: object
) -> VectorChoice:
    """Choose the features of a role.

    Args:
        role: `"action"` or `"state"`.
        features: all of the dataset.
        wanted: features given by the user, several separated by commas; None to find them.
        where: the dataset, first words of a message.

    Raises:
        UsageError: `wanted` is no vector of the dataset.
    """
    if wanted is not None:
        keys = wanted.split(",")
        if len(set(keys)) < len(keys):
            raise UsageError(f"{where}: --map {role}={wanted} repeats a feature; name each once")
        return _named(role, [_find(role, features, key, where) for key in keys])
    listed = {feature.key: feature for feature in features if feature.listed}
    for key in _EXACT[role]:
        if key in listed:
            return _named(role, [listed[key]])
    found = [feature for feature in listed.values() if _is_like(role, feature)]
    vectors = [feature for feature in found if feature.is_vector]
    if len(vectors) == 1:
        return _named(role, vectors)
    if vectors:
        return VectorChoice(missing=_several(role, vectors))
    if found:
        return VectorChoice(missing=f"feature {found[0].key!r} {_no_vector(found[0])}")
    return VectorChoice(missing=_none(role, features))


def choose_cameras(
    cameras: Sequence[CameraFeature], features: FeatureMap, where: object
) -> tuple[tuple[str, ...], str]:
    """Choose the cameras that frames are read from: those given, or the only one for colours.

    Returns:
        Their keys, and why there is none, with the option to type.

    Raises:
        UsageError: there is no such camera, or it holds no colours.
    """
    colour = [camera.key for camera in cameras if camera.kind == "colour"]
    if features.cameras:
        return tuple(_camera(key, cameras, where) for key in features.cameras), ""
    if len(colour) == 1:
        return (colour[0],), ""
    if colour:
        listed = ", ".join(sorted(colour))
        return (), f"has several cameras; choose one of: {listed}, like --map camera={min(colour)}"
    beside = [camera.key for camera in cameras]
    but = f", only depth: {', '.join(beside)}" if beside else ""
    return (), f"has no colour camera among its features{but}; choose another dataset"


def _camera(wanted: str, cameras: Sequence[CameraFeature], where: object) -> str:
    same = [camera for camera in cameras if camera.key == wanted]
    found = same or [camera for camera in cameras if is_camera(wanted, camera.key)]
    if len(found) == 1 and found[0].kind == "colour":
        return found[0].key
    known = ", ".join(sorted(camera.key for camera in cameras if camera.kind == "colour"))
    if len(found) == 1:
        raise UsageError(f"{where}: {found[0].key} is a depth map; choose one of: {known}")
    raise UsageError(f"{where} has no camera {wanted!r}; choose one of: {known}")


def _find(
    role: str, features: Sequence[RecordedFeature], key: str, where: object
) -> RecordedFeature:
    for feature in features:
        if feature.key == key:
            if feature.is_vector:
                return feature
            raise UsageError(f"{where}: --map {role}={key} {_no_vector(feature)}")
    hint = did_you_mean(key, [f.key for f in features if f.is_vector], "its vectors are")
    raise UsageError(f"{where}: no feature {key!r} for --map {role}={key}; {hint}")


def _no_vector(feature: RecordedFeature) -> str:
    if not feature.numeric:
        return "is no feature of numbers"
    return (
        f"has the shape {list(feature.shape)} per row, a chunk of several steps; expected one "
        "vector per row, [n]"
    )


def _parts(key: str) -> set[str]:
    return set(re.split(r"[^a-z0-9]+", key.lower()))


def _is_like(role: str, feature: RecordedFeature) -> bool:
    parts = _parts(feature.key)
    return feature.numeric and bool(parts & _WORDS[role]) and not parts & _BESIDE


def _named(role: str, features: Sequence[RecordedFeature]) -> VectorChoice:
    for feature in features:
        if not feature.is_vector:
            return VectorChoice(missing=f"feature {feature.key!r} {_no_vector(feature)}")
    names = [name for f in features for name in _dimensions(role, f, alone=len(features) == 1)]
    if len(set(names)) < len(names):
        # Names that repeat themselves name nothing; those made up here are distinct.
        key = ACTION_KEY if role == "action" else features[0].key
        names = unnamed(key, len(names))
    return VectorChoice(tuple(features), tuple(names))


def _dimensions(role: str, feature: RecordedFeature, *, alone: bool) -> Sequence[str]:
    if len(feature.names) == feature.size:
        return feature.names
    if alone:
        return unnamed(ACTION_KEY if role == "action" else feature.key, feature.size)
    # Joined with others: `action.gripper` of one number is named "gripper".
    last = re.split(r"[./]", feature.key)[-1]
    return [last] if feature.size == 1 else unnamed(last, feature.size)


def _several(role: str, found: Sequence[RecordedFeature]) -> str:
    keys = [feature.key for feature in found]
    return (
        f"several features could be the {role}s: {', '.join(map(str, found))}; add --map "
        f"{role}={keys[0]}, or all joined: --map {role}={','.join(keys)}"
    )


def _none(role: str, features: Sequence[RecordedFeature]) -> str:
    """Explain that no feature is like a role, and show the option that chooses one."""
    other = "state" if role == "action" else "action"
    vectors = [feature for feature in features if feature.is_vector]
    spare = [f for f in vectors if not _parts(f.key) & _BESIDE and not _is_like(other, f)]
    # A column that the description forgot is more likely meant than any other.
    spare.sort(key=lambda feature: not _is_like(role, feature))
    if not spare:
        return f"no feature holds {role}s"
    return (
        f"no listed feature is named like {role}s; others are {', '.join(map(str, spare))}: add "
        f"--map {role}={spare[0].key} if that is where they are"
    )
