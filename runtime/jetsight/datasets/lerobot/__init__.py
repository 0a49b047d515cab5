"""LeRobot datasets: v2 with one file per episode, v3 with many episodes per file."""

from __future__ import annotations

from jetsight.datasets.lerobot.reader import FORMAT, LeRobotDataset

__all__ = ["FORMAT", "LeRobotDataset"]
