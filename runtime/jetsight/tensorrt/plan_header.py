"""Header of a serialized engine, read without TensorRT.

TensorRT must not deserialize foreign bytes: they may contain code that is run, and its message for
another version is only "Version tag does not match". The first 28 bytes are

    0  "ftrt" or "vtrt"    4  u32 zero    16 u64 size of all    24 major, minor, patch, build

TensorRT writes the first tag, TensorRT-RTX 1.7.1 the second; the version distinguishes them. The
size is checked for TensorRT-RTX alone, where it was measured; for TensorRT the build record has
size and digest.
"""

from __future__ import annotations

from dataclasses import dataclass

from jetsight.errors import EngineError
from jetsight.tensorrt.bindings import RTX, TENSORRT, Version, product, version_text

_REBUILD = "build it here: jetsight build BUNDLE"
HEADER_BYTES = 28
_TAGS = (b"ftrt\0\0\0\0", b"vtrt\0\0\0\0")
_OLDEST_TENSORRT = 8  # TensorRT-RTX counts from 1


@dataclass(frozen=True)
class PlanHeader:
    """TensorRT that wrote an engine.

    Attributes:
        library: `"tensorrt"` or `"tensorrt_rtx"`.
        version: major, minor, patch, build.
        size_bytes: of the whole engine; None if it is not in the header.
    """

    library: str
    version: Version
    size_bytes: int | None

    def __str__(self) -> str:
        return f"{product(self.library)} {version_text(self.version)}"


def parse(data: bytes, what: str) -> PlanHeader:
    """Read the header of an engine.

    Args:
        data: the whole engine.
        what: name of the engine in messages.

    Raises:
        EngineError: this is no engine, or it is truncated.
    """
    if len(data) < HEADER_BYTES:
        raise EngineError(f"{what}: {len(data)} bytes are no TensorRT engine; {_REBUILD}")
    if not data.startswith(_TAGS):
        raise EngineError(f"{what}: does not start like a TensorRT engine; {_REBUILD}")
    version = (data[24], data[25], data[26], data[27])
    rtx = version[0] < _OLDEST_TENSORRT
    size = int.from_bytes(data[16:24], "little") if rtx else None
    if size is not None and size != len(data):
        raise EngineError(
            f"{what}: {len(data)} bytes, but its header says {size}; it was truncated or extended, "
            f"{_REBUILD}"
        )
    return PlanHeader(RTX if rtx else TENSORRT, version, size)


def check(data: bytes, library: str, version: Version, what: str) -> PlanHeader:
    """Refuse an engine that another TensorRT wrote; call it before anything is deserialized.

    Args:
        data: the whole engine.
        library: module name of the installed TensorRT.
        version: its version; a build of 0 matches every build.
        what: name of the engine in messages.

    Raises:
        EngineError: no engine, truncated, or of another TensorRT; with both versions.
    """
    header = parse(data, what)
    known = 4 if version[3] else 3
    if header.library != library or header.version[:known] != version[:known]:
        here = f"{product(library)} {version_text(version)}"
        raise EngineError(f"{what}: built for {header}, found {here}; {_REBUILD}")
    return header
