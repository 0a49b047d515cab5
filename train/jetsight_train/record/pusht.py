"""Scripted PushT driver that moves the block from every side to every place.

It does not solve the task. It chooses a contact on the outline of the T and a push direction that
would carry the block towards a random place, drives around the block to a start point on that line
and pushes, with free roaming and rests in between and smooth noise on top. The recordings then
cover contact, slip, rotation, and motion without contact, at many speeds.

Everything is in world pixels (0..512, y down), one call per control step of 0.1 s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

ARENA_PX = 512.0
REACH_PX = (20.0, 492.0)  # targets stay here; the agent has radius 15 and walls do not stop it
BLOCK_HOME_PX = (85.0, 427.0)  # range of the places that pushes aim at
AGENT_RADIUS_PX = 15.0
CLEARANCE_PX = AGENT_RADIUS_PX + 4.0
CENTRE_LOCAL = np.array([0.0, 45.0])  # centre of mass of the T in its own frame
# Outline of the T in its own frame, in order (gym_pusht: two boxes, scale 30).
OUTLINE_LOCAL = np.array(
    [[-60, 0], [60, 0], [60, 30], [15, 30], [15, 120], [-15, 120], [-15, 30], [-60, 30]],
    dtype=np.float64,
)
# The same corners moved outwards by more than the clearance, as turning points of a detour.
_DETOUR_LOCAL = np.array(
    [[-82, -22], [82, -22], [82, 52], [37, 54], [37, 142], [-37, 142], [-37, 54], [-82, 52]],
    dtype=np.float64,
)
CANDIDATES = 48  # contact/direction pairs compared before each push


@dataclass(frozen=True)
class Scene:
    """Poses that the driver reads: `agent` [2] px, `block` [2] px, `angle` rad."""

    agent: Vector
    block: Vector
    angle: float

    @classmethod
    def of(cls, simulator: Any) -> Scene:
        """Read the poses of a PushT simulator, the unwrapped environment."""
        agent, block = (
            np.array(body.position, dtype=np.float64) for body in (simulator.agent, simulator.block)
        )
        return cls(agent, block, float(simulator.block.angle))

    def to_world(self, points: Vector) -> Vector:
        """Transform points [n,2] from the block's own frame to world pixels."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        return np.asarray(points @ np.array([[c, s], [-s, c]]) + self.block)

    @property
    def outline(self) -> Vector:
        """Corners of the block [8,2]."""
        return self.to_world(OUTLINE_LOCAL)

    @property
    def centre(self) -> Vector:
        """Centre of mass of the block [2]."""
        return np.asarray(self.to_world(CENTRE_LOCAL[None])[0])

    def at_wall(self, margin_px: float) -> NDArray[np.bool_]:
        """Return per axis [2] if a corner of the block is within `margin_px` of the border."""
        return np.asarray(
            ((self.outline < margin_px) | (self.outline > ARENA_PX - margin_px)).any(axis=0)
        )


def distance_to_outline(points: Vector, outline: Vector) -> Vector:
    """Distance of each of `points` [n,2] to the closed polygon `outline` [m,2], also inside it."""
    a, b = outline, np.roll(outline, -1, axis=0)
    edge = b - a
    rel = points[:, None] - a
    t = np.clip((rel * edge).sum(-1) / (edge * edge).sum(-1), 0.0, 1.0)
    return np.asarray(np.linalg.norm(rel - t[..., None] * edge, axis=-1).min(axis=1))


def nearest_on_outline(point: Vector, outline: Vector) -> tuple[Vector, float]:
    """Find the point of the closed polygon `outline` nearest to `point`, and its distance."""
    a, edge = outline, np.roll(outline, -1, axis=0) - outline
    t = np.clip(((point - a) * edge).sum(-1) / (edge * edge).sum(-1), 0.0, 1.0)
    feet = a + t[:, None] * edge
    distance = np.linalg.norm(point - feet, axis=-1)
    best = int(distance.argmin())
    return feet[best], float(distance[best])


