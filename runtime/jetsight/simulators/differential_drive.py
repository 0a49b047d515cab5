"""Differential drive among pillars: a small robot of our own, `jetsight/DiffDrive-v0`.

A disc with two wheels drives in a walled square with four pillars, seen from above. Actions are
forward speed v in m/s and turning rate w in rad/s, held for one tick of 0.1 s; the motion is that
of a unicycle, exact for constant v and w. Pillars and walls do not yield: the robot slides along
them. The observation holds `pixels` and `state`; a goal is drawn nowhere.

Axes: x right, y up, heading counterclockwise from x, in [-pi, pi). Shapes: h, w frame size.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from jetsight.errors import MissingDependency, UsageError

ENV_ID = "jetsight/DiffDrive-v0"
HZ = 10
ACTION_NAMES, ACTION_UNITS = ("v", "w"), ("m/s", "rad/s")
STATE_NAMES, STATE_UNITS = ("x", "y", "heading"), ("m", "m", "rad")
ACTION_LOW, ACTION_HIGH = (-0.3, -2.0), (0.6, 2.0)

ARENA_M, WALL_M = 2.0, 0.05  # side of the picture, and the part of it that is wall
ROBOT_M = 0.12  # radius
WHEEL_M = (0.07, 0.04)  # half the length of a wheel, and its width inside the body
# x, y, radius in m. No two gaps are alike, so a place is never mistaken for its mirror image.
PILLARS = ((0.62, 0.66, 0.13), (1.42, 0.50, 0.10), (1.30, 1.34, 0.15), (0.48, 1.50, 0.09))
SIZE_PX = 96
# At a place of the goal, as it is turned there; a formula of `jetsight eval --success`.
SUCCESS = "hypot(x - goal_x, y - goal_y) < 0.1 and abs(angle(heading - goal_heading)) < radians(20)"

_FLOOR, _WALL, _PILLAR = (236, 233, 226), (66, 70, 78), (120, 126, 134)
_BODY, _FRONT, _WHEEL = (24, 78, 168), (244, 132, 24), (20, 22, 26)
Vector = npt.NDArray[np.float64]
Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Pose:
    """Place of the robot: `x` and `y` in m, `heading` in rad."""

    x: float
    y: float
    heading: float

    def advanced(self, v: float, w: float, seconds: float) -> Pose:
        """Follow the arc of constant `v` (m/s) and `w` (rad/s), through everything."""
        turn = w * seconds
        # The chord of an arc is shorter than the arc by sin(turn / 2) / (turn / 2), and points
        # along half the turn; np.sinc takes its argument in units of pi.
        chord = v * seconds * float(np.sinc(turn / (2.0 * math.pi)))
        along = self.heading + turn / 2.0
        return Pose(
            self.x + chord * math.cos(along), self.y + chord * math.sin(along), self.heading + turn
        )

    def as_state(self) -> npt.NDArray[np.float32]:
        """Return `[x, y, heading]`, the heading in [-pi, pi)."""
        turned = (self.heading + math.pi) % (2.0 * math.pi) - math.pi
        return np.array([self.x, self.y, turned], np.float32)


def pushed_out(x: float, y: float) -> tuple[float, float, bool]:
    """Move a centre at `x`, `y` out of walls and pillars; the last value is true if it touched.

    Along the shortest way, so that a robot that drives against something slides along it.
    """
    least, most = WALL_M + ROBOT_M, ARENA_M - WALL_M - ROBOT_M
    hit = False
    for pillar_x, pillar_y, radius in PILLARS:
        away_x, away_y = x - pillar_x, y - pillar_y
        gap, reach = math.hypot(away_x, away_y), radius + ROBOT_M
        if gap < reach:
            # A centre exactly on that of a pillar has no shortest way out; any will do.
            away_x, away_y = (away_x / gap, away_y / gap) if gap > 0 else (1.0, 0.0)
            x, y, hit = pillar_x + reach * away_x, pillar_y + reach * away_y, True
    # Walls last; every gap between a pillar and a wall is wider than the robot.
    inside_x, inside_y = min(max(x, least), most), min(max(y, least), most)
    return inside_x, inside_y, hit or (inside_x, inside_y) != (x, y)


def is_free(x: float, y: float, clearance_m: float = 0.0) -> bool:
    """Return whether a robot with a margin of `clearance_m` around it touches nothing there."""
    reach = ROBOT_M + clearance_m
    inside = all(WALL_M + reach <= value <= ARENA_M - WALL_M - reach for value in (x, y))
    return inside and all(math.hypot(x - a, y - b) >= r + reach for a, b, r in PILLARS)


def moved(pose: Pose, v: float, w: float, seconds: float = 1.0 / HZ) -> tuple[Pose, bool]:
    """Drive for `seconds`; returns the pose and whether something was touched."""
    there = pose.advanced(v, w, seconds)
    x, y, hit = pushed_out(there.x, there.y)
    return Pose(x, y, there.heading), hit


def random_pose(rng: np.random.Generator, clearance_m: float = 0.02) -> Pose:
    """Draw a free pose, every place and heading equally likely."""
    while True:
        x, y = (float(value) for value in rng.uniform(0.0, ARENA_M, 2))
        if is_free(x, y, clearance_m):
            return Pose(x, y, float(rng.uniform(-math.pi, math.pi)))


def draw(pose: Pose, size_px: int = SIZE_PX) -> Picture:
    """Draw the scene from above: `[size_px, size_px, 3]` RGB, edges antialiased.

    The front half of the robot has a colour of its own, so that one frame shows the heading.
    """
    picture = _scene(size_px).copy()
    x, y, pixel_m = _pixels(size_px)
    # Only the square around the robot is drawn again, which is most of the time of a tick.
    rows, columns = _around(ARENA_M - pose.y, pixel_m), _around(pose.x, pixel_m)
    patch, right, up = picture[rows, columns], x[:, columns] - pose.x, y[rows] - pose.y
    ahead = right * math.cos(pose.heading) + up * math.sin(pose.heading)
    aside = up * math.cos(pose.heading) - right * math.sin(pose.heading)
    disc = _covered(np.hypot(ahead, aside) - ROBOT_M, pixel_m)
    wheels = np.maximum(np.abs(ahead) - WHEEL_M[0], np.abs(np.abs(aside) - ROBOT_M) - WHEEL_M[1])
    _paint(patch, disc, _BODY)
    _paint(patch, np.minimum(disc, _covered(-ahead, pixel_m)), _FRONT)
    _paint(patch, np.minimum(disc, _covered(wheels, pixel_m)), _WHEEL)
    return np.asarray(np.rint(picture), np.uint8)


def _around(centre_m: float, pixel_m: float) -> slice:
    """Select the pixels along one axis that a robot at `centre_m` can cover."""
    reach = ROBOT_M + pixel_m
    return slice(
        max(int((centre_m - reach) / pixel_m), 0), max(int((centre_m + reach) / pixel_m) + 1, 0)
    )


@functools.lru_cache(maxsize=4)
def _pixels(size_px: int) -> tuple[Vector, Vector, float]:
    """Return x and y of the pixels' centres in m, and the side of a pixel."""
    pixel_m = ARENA_M / size_px
    centres: Vector = (np.arange(size_px, dtype=np.float64) + 0.5) * pixel_m
    return centres[None, :], (ARENA_M - centres)[:, None], pixel_m


