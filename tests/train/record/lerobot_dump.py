"""Run by `test_lerobot_library.py` inside an environment that has LeRobot: what does it see?

    python lerobot_dump.py DATASET OUT.npz

Opens DATASET with `lerobot.datasets.lerobot_dataset.LeRobotDataset`, reads every item the way a
LeRobot training loop does, and leaves frames, actions, states and bookkeeping in OUT.npz.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys

import numpy as np
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a local dataset needs no hub


def declare_torchvision_operators() -> torch.library.Library:
    """Declare two operators of torchvision's CUDA wheel, which cannot load beside CPU torch.

    Importing torchvision registers shapes for them and fails where they do not exist; LeRobot's
    dataset code never calls them. The returned object must be kept alive.
    """
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            library.define(f"{operator}(Tensor dets, Tensor scores, float threshold) -> Tensor")
    return library


def main(root: str, out: str) -> None:
    """Dump every item of the dataset at `root` into the npz file `out`."""
    library = declare_torchvision_operators()
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    data = LeRobotDataset("local/dataset", root=root, video_backend="torchcodec")
    items = [data[i] for i in range(len(data))]
    camera = data.meta.camera_keys[0]
    frames = torch.stack([item[camera] for item in items])  # [N,3,h,w] float32 in [0,1]
    np.savez(
        out,
        frames_u8=(frames * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy(),
        actions=torch.stack([item["action"] for item in items]).numpy(),
        states=torch.stack([item["observation.state"] for item in items]).numpy(),
        episode_index=np.array([int(item["episode_index"]) for item in items]),
        tasks=np.array(sorted({item["task"] for item in items})),
        fps=data.fps,
        episodes=data.num_episodes,
        image_mean=np.asarray(data.meta.stats[camera]["mean"]),
        lerobot=importlib.metadata.version("lerobot"),
    )
    del library


if __name__ == "__main__":
    main(*sys.argv[1:])
