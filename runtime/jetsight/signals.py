"""Ctrl-C and SIGTERM: deferral where they would be lost, and the advice they end a command with."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from jetsight.errors import Interrupted

INTERRUPTED, TERMINATED = 130, 143  # exit codes


class Terminated(SystemExit):
    """Unwinding of the stack by SIGTERM, as `KeyboardInterrupt` is by Ctrl-C."""

    def __init__(self) -> None:
        super().__init__(TERMINATED)


@contextlib.contextmanager
def interruption_advice(advice: Callable[[], str]) -> Iterator[None]:
    """Add what is kept, and how to go on, to the one line that an interrupted command ends with.

    Args:
        advice: makes the text after "interrupted; ", once it is known what is kept.

    Raises:
        Interrupted: Ctrl-C or SIGTERM ended the block.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; {advice()}", INTERRUPTED) from None
    except Terminated:
        raise Interrupted(f"terminated; {advice()}", TERMINATED) from None


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
