"""Kernel times measured on this machine, which make later builds faster.

There is one file per machine (TensorRT, driver, GPU, power mode). Several builds may run at once:
each loads the file, and merges its measurements into the current file, under a lock.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from jetsight.errors import StorageError
from jetsight.storage.atomic import write_file
from jetsight.storage.locks import locked
from jetsight.tensorrt.bindings import RTX, TensorRtModule


class TimingCache:
    """Timing cache file of one machine.

    Args:
        path: the file; its folder exists.
        library: TensorRT-RTX measures nothing while it builds and keeps no cache.
    """

    def __init__(self, path: Path, library: TensorRtModule) -> None:
        self._path, self._used = path, library.name != RTX
        self._lock = path.with_suffix(".lock")

    def load(self, config: Any) -> None:
        """Load the cache into a builder config; an empty one if the file does not fit."""
        if not self._used:
            return
        cache = _cache(config, self._read())
        # False: times of another GPU or TensorRT are refused instead of used.
        if not (cache and config.set_timing_cache(cache, False)):
            config.set_timing_cache(config.create_timing_cache(b""), False)

    def save(self, config: Any) -> None:
        """Merge the measurements into the file; a build never fails because of it."""
        cache = config.get_timing_cache() if self._used else None
        if cache is None:
            return
        with contextlib.suppress(OSError, StorageError), locked(self._lock):
            # Read again under the lock: another build may have saved since `load`.
            current = _cache(config, self._read())
            if current is not None:
                cache.combine(current, False)
            write_file(self._path, bytes(cache.serialize()))

    def _read(self) -> bytes:
        try:
            return self._path.read_bytes()
        except OSError:
            return b""


def _cache(config: Any, data: bytes) -> Any | None:
    """Make a cache object from bytes; None if TensorRT refuses them."""
    try:
        return config.create_timing_cache(data)
    except (RuntimeError, TypeError, ValueError):
        return None
