"""One line of a terminal, rewritten in place."""

from __future__ import annotations

import contextlib
import shutil
from typing import TextIO


class TerminalLine:
    """Writer that never fails, because progress must not end what it reports on.

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
        # A line that wraps could not be erased again, hence one column less.
        self.write(f"\r\x1b[2K{text[: shutil.get_terminal_size().columns - 1]}")

    def write(self, text: str) -> None:
        """Write `text` as it is."""
        with contextlib.suppress(OSError, ValueError):  # the terminal went away
            self._stream.write(text)
            self._stream.flush()
