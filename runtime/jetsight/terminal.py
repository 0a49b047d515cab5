"""One line of a terminal, rewritten in place."""

from __future__ import annotations

import contextlib
import shutil
from typing import TextIO


class TerminalLine:
    """Writer that never fails: a progress display must not end the work.

    Args:
        stream: usually stderr.

    Attributes:
        live: the stream is a terminal, so that a line can be rewritten.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.live = stream.isatty()

    def rewrite(self, text: str) -> None:
        """Replace the line by `text`, cut to the width of the terminal."""
        # One column less than the width: a line that wraps could not be erased again.
        self.write(f"\r\x1b[2K{text[: shutil.get_terminal_size().columns - 1]}")

    def write(self, text: str) -> None:
        """Write `text` unchanged."""
        with contextlib.suppress(OSError, ValueError):  # the terminal was closed
            self._stream.write(text)
            self._stream.flush()
