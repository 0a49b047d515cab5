"""Choice of an environment's cameras: observed pictures by name, or the render."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetsight.datasets.pyav import resize
from jetsight.errors import DataError, UsageError
from jetsight.simulators.observations import ObservationPart, find_part, parts_of
from jetsight.simulators.pictures import ArrayFormat, NoPicture, of_render, of_space, to_rgb

RENDER = "render"


class PictureSource:
    """One camera: an observed picture, or the render.

    Args:
        name: see `EnvironmentSpec.cameras`.
        part: of the observation; None for the render.
        form: of its arrays; None to take that of the first render.
    """

    def __init__(self, name: str, part: ObservationPart | None, form: ArrayFormat | None) -> None:
        self.name = name
        self._part, self._form = part, form

    def picture(self, observation: Any, render: Callable[[], Any]) -> NDArray[np.uint8]:
        """Take the picture of this tick, `uint8 [h,w,3]` RGB.

        Raises:
            DataError: it is not what the space or the first picture says.
        """
        array = render() if self._part is None else self._part.of(observation)
        try:
            picture, self._form = to_rgb(array, self._form or of_render(array))
        except NoPicture as problem:
            kind = "render" if self._part is None else f"picture {self.name!r}"
            raise DataError(f"its {kind} {problem}; correct the environment") from None
        return picture


class CameraSet:
    """Cameras of an environment, each brought to one size.

    Args:
        space: observation space.
        names: see `EnvironmentSpec.cameras`.
        size_hw: height and width of a frame.

    Attributes:
        names: of the cameras, in order.
        notes: one line per fact a user must know, e.g. why the render is used.

    Raises:
        UsageError: a name is unknown or no picture, or several pictures could be meant.
    """

    def __init__(self, space: Any, names: Sequence[str], size_hw: tuple[int, int]) -> None:
        self._size_hw = size_hw
        self.notes: list[str] = []
        parts = parts_of(space)
        chosen = [_named(name, parts) for name in names] or [self._only(parts)]
        self._sources = chosen
        self._drawn: list[tuple[int, ...]] = []
        self.names = tuple(source.name for source in chosen)

    def frame(self, observation: Any, render: Callable[[], Any]) -> NDArray[np.uint8]:
        """Take the frame `[h,w,3]`, or `[C,h,w,3]` of several cameras.

        Raises:
            DataError: a picture is unusable.
        """
        pictures = [source.picture(observation, render) for source in self._sources]
        self._drawn = [picture.shape[:2] for picture in pictures]
        frames = [resize(picture, *self._size_hw) for picture in pictures]
        return frames[0] if len(frames) == 1 else np.stack(frames)

    def squeezed(self) -> list[str]:
        """Describe the cameras whose last picture had other proportions than a frame."""
        height, width = self._size_hw
        return [
            f"pictures of {name!r} are {w}x{h}, so a frame of {width}x{height} shows them squeezed"
            for name, (h, w) in zip(self.names, self._drawn, strict=False)
            if abs(w * height - h * width) > 0.02 * h * width
        ]

    def _only(self, parts: Sequence[ObservationPart]) -> PictureSource:
        """Choose the only colour picture that is observed, else the render."""
        found, refused = _survey(parts)
        # A grey picture beside a colour one is another view of the same, or a mask.
        sure = {name: form for name, form in found.items() if form.sure}
        colour = {name: form for name, form in sure.items() if form.channels > 1} or sure
        if len(colour) > 1:
            raise UsageError(
                f"several observations are pictures ({', '.join(colour)}); choose with --camera "
                f"{next(iter(colour))}, give --camera several times, or --camera {RENDER}"
            )
        if colour:
            name, form = next(iter(colour.items()))
            return PictureSource(name, next(part for part in parts if part.name == name), form)
        refused |= dict.fromkeys(found, "may be no picture")
        self.notes += [
            f"observation {name!r} {why}, so the frame is the render"
            for name, why in refused.items()
        ]
        return PictureSource(RENDER, None, None)


def _survey(parts: Sequence[ObservationPart]) -> tuple[dict[str, ArrayFormat], dict[str, str]]:
    """Find the observations that can be pictures, and why others of two or more axes are none."""
    found: dict[str, ArrayFormat] = {}
    refused: dict[str, str] = {}
    for part in parts:
        if part.shape is not None and len(part.shape) > 1:
            try:
                found[part.name] = of_space(part.name, part.space)
            except NoPicture as problem:
                refused[part.name] = str(problem)
    return found, refused


def _named(name: str, parts: Sequence[ObservationPart]) -> PictureSource:
    part = find_part(name, parts)
    if part is None and name == RENDER:
        return PictureSource(RENDER, None, None)
    known, _ = _survey(parts)
    choices = ", ".join(f"--camera {each}" for each in [*known, RENDER])
    if part is None:
        raise UsageError(f"there is no one observation {name!r}; choose {choices}")
    try:
        if part.shape is None:
            raise NoPicture(f"is {part.space}")
        return PictureSource(part.name, part, of_space(part.name, part.space))
    except NoPicture as problem:
        raise UsageError(f"observation {name!r} {problem}; choose {choices}") from None
