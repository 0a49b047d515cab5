"""Deferral of signals during calls into libraries that would lose them."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def deferred_signals() -> Iterator[Callable[[], bool]]:
    """Defer Ctrl-C and SIGTERM inside the block, and deliver the first one at its end.

    Libraries swallow exceptions of their callbacks, so a signal that arrives there would be lost.
    A second signal ends the process at once.

    Yields:
        A function that returns whether a signal is pending.
    """
    pending: list[int] = []
    # Python runs signal handlers in the main thread only, so other threads have none to defer.
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def remember(number: int, _: FrameType | None) -> None:
        if pending:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        pending.append(number)

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # None: installed outside Python, which could not restore it.
    before = {number: handler for number, handler in handlers.items() if handler is not None}
    for number in before:
        signal.signal(number, remember)
    try:
        yield lambda: bool(pending)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if pending:
            signal.raise_signal(pending[0])  # the old handlers are back and act on it