@functools.lru_cache(maxsize=4)
def _scene(size_px: int) -> Vector:
    """Draw what never moves."""
    x, y, pixel_m = _pixels(size_px)
    picture = np.empty((size_px, size_px, 3))
    picture[:] = _FLOOR
    middle = ARENA_M / 2
    inside = np.maximum(np.abs(x - middle), np.abs(y - middle)) - (middle - WALL_M)
    _paint(picture, _covered(-inside, pixel_m), _WALL)
    for pillar_x, pillar_y, radius in PILLARS:
        disc = _covered(np.hypot(x - pillar_x, y - pillar_y) - radius, pixel_m)
        _paint(picture, disc, _PILLAR)
    return picture


def _covered(distance_m: Vector, pixel_m: float) -> Vector:
    """Return the share of each pixel inside a shape, from the signed distance to its edge."""
    return np.clip(0.5 - distance_m / pixel_m, 0.0, 1.0)


def _paint(picture: Vector, covered: Vector, color: tuple[int, int, int]) -> None:
    picture += covered[..., None] * (np.array(color, np.float64) - picture)


def register() -> None:
    """Make `jetsight/DiffDrive-v0` known to Gymnasium; does nothing the second time.

    Raises:
        MissingDependency: gymnasium is not installed.
    """
    gymnasium = _gymnasium()
    if ENV_ID not in gymnasium.registry:
        gymnasium.register(ENV_ID, entry_point=make)


