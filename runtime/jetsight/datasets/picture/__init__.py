"""Decoded pictures as frames: what the pixels of a source mean."""

from __future__ import annotations

from jetsight.datasets.picture.header import ImageHeader, read_header
from jetsight.datasets.picture.reader import PictureFormat, PictureReader, names_depth

__all__ = ["ImageHeader", "PictureFormat", "PictureReader", "names_depth", "read_header"]
