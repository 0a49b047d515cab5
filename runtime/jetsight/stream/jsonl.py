"""`forecasts.jsonl`: one line per forecast, written beside the loop and renamed when complete.

A line holds the fields of `Forecast`; `z` and `z_future` are base64 of little-endian float32, which
costs a twentieth of decimal numbers and loses nothing. Shapes: D latent size, H horizon.
"""

from __future__ import annotations

import base64
import json
import os
import queue
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jetsight.engine import NDArray
from jetsight.errors import DataError, JetsightError
from jetsight.storage import atomic
from jetsight.stream.frames import Forecast, Mode, Reason

_ROWS = 4096  # rows in the queue of a slow disk: at 30 Hz two minutes, 25 MB
_Row = tuple[Forecast, bytes | None, bytes | None]


class _Nothing(Exception):
    """Signal that the file must not take its name."""


class ForecastWriter:
    """Writer of forecasts in a thread of its own; the file takes its name when it is closed.

    The loop only copies two arrays per forecast. When the disk cannot keep up, or is full, the loop
    goes on: rows that find no room are counted in `lost`, and `close` raises the error.

    Args:
        path: final name of the file; a file of that name is replaced.
        wait: wait for room instead of losing rows, for streams that are not in real time.

    Raises:
        StorageError: the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], *, wait: bool = False) -> None:
        self.path = Path(path)
        self.lost = 0
        self._wait = wait
        self._rows: queue.Queue[_Row | None] = queue.Queue(_ROWS)
        self._ready = threading.Event()
        self._error: Exception | None = None
        # A daemon: a disk that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._write, name="jetsight-writer", daemon=True)
        self._thread.start()
        # A file that cannot be made is an error of the constructor, before the stream begins.
        self._ready.wait()
        self._raise()

    def add(self, forecast: Forecast) -> None:
        """Queue a forecast; its arrays are copied."""
        # Copied here: both are views that the next frame overwrites.
        z, z_future = forecast.z, forecast.z_future
        row = (
            forecast,
            None if z is None else z.tobytes(),
            None if z_future is None else z_future.tobytes(),
        )
        if self._error is not None:
            # The thread has ended, so waiting for room in the queue would never return.
            self.lost += 1
            return
        try:
            self._rows.put(row, block=self._wait)
        except queue.Full:
            self.lost += 1

    def close(self) -> None:
        """Write what is queued, flush it to disk and give the file its name.

        Without a single forecast there is no file, and an older one of that name stays.

        Raises:
            StorageError: it could not be written; nothing incomplete has the name then.
        """
        if self._thread.is_alive():
            self._rows.put(None)
            self._thread.join()
        self._raise()

    def _raise(self) -> None:
        if isinstance(self._error, OSError) and not isinstance(self._error, JetsightError):
            raise atomic.storage_error(self._error, self.path) from self._error
        if self._error is not None:
            raise self._error

    def _write(self) -> None:
        """Body of the writer thread."""
        try:
            with atomic.new_file(self.path) as stream:
                self._ready.set()
                written = 0
                while (row := self._rows.get()) is not None:
                    written += stream.write(to_line(*row).encode())
                if not written:
                    # Only an exception makes `new_file` drop the file and leave an older one in
                    # place.
                    raise _Nothing
        except _Nothing:
            pass
        except Exception as error:  # kept for `close`: raising would only end this thread
            self._error = error
            self._drain()
        finally:
            self._ready.set()

    def _drain(self) -> None:
        """Empty the queue, so that an `add` that waits for room goes on."""
        while not self._rows.empty():
            if self._rows.get_nowait() is not None:
                self.lost += 1


def to_line(forecast: Forecast, z: bytes | None, z_future: bytes | None) -> str:
    """Format one line of the file, with its newline."""
    return (
        json.dumps(
            {
                "frame_index": forecast.frame_index,
                "tick": forecast.tick,
                "captured_ns": forecast.captured_ns,
                "age_ms": round(forecast.age_ms, 4),
                "encode_ms": round(forecast.encode_ms, 4),
                "forecast_ms": round(forecast.forecast_ms, 4),
                "overhead_ms": round(forecast.overhead_ms, 4),
                "surprise": forecast.surprise,
                "surprising": forecast.surprising,
                "valid": forecast.valid,
                "reason": str(forecast.reason),
                "mode": str(forecast.mode),
                "drops": forecast.drops,
                "source_hz": forecast.source_hz,
                "assumed": forecast.assumed,
                "z": _text(z),
                "z_future": _text(z_future),
            }
        )
        + "\n"
    )


def read(path: str | os.PathLike[str]) -> Iterator[Forecast]:
    """Read the forecasts of a file, with arrays `z [D]` and `z_future [H, D]` of their own.

    Raises:
        DataError: a line is not what `ForecastWriter` writes.

    Example:
        >>> surprise = [forecast.surprise for forecast in read("forecasts.jsonl")]
    """
    with open(path, encoding="utf-8") as stream:
        for number, line in enumerate(stream, 1):
            try:
                yield _parse(line)
            except (ValueError, TypeError, KeyError) as error:
                raise DataError(
                    f"{path} line {number} is no forecast ({error}); expected a file written by "
                    "jetsight run --out"
                ) from error


def _parse(line: str) -> Forecast:
    fields = json.loads(line)
    z, future = _array(fields.pop("z")), _array(fields.pop("z_future"))
    if future is not None and z is not None:
        future = future.reshape(-1, z.size)
    fields["reason"], fields["mode"] = Reason(fields["reason"]), Mode[fields["mode"]]
    return Forecast(**fields, z=z, z_future=future)


def _text(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode("ascii")


def _array(text: str | None) -> NDArray | None:
    if text is None:
        return None
    # `frombuffer` gives a read-only view of bytes; `validate` refuses what Python would skip.
    array: NDArray = np.frombuffer(base64.b64decode(text, validate=True), "<f4").copy()
    return array