def make(render_mode: str | None = "rgb_array", size_px: int = SIZE_PX) -> Any:
    """Make the Gymnasium environment; frames are `size_px` high and wide.

    Raises:
        MissingDependency: gymnasium is not installed.
        UsageError: there is no such render mode.
    """
    if render_mode not in (None, "rgb_array"):
        raise UsageError(f"{ENV_ID} has no render_mode {render_mode!r}, expected 'rgb_array'")
    return _environment_class()(render_mode, size_px)


def _gymnasium() -> Any:
    try:
        import gymnasium
    except ImportError as problem:
        raise MissingDependency("gymnasium", "sim", f"environment {ENV_ID}") from problem
    return gymnasium


@functools.cache
def _environment_class() -> Any:
    """Make the class once: its base is in a library that this package can do without."""
    gymnasium = _gymnasium()

    class DiffDrive(gymnasium.Env):  # type: ignore[misc, name-defined]  # the base is Any here
        """Gymnasium's view of the robot; `info["hit"]` is true on a tick that touched something."""

        metadata = {  # noqa: RUF012  # Gymnasium's own form
            "render_modes": ["rgb_array"],
            "render_fps": HZ,
            "action_names": list(ACTION_NAMES),
            "action_units": list(ACTION_UNITS),
            "state_names": list(STATE_NAMES),
            "state_units": list(STATE_UNITS),
            "keep": ["info.hit"],
            "success": SUCCESS,
        }

        def __init__(self, render_mode: str | None, size_px: int) -> None:
            box = gymnasium.spaces.Box
            self.render_mode, self._size_px = render_mode, size_px
            self.action_space = box(
                np.array(ACTION_LOW, np.float32), np.array(ACTION_HIGH, np.float32)
            )
            pixels = box(0, 255, (size_px, size_px, 3), np.uint8)
            low = np.array([0.0, 0.0, -math.pi], np.float32)
            high = np.array([ARENA_M, ARENA_M, math.pi], np.float32)
            self.observation_space = gymnasium.spaces.Dict(
                {"pixels": pixels, "state": box(low, high)}
            )
            self.pose = Pose(ARENA_M / 2, ARENA_M / 2, 0.0)

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
            """Start at a random free pose, or at `options["state"]`: `[x, y, heading]`."""
            super().reset(seed=seed)
            state = (options or {}).get("state")
            self.pose = random_pose(self.np_random) if state is None else _given(state)
            return self._observe(), {"hit": False}

        def step(self, action: Any) -> tuple[Any, float, bool, bool, Any]:
            """Drive one tick with `action [v, w]`, clipped to the limits; a hit costs 1."""
            v, w = (float(value) for value in _checked(action))
            self.pose, hit = moved(self.pose, v, w)
            return self._observe(), -float(hit), False, False, {"hit": hit}

        def render(self) -> Picture:
            """Draw the scene."""
            return draw(self.pose, self._size_px)

        def exact_state(self) -> bytes:
            """Serialize the pose in full precision; the observed one is rounded to float32."""
            return np.array([self.pose.x, self.pose.y, self.pose.heading]).tobytes()

        def _observe(self) -> dict[str, Any]:
            return {"pixels": self.render(), "state": self.pose.as_state()}

    return DiffDrive


def _checked(action: Any) -> Vector:
    values = np.asarray(action, np.float64)
    if values.shape != (2,) or not np.isfinite(values).all():
        raise UsageError(f"{ENV_ID} takes two finite numbers, v and w, but got {values.tolist()}")
    return np.clip(values, ACTION_LOW, ACTION_HIGH)


def _given(state: Any) -> Pose:
    values = np.asarray(state, np.float64)
    if values.shape != (3,) or not np.isfinite(values).all() or not is_free(*values[:2]):
        raise UsageError(
            f"{ENV_ID} cannot start at {values.tolist()}; expected x, y, heading of a place where "
            f"a robot of radius {ROBOT_M:g} m touches neither pillar nor wall"
        )
    return Pose(*(float(value) for value in values))