def shortest_way(start: Vector, goal: Vector, scene: Scene) -> Vector:
    """Find the first waypoint of the shortest polyline to `goal` that clears the block.

    Bellman-Ford over the visibility graph of start, goal and the corners of the block moved
    outwards; returns `goal` if it is in sight, or if it cannot be reached.
    """
    nodes = np.vstack([start, goal, scene.to_world(_DETOUR_LOCAL)])
    reachable = ((nodes > REACH_PX[0]) & (nodes < REACH_PX[1])).all(axis=1)
    reachable &= np.linalg.norm(nodes - start, axis=1) > 2.0  # not a corner just reached
    reachable[:2] = True
    nodes = nodes[reachable]
    along = np.linspace(0.0, 1.0, 16)[:, None, None, None]
    samples = nodes[:, None] + along * (nodes[None] - nodes[:, None])  # [24, node, node, 2]
    gap = distance_to_outline(samples.reshape(-1, 2), scene.outline).reshape(samples.shape[:3])
    length = np.linalg.norm(nodes[None] - nodes[:, None], axis=-1)
    length = np.where(gap.min(axis=0) > CLEARANCE_PX, length, np.inf)
    to_goal = np.where(np.arange(len(nodes)) == 1, 0.0, np.inf)
    for _ in range(len(nodes)):
        to_goal = np.minimum(to_goal, (length + to_goal).min(axis=1))
    via = length[0] + to_goal
    via[0] = np.inf  # excludes `start` itself as its waypoint
    return goal if np.isinf(via.min()) else np.asarray(nodes[int(via.argmin())])


@dataclass(frozen=True)
class Push:
    """Push from `start` over `length_px` along the unit vector `direction`."""

    start: Vector
    direction: Vector
    length_px: float


