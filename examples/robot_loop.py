"""A robot that reaches a place: `python examples/robot_loop.py BUNDLE` drives PushT's agent there.

For a robot of your own replace the simulator by its camera and its `send`, and leave out `options`:
then ticks follow the clock, and every plan ends in time for its tick.
"""

import sys

import gym_pusht  # noqa: F401 - registers the simulator
import gymnasium
import numpy as np

from jetsight import ControlOptions, Session

GOAL = {"agent_x": 380.0, "agent_y": 160.0}  # px; or an image, a latent, a jetsight.Goal


def drive(bundle: str, goal: dict[str, float] | None, ticks: int = 60, seed: int = 3) -> float:
    """Act for `ticks`; return the distance of the agent from GOAL in px."""
    simulator = gymnasium.make("gym_pusht/PushT-v0", obs_type="pixels")
    frame, info = simulator.reset(seed=seed)
    options = ControlOptions(realtime=False)  # a simulator waits for its actions
    with Session.open(bundle) as session:
        for _ in range(ticks):
            action = session.act(frame, goal, arrive_ticks=25, options=options)
            frame, _, _, _, info = simulator.step(action.values)
            print(f"{action.tick:3d} {action.source:9} {action.reason:10} {action.values.round()}")
    simulator.close()
    return float(np.hypot(*(info["pos_agent"] - list(GOAL.values()))))


if __name__ == "__main__":
    print(f"{drive(sys.argv[1], GOAL):.0f} px from the goal")
