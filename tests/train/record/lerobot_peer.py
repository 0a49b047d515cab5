"""Script of `test_lerobot_library.py` for a Python that has the LeRobot library.

    python lerobot_peer.py read DATASET OUT.npz     dump what LeRobot sees in DATASET
    python lerobot_peer.py write DATASET OUT.npz    let LeRobot record DATASET, then the same

Every item is read the way a LeRobot training loop does.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys

import numpy as np
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a local dataset needs no hub
VIDEO, STILL = "observation.images.video", "observation.images.still"
EPISODES, TICKS, FPS = 3, 17, 15


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


def read(root: str, out: str) -> None:
    """Dump every item of the dataset at `root` into the npz file `out`."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    data = LeRobotDataset("local/dataset", root=root, video_backend="torchcodec")
    items = [data[i] for i in range(len(data))]
    cameras = {}
    for key in data.meta.camera_keys:
        frames = torch.stack([item[key] for item in items])  # [N,3,h,w] float32 in [0,1]
        cameras[f"frames {key}"] = (
            (frames * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        )
    first = data.meta.camera_keys[0]
    np.savez(
        out,
        **cameras,
        actions=torch.stack([item["action"] for item in items]).numpy(),
        states=torch.stack([item["observation.state"] for item in items]).numpy(),
        timestamps=np.array([float(item["timestamp"]) for item in items]),
        episode_index=np.array([int(item["episode_index"]) for item in items]),
        tasks=np.array(sorted({item["task"] for item in items})),
        fps=data.fps,
        image_mean=np.asarray(data.meta.stats[first]["mean"]).ravel(),
        state_std=np.asarray(data.meta.stats["observation.state"]["std"]).ravel(),
        version=importlib.metadata.version("lerobot"),
    )


def write(root: str, out: str) -> None:
    """Record a dataset with a video camera (LeRobot's own codec) and a still camera."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    axes = ["height", "width", "channels"]
    features = {
        VIDEO: {"dtype": "video", "shape": (64, 80, 3), "names": axes},
        STILL: {"dtype": "image", "shape": (64, 80, 3), "names": axes},
        "observation.state": {"dtype": "float32", "shape": (3,), "names": {"motors": list("xyz")}},
        "action": {"dtype": "float32", "shape": (2,), "names": ["u", "v"]},
    }
    data = LeRobotDataset.create("local/dataset", FPS, features, root=root)
    rng = np.random.default_rng(0)
    for _ in range(EPISODES):
        for tick in range(TICKS):
            frame = np.full((64, 80, 3), 40, np.uint8)
            frame[tick : tick + 20, 2 * tick : 2 * tick + 20] = rng.integers(60, 250, 3)
            data.add_frame(
                {
                    VIDEO: frame,
                    STILL: frame,
                    "observation.state": rng.normal(size=3).astype(np.float32),
                    "action": rng.normal(size=2).astype(np.float32),
                    "task": "move",
                }
            )
        data.save_episode()
    data.finalize()
    read(root, out)


if __name__ == "__main__":
    keep_alive = declare_torchvision_operators()
    {"read": read, "write": write}[sys.argv[1]](*sys.argv[2:])
