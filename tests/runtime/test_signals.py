from __future__ import annotations

import ctypes
import signal
import sys

import pytest

from jetsight.signals import deferred_signals


def test_a_signal_waits_for_the_end_of_the_block() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    try:
        with deferred_signals() as waiting:
            assert not waiting()
            signal.raise_signal(signal.SIGTERM)
            assert waiting()
            assert seen == []
        assert seen == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("deferred", [False, True])
def test_a_callback_of_a_library_would_lose_it(deferred: bool, monkeypatch) -> None:
    """What is raised in a callback from C is dropped there; the control shows the loss."""
    lost: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda raised: lost.append(raised.exc_type))

    def interrupt(number: int, _: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    callback = ctypes.CFUNCTYPE(None)(lambda: signal.raise_signal(signal.SIGTERM))
    try:
        if deferred:
            with pytest.raises(KeyboardInterrupt), deferred_signals():
                callback()
        else:
            callback()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert lost == ([] if deferred else [KeyboardInterrupt])
