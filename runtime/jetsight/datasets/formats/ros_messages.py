"""Messages of ROS 1 and ROS 2 bags, MCAP files included, as plain numbers and pictures.

Shapes: n numbers of a message, h, w frame size.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetsight.datasets.formats.images import as_rgb
from jetsight.datasets.pictures import decode_picture
from jetsight.errors import DataError, MissingDependency, first_line

IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
_EXTRA = "data"
_DEEPEST, _MOST_NUMBERS = 6, 4096  # of a message; larger ones are maps and point clouds
# Channels of sensor_msgs/Image encodings, and the order that makes them RGB.
_ENCODINGS = {
    "rgb8": (3, (0, 1, 2)),
    "bgr8": (3, (2, 1, 0)),
    "rgba8": (4, (0, 1, 2)),
    "bgra8": (4, (2, 1, 0)),
    "mono8": (1, (0, 0, 0)),
    "8UC1": (1, (0, 0, 0)),
    "8UC3": (3, (2, 1, 0)),  # OpenCV's order
}
_DEPTH = ("16UC1", "32FC1", "mono16", "compressedDepth")


@dataclass(frozen=True)
class BagMessage:
    """One message: topic, type, time in ns, and its content."""

    topic: str
    kind: str
    stamp_ns: int
    content: Any


def read_messages(bag: Path, topics: Iterable[str] | None = None) -> Iterator[BagMessage]:
    """Iterate over the messages of a bag in the order in which they were logged.

    Args:
        bag: folder of a ROS 2 bag, a ROS 1 `.bag` or an `.mcap` file.
        topics: to read; all if None.

    Raises:
        DataError: it is damaged, or its messages are of no readable encoding.
        MissingDependency: rosbags or mcap is not installed.
    """
    wanted = None if topics is None else set(topics)
    read = _from_mcap if bag.suffix == ".mcap" else _from_bag
    try:
        yield from read(bag, wanted)
    except DataError:
        raise
    # Both libraries raise errors of their own and of the formats inside.
    except Exception as problem:
        raise DataError(
            f"cannot read {bag} ({type(problem).__name__}: {first_line(problem)}); it is damaged "
            "or was not closed: copy it again, or repair it with mcap recover / ros2 bag reindex"
        ) from problem


def _from_bag(bag: Path, wanted: set[str] | None) -> Iterator[BagMessage]:
    try:
        from rosbags.highlevel import AnyReader
        from rosbags.typesys import Stores, get_typestore
    except ImportError as problem:
        raise MissingDependency("rosbags", _EXTRA, "reading a ROS bag") from problem
    with AnyReader([bag], default_typestore=get_typestore(Stores.ROS2_HUMBLE)) as reader:
        chosen = [c for c in reader.connections if wanted is None or c.topic in wanted]
        for connection, logged_ns, raw in reader.messages(chosen):
            content = reader.deserialize(raw, connection.msgtype)
            yield _message(connection.topic, connection.msgtype, logged_ns, content)


def _from_mcap(bag: Path, wanted: set[str] | None) -> Iterator[BagMessage]:
    try:
        from mcap.reader import make_reader
        from mcap_ros2.decoder import DecoderFactory
    except ImportError as problem:
        raise MissingDependency("mcap", _EXTRA, "reading an MCAP file") from problem
    ros = DecoderFactory()
    with bag.open("rb") as stream:
        topics = None if wanted is None else sorted(wanted)
        for schema, channel, message in make_reader(stream).iter_messages(topics=topics):
            if channel.message_encoding == "json":
                # Members become attributes, as those of ROS messages are.
                content: Any = json.loads(message.data, object_hook=_attributes)
            else:
                decode = ros.decoder_for(channel.message_encoding, schema)
                if decode is None:
                    raise DataError(
                        f"{bag}: topic {channel.topic} is encoded as "
                        f"{channel.message_encoding!r}, expected ROS 2 (cdr) or json; convert it"
                    )
                content = decode(message.data)
            kind = "" if schema is None else schema.name
            yield _message(channel.topic, kind, message.log_time, content)


def _attributes(members: dict[str, Any]) -> SimpleNamespace:
    return SimpleNamespace(**members)


def _message(topic: str, kind: str, logged_ns: int, content: Any) -> BagMessage:
    """Take the time of measurement from the header where there is one, else that of logging."""
    stamp = getattr(getattr(content, "header", None), "stamp", None)
    stamp_ns = 0
    if stamp is not None:
        seconds = getattr(stamp, "sec", getattr(stamp, "secs", 0))
        fraction = getattr(stamp, "nanosec", getattr(stamp, "nanosecs", 0))
        stamp_ns = int(seconds) * 1_000_000_000 + int(fraction)
    return BagMessage(topic, kind, stamp_ns or int(logged_ns), content)


def numbers(content: Any) -> tuple[list[str], list[float]]:
    """Flatten the numbers of a message, with the path of each as its name; headers excluded.

    Example:
        >>> numbers(twist)[0]
        ['linear.x', 'linear.y', 'linear.z', 'angular.x', 'angular.y', 'angular.z']
    """
    names: list[str] = []
    values: list[float] = []
    labels = getattr(content, "name", None)  # of the joints in a JointState
    for name, value in _leaves(content, "", 0):
        array = np.asarray(value, np.float64).reshape(-1)
        joint = isinstance(labels, (list, tuple)) and len(labels) == len(array) > 0
        if np.ndim(value) == 0:
            names.append(name)
        elif joint and labels is not None:
            names += [f"{name}.{label}" for label in labels]
        else:
            names += [f"{name}.{i}" for i in range(len(array))]
        values += array.tolist()
        if len(values) > _MOST_NUMBERS:
            return [], []
    return names, values


def _leaves(node: Any, path: str, depth: int) -> Iterator[tuple[str, Any]]:
    if isinstance(node, (bool, int, float, np.number)):
        yield path, float(node)
    elif isinstance(node, np.ndarray) and node.dtype.kind in "fiub":
        yield path, node
    elif isinstance(node, (list, tuple)) and node and all(_is_number(each) for each in node):
        yield path, list(node)
    elif depth < _DEEPEST and not isinstance(node, (str, bytes, list, tuple, np.ndarray)):
        for name in _fields(node):
            if name not in ("header", "layout"):
                yield from _leaves(
                    getattr(node, name), f"{path}.{name}" if path else name, depth + 1
                )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number))


def _fields(node: Any) -> list[str]:
    slots: Iterable[str] = getattr(node, "__slots__", ())
    names = list(slots) or list(getattr(node, "__dict__", {}))
    return [name.lstrip("_") for name in names if not name.startswith("__")]


def is_depth(message: BagMessage) -> bool:
    """Return whether a picture holds distances and not colours."""
    with contextlib.suppress(AttributeError):
        return any(word in message.content.encoding for word in _DEPTH)
    return "compressedDepth" in getattr(message.content, "format", "")


def picture(message: BagMessage) -> NDArray[np.uint8]:
    """Decode an Image or CompressedImage to RGB `[h, w, 3]`.

    Raises:
        DataError: its encoding is unknown, or it is damaged.
    """
    content, where = message.content, f"topic {message.topic}"
    if not hasattr(content, "encoding"):
        return decode_picture(bytes(content.data), where)
    if content.encoding not in _ENCODINGS:
        raise DataError(
            f"{where} has pictures encoded as {content.encoding!r}, expected one of: "
            f"{', '.join(_ENCODINGS)}; record a debayered colour topic"
        )
    channels, order = _ENCODINGS[content.encoding]
    pixels = np.frombuffer(bytes(content.data), np.uint8)
    height, width, step = int(content.height), int(content.width), int(content.step)
    if pixels.size < height * step or step < width * channels:
        raise DataError(f"{where} has a picture of too few bytes; record it or copy it again")
    # Rows may be padded.
    rows = pixels[: height * step].reshape(height, step)[:, : width * channels]
    return as_rgb(rows.reshape(height, width, channels)[..., list(order)], where)
