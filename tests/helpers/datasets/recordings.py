"""Small recordings in the formats that other projects write, made from one scene.

Shapes: T ticks, h, w frame size.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIZE = (48, 64)


def scene(ticks: int, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A bright square that moves with the action: frames [T,h,w,3], actions [T,2]."""
    rng = np.random.default_rng(seed)
    actions = rng.uniform(-1, 1, (ticks, 2)).astype(np.float32)
    frames = np.full((ticks, *SIZE, 3), (30, 60, 90), np.uint8)
    for tick in range(ticks):
        row, column = 8 + tick % 24, 8 + 2 * tick % 40
        frames[tick, row : row + 12, column : column + 12] = (220, 40, 160)
    return frames, actions


def jpeg(frame: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue()


def mp4(path: Path, frames: NDArray[np.uint8], fps: int = 10) -> Path:
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"g": "2", "crf": "8"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        stream.codec_context.time_base = Fraction(1, fps)
        for tick, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = tick, Fraction(1, fps)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def tub(folder: Path, ticks: int = 12, period_ms: int = 50, deleted: Sequence[int] = ()) -> Path:
    """A donkeycar tub."""
    frames, actions = scene(ticks)
    (folder / "images").mkdir(parents=True)
    lines = []
    for tick in range(ticks):
        name = f"{tick}_cam_image_array_.jpg"
        (folder / "images" / name).write_bytes(jpeg(frames[tick]))
        row = {"_index": tick, "_timestamp_ms": 1_600_000_000_000 + tick * period_ms}
        row |= {"cam/image_array": name, "user/mode": "user"}
        row |= {"user/angle": float(actions[tick, 0]), "user/throttle": float(actions[tick, 1])}
        lines.append(json.dumps(row))
    (folder / "catalog_0.catalog").write_text("\n".join(lines) + "\n")
    manifest = [
        ["cam/image_array", "user/angle", "user/throttle", "user/mode"],
        ["image_array", "float", "float", "str"],
        {},
        {"created_at": 0.0},
        {"paths": ["catalog_0.catalog"], "current_index": ticks, "deleted_indexes": list(deleted)},
    ]
    (folder / "manifest.json").write_text("\n".join(json.dumps(line) for line in manifest) + "\n")
    return folder


def crc(data: bytes) -> bytes:
    """The masked checksum of a TFRecord, computed bit by bit (Castagnoli polynomial)."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    value ^= 0xFFFFFFFF
    return struct.pack("<I", (((value >> 15) | (value << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def tfrecord(records: Sequence[bytes]) -> bytes:
    parts = []
    for data in records:
        length = struct.pack("<Q", len(data))
        parts += [length, crc(length), data, crc(data)]
    return b"".join(parts)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def example(features: Mapping[str, Any]) -> bytes:
    """A serialized tf.train.Example, written by hand: bytes, floats or whole numbers."""
    entries = b""
    for key, values in features.items():
        if isinstance(values, list):
            feature = _field(1, b"".join(_field(1, value) for value in values))
        elif values.dtype.kind == "f":
            feature = _field(2, _field(1, values.astype("<f4").tobytes()))
        else:
            feature = _field(3, _field(1, b"".join(_varint(int(v)) for v in values)))
        entries += _field(1, _field(1, key.encode()) + _field(2, feature))
    return _field(1, entries)


def rlds(
    folder: Path, lengths: Sequence[int] = (9, 12), cameras: Sequence[str] = ("image",)
) -> Path:
    """An RLDS dataset with one camera or several."""
    folder.mkdir(parents=True)
    records = []
    for number, length in enumerate(lengths):
        frames, actions = scene(length, number)
        steps: dict[str, Any] = {
            "steps/action": actions.ravel(),
            "steps/observation/state": np.cumsum(actions, 0).ravel(),
            "steps/is_last": np.arange(length) == length - 1,
            "steps/language_instruction": [b"push"] * length,
        }
        for place, camera in enumerate(cameras):
            steps[f"steps/observation/{camera}"] = [jpeg(np.roll(f, place)) for f in frames]
        records.append(example(steps))
    (folder / "toy-train.tfrecord-00000-of-00001").write_bytes(tfrecord(records))

    def tensor(shape: Sequence[int], dtype: str) -> dict[str, Any]:
        return {"tensor": {"shape": {"dimensions": [str(n) for n in shape]}, "dtype": dtype}}

    image = {"image": {"shape": {"dimensions": [*map(str, SIZE), "3"]}, "dtype": "uint8"}}
    observation = dict.fromkeys(cameras, image) | {"state": tensor([2], "float32")}
    step = {
        "action": tensor([2], "float32"),
        "observation": {"featuresDict": {"features": observation}},
        "is_last": tensor([], "bool"),
        "language_instruction": {"text": {}},
    }
    steps_feature = {"sequence": {"feature": {"featuresDict": {"features": step}}}}
    tree = {"featuresDict": {"features": {"steps": steps_feature}}}
    (folder / "features.json").write_text(json.dumps(tree))
    (folder / "dataset_info.json").write_text(json.dumps({"name": "toy", "description": "a\nb"}))
    return folder


def robomimic(path: Path, lengths: Sequence[int] = (9, 12), hz: float | None = 20) -> Path:
    """A robomimic file: data/demo_N with actions and obs."""
    import h5py

    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        kwargs = {} if hz is None else {"control_freq": hz, "robots": ["Panda"]}
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "env_kwargs": kwargs})
        for number, length in enumerate(lengths):
            frames, actions = scene(length, number)
            demo = data.create_group(f"demo_{number}")
            demo["actions"] = actions.astype(np.float64)
            demo["obs/agentview_image"] = frames
            demo["obs/robot0_eef_pos"] = np.cumsum(actions, 0)
            demo["states"] = np.cumsum(actions, 0)
            demo["next_obs/agentview_image"] = frames
            demo["dones"] = np.arange(length) == length - 1
    return path


def aloha(folder: Path, lengths: Sequence[int] = (9, 12), encoded: bool = False) -> Path:
    """An ALOHA folder: one file per episode, cameras below observations/images."""
    import h5py

    folder.mkdir(parents=True)
    for number, length in enumerate(lengths):
        frames, actions = scene(length, number)
        with h5py.File(folder / f"episode_{number}.hdf5", "w") as file:
            file["action"], file["observations/qpos"] = actions, np.cumsum(actions, 0)
            pixels: NDArray[Any] = frames
            if encoded:
                files = [np.frombuffer(jpeg(frame), np.uint8) for frame in frames]
                longest = max(map(len, files))
                pixels = np.stack([np.pad(each, (0, longest - len(each))) for each in files])
            file["observations/images/top"] = pixels
    return folder


def worldmodel(path: Path, lengths: Sequence[int] = (9, 12)) -> Path:
    """A stable-worldmodel file: rows of all episodes with their number."""
    import h5py

    parts = [scene(length, number) for number, length in enumerate(lengths)]
    with h5py.File(path, "w") as file:
        file["pixels"] = np.concatenate([frames for frames, _ in parts])
        file["action"] = np.concatenate([actions for _, actions in parts])
        file["episode_idx"] = np.repeat(np.arange(len(lengths)), lengths)
        file["step_idx"] = np.concatenate([np.arange(n) for n in lengths])
        file.attrs["fps"] = 10
    return path


def droid(folder: Path, ticks: int = 9, frames_more: int = 0) -> Path:
    """A raw DROID episode."""
    import h5py

    folder.mkdir(parents=True)
    frames, actions = scene(ticks + frames_more)
    actions = actions[:ticks]
    with h5py.File(folder / "trajectory.h5", "w") as file:
        file["action/joint_velocity"] = np.repeat(actions, 4, axis=1)[:, :7]
        file["action/gripper_position"] = actions[:, 0]
        file["action/cartesian_position"] = np.repeat(actions, 3, axis=1)
        file["observation/robot_state/joint_positions"] = np.repeat(actions, 4, axis=1)[:, :7]
        file["observation/robot_state/gripper_position"] = actions[:, 1]
        file["observation/timestamp/control/step_start"] = np.arange(ticks)
    mp4(folder / "recordings/MP4/12345.mp4", frames, 15)
    mp4(folder / "recordings/MP4/12345-stereo.mp4", frames, 15)
    return folder


def video_table(
    folder: Path, lengths: Sequence[int] = (9, 12), cameras: Sequence[str] = ("",)
) -> Path:
    """Videos with a CSV table each; a camera without a name is directly in the folder."""
    folder.mkdir(parents=True)
    for number, length in enumerate(lengths):
        frames, actions = scene(length, number)
        for place, camera in enumerate(cameras):
            mp4(folder / camera / f"run{number}.mp4", np.roll(frames, place))
        lines = ["timestamp,action.v,action.w,note"]
        lines += [f"{t / 10},{a[0]},{a[1]},ok" for t, a in enumerate(actions)]
        (folder / f"run{number}.csv").write_text("\n".join(lines) + "\n")
    return folder


def ros2_bag(
    folder: Path, ticks: int = 12, command_from: int = 0, storage: str = "sqlite3"
) -> Path:
    """A ROS 2 bag: a camera at 10 Hz, velocity commands a little before each frame."""
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    types = store.types
    frames, actions = scene(ticks)
    with Writer(folder, version=9, storage_plugin=StoragePlugin[storage.upper()]) as writer:
        image_kind, twist_kind = "sensor_msgs/msg/Image", "geometry_msgs/msg/Twist"
        camera = writer.add_connection("/camera/image_raw", image_kind, typestore=store)
        command = writer.add_connection("/cmd_vel", twist_kind, typestore=store)
        for tick in range(ticks):
            now_ns = 1_700_000_000_000_000_000 + tick * 100_000_000
            if tick >= command_from:
                linear = types["geometry_msgs/msg/Vector3"](float(actions[tick, 0]), 0.0, 0.0)
                angular = types["geometry_msgs/msg/Vector3"](0.0, 0.0, float(actions[tick, 1]))
                twist = types[twist_kind](linear, angular)
                data = store.serialize_cdr(twist, twist_kind)
                writer.write(command, now_ns - 5_000_000, data)
            stamp = types["builtin_interfaces/msg/Time"](now_ns // 10**9, now_ns % 10**9)
            header = types["std_msgs/msg/Header"](stamp, "camera")
            pixels = frames[tick][..., ::-1].reshape(-1)
            image = types[image_kind](header, *SIZE, "bgr8", 0, SIZE[1] * 3, pixels)
            writer.write(camera, now_ns + 20_000_000, store.serialize_cdr(image, image_kind))
    return folder