class PushTDriver:
    """Scripted behaviour for one episode; every choice is drawn from `rng`.

    Args:
        rng: generator of all random choices, so that an episode is a function of its seed.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._noise = np.zeros(2)
        # Uniform in the logarithm: calm episodes are as frequent as rough ones.
        self._noise_px = float(np.exp(rng.uniform(np.log(0.5), np.log(8.0))))
        self._mode = "choose"
        self._steps_left = 0
        self._speed_px = 15.0
        self._target = np.zeros(2)  # commanded point before noise; set by the first choice
        self._goal = np.zeros(2)
        self._push: Push | None = None

    def act(self, scene: Scene) -> Vector:
        """Return the absolute target position [2] px of the next control step."""
        self._steps_left -= 1
        if self._mode == "choose" or self._steps_left < 0:
            self._choose(scene)
        getattr(self, f"_do_{self._mode}")(scene)
        self._noise = 0.8 * self._noise + self._rng.normal(0.0, 0.6 * self._noise_px, 2)
        return np.clip(self._target + self._noise, *REACH_PX)

    def _choose(self, scene: Scene) -> None:
        mode = self._rng.choice(["approach", "roam", "rest"], p=[0.80, 0.16, 0.04])
        if mode == "approach":
            self._push = self._choose_push(scene)
            mode = "roam" if self._push is None else mode
        self._mode = str(mode)
        self._target = scene.agent.copy()  # after a push the commanded point is inside the block
        low, high = {"approach": (60, 61), "roam": (12, 40), "rest": (3, 9)}[self._mode]
        self._steps_left = int(self._rng.integers(low, high))
        self._speed_px = self._rng.uniform(14.0, 36.0)
        self._goal = self._rng.uniform(*REACH_PX, 2)

    def _choose_push(self, scene: Scene) -> Push | None:
        """Choose the push whose rough outcome is nearest a random place; None if none can start."""
        aim = self._rng.uniform(*BLOCK_HOME_PX, 2)
        best, best_miss = None, np.inf
        for _ in range(CANDIDATES):
            push = self._draw_push(scene)
            if not _can_start(push, scene):
                continue
            carried = scene.centre + push.direction * 0.6 * push.length_px
            # Without the random part the same few faces of the T would win every time.
            miss = float(np.linalg.norm(carried - aim)) + self._rng.uniform(0.0, 60.0)
            miss += 0.3 * float(np.linalg.norm(push.start - scene.agent))
            if miss < best_miss:
                best, best_miss = push, miss
        return best

    def _draw_push(self, scene: Scene) -> Push:
        outline = scene.outline
        edges = np.roll(outline, -1, axis=0) - outline
        lengths = np.linalg.norm(edges, axis=1)
        i = int(self._rng.choice(len(edges), p=lengths / lengths.sum()))
        contact = outline[i] + self._rng.uniform(0.05, 0.95) * edges[i]
        tangent = edges[i] / lengths[i]
        inward = np.array([-tangent[1], tangent[0]])  # the outline runs so that this is inside
        tilt = np.deg2rad(np.clip(self._rng.normal(0.0, 20.0), -50.0, 50.0))
        direction = inward * np.cos(tilt) + tangent * np.sin(tilt)
        back = AGENT_RADIUS_PX + self._rng.uniform(12.0, 40.0)
        travel = back - AGENT_RADIUS_PX + self._rng.uniform(40.0, 200.0)
        return Push(contact - direction * back, direction, float(travel))

    def _do_approach(self, scene: Scene) -> None:
        assert self._push is not None
        if np.linalg.norm(scene.agent - self._push.start) < 10.0:
            self._mode, self._speed_px = "push", self._rng.uniform(5.0, 18.0)
            self._steps_left = 4 + int(self._push.length_px / self._speed_px)
            self._target = scene.agent.copy()
            return
        self._advance(self._way_around(self._push.start, scene))

    def _do_push(self, scene: Scene) -> None:
        assert self._push is not None
        # Aimed farther than one step, so that the push keeps its full speed.
        self._advance(self._target + self._push.direction * 2.0 * self._speed_px)
        outward = np.sign(scene.centre - ARENA_PX / 2) * self._push.direction > -0.2
        if (scene.at_wall(24.0) & outward).any():  # the block would be squeezed through the wall
            self._mode = "choose"

    def _do_roam(self, scene: Scene) -> None:
        # Away from the walls the block may be hit on the way; at a wall it is driven around.
        at_wall = scene.at_wall(60.0).any()
        self._advance(self._way_around(self._goal, scene) if at_wall else self._goal)
        if np.linalg.norm(self._target - self._goal) < 5.0:
            self._goal = self._rng.uniform(*REACH_PX, 2)

    def _do_rest(self, scene: Scene) -> None:
        del scene  # the modes share one signature

    def _advance(self, goal: Vector) -> None:
        """Move the commanded point towards `goal`, at most one step's speed."""
        gap = goal - self._target
        distance = float(np.linalg.norm(gap))
        self._target = self._target + gap * min(1.0, self._speed_px / max(distance, 1e-9))
        self._target = np.clip(self._target, *REACH_PX)

    def _way_around(self, goal: Vector, scene: Scene) -> Vector:
        """Compute the next target on a path to `goal` that does not touch the block."""
        nearest, gap = nearest_on_outline(self._target, scene.outline)
        if gap <= CLEARANCE_PX:  # touching, e.g. after a push: back off before turning
            return self._target + (self._target - nearest) / max(gap, 1e-6) * CLEARANCE_PX
        return shortest_way(self._target, goal, scene)


def _can_start(push: Push, scene: Scene) -> bool:
    inside = (push.start > REACH_PX[0]).all() and (push.start < REACH_PX[1]).all()
    clear = distance_to_outline(push.start[None], scene.outline)[0] > CLEARANCE_PX
    return bool(inside and clear)
