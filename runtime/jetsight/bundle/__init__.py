"""Bundles: their format, their verification, and the specs of the model inside."""

from __future__ import annotations

from jetsight.bundle.bundle import Bundle, write_bundle

__all__ = ["Bundle", "write_bundle"]
