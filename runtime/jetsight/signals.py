"""Signals around calls into libraries that would lose them."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def deferred_signals() -> Iterator[Callable[[], bool]]:
    """Hold back Ctrl-C and SIGTERM inside the block, and deliver the first one at its end.

    Libraries swallow what is raised in their callbacks, so a signal that arrives there would be
    lost. Yields a function that says whether one is waiting; a second signal ends at once. In other
    threads than the main one there is nothing to hold back.
    """
    waiting: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def remember(number: int, _: FrameType | None) -> None:
        if waiting:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        waiting.append(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        if handler is not None:  # else it was installed outside Python, which cannot put it back
            signal.signal(number, remember)
    try:
        yield lambda: bool(waiting)
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)
        if waiting:
            signal.raise_signal(waiting[0])
