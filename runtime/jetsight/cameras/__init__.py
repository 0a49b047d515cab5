"""Frame sources, each behind one `Camera` with its own thread."""

from __future__ import annotations

from jetsight.cameras.camera import Camera
from jetsight.cameras.source import Reading, Source, SourceFormat, SourceInfo, StreamRequest

__all__ = ["Camera", "Reading", "Source", "SourceFormat", "SourceInfo", "StreamRequest"]
