"""TFRecord files and the `tf.train.Example` messages in them, without TensorFlow.

Framing: https://www.tensorflow.org/tutorials/load_data/tfrecord (length, masked CRC-32C of the
length, data, masked CRC-32C of the data). The message is declared here for Google's protobuf.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jetsight.errors import DataError, MissingDependency, first_line

_HEADER = 12  # bytes: length and its checksum
_MASK = 0xA282EAD8
Feature = NDArray[Any] | list[bytes]


def read_records(file: Path) -> Iterator[bytes]:
    """Iterate over the records of a TFRecord file; both checksums of each are verified.

    Raises:
        DataError: it cannot be read, is truncated or damaged.
        MissingDependency: google-crc32c is not installed.
    """
    try:
        import google_crc32c
    except ImportError as problem:
        raise MissingDependency("google-crc32c", "data", "reading a TFRecord") from problem
    offset = 0

    def checked(data: bytes, crc: bytes) -> bytes:
        value = google_crc32c.value(data)
        masked = (((value >> 15) | (value << 17)) + _MASK) & 0xFFFFFFFF
        if len(crc) < 4 or struct.unpack("<I", crc)[0] != masked:
            raise DataError(
                f"{file} is truncated or damaged at byte {offset}; copy the dataset again"
            )
        return data

    try:
        with file.open("rb") as stream:
            while header := stream.read(_HEADER):
                (length,) = struct.unpack("<Q", checked(header[:8], header[8:]))
                yield checked(stream.read(length), stream.read(4))
                offset += _HEADER + length + 4
    except OSError as problem:
        raise DataError(f"cannot read {file} ({problem.strerror}); check the disk") from problem
    except struct.error as problem:
        raise DataError(
            f"{file} is truncated at byte {offset}; copy the dataset again"
        ) from problem


def parse_example(record: bytes, where: object) -> Mapping[str, Feature]:
    """Parse a `tf.train.Example`: numbers as arrays, texts and images as lists of bytes.

    Args:
        record: one serialized message.
        where: its file, first words of a message.

    Raises:
        DataError: it is no such message.
        MissingDependency: protobuf is not installed.
    """
    message_class, decode_error = _example_class()
    message = message_class()
    try:
        message.ParseFromString(record)
    except decode_error as problem:
        raise DataError(
            f"{where} holds a record that is no tf.train.Example ({first_line(problem)}); expected "
            "an RLDS dataset"
        ) from problem
    return {key: _plain(feature) for key, feature in message.features.feature.items()}


def _plain(feature: Any) -> Feature:
    kind = feature.WhichOneof("kind")
    if kind == "bytes_list":
        return list(feature.bytes_list.value)
    values = [] if kind is None else getattr(feature, kind).value
    return np.array(values, np.int64 if kind == "int64_list" else np.float32)


@functools.cache
def _example_class() -> tuple[type[Any], type[Exception]]:
    """Declare the messages of tensorflow/core/example, once."""
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory
    except ImportError as problem:
        raise MissingDependency("protobuf", "data", "reading a TFRecord") from problem
    file = descriptor_pb2.FileDescriptorProto(
        name="jetsight/example.proto", package="jetsight.example", syntax="proto3"
    )
    kinds = descriptor_pb2.FieldDescriptorProto
    for name, kind in (
        ("BytesList", kinds.TYPE_BYTES),
        ("FloatList", kinds.TYPE_FLOAT),
        ("Int64List", kinds.TYPE_INT64),
    ):
        file.message_type.add(name=name).field.add(
            name="value", number=1, type=kind, label=kinds.LABEL_REPEATED
        )
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, name in enumerate(("BytesList", "FloatList", "Int64List"), 1):
        feature.field.add(
            name=f"{name[:-4].lower()}_list",
            number=number,
            type=kinds.TYPE_MESSAGE,
            label=kinds.LABEL_OPTIONAL,
            type_name=f".jetsight.example.{name}",
            oneof_index=0,
        )
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    _message_field(entry, "value", 2, "Feature")
    repeated = _message_field(features, "feature", 1, "Features.FeatureEntry")
    repeated.label = kinds.LABEL_REPEATED
    _message_field(file.message_type.add(name="Example"), "features", 1, "Features")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    example = pool.FindMessageTypeByName("jetsight.example.Example")
    return message_factory.GetMessageClass(example), message.DecodeError


def _message_field(owner: Any, name: str, number: int, kind: str) -> Any:
    return owner.field.add(
        name=name,
        number=number,
        type=11,  # TYPE_MESSAGE
        label=1,  # LABEL_OPTIONAL
        type_name=f".jetsight.example.{kind}",
    )
