"""The `jetsight` command; errors become one line on stderr and an exit code here."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

from jetsight.errors import JetsightError
from jetsight.signals import INTERRUPTED, TERMINATED, Terminated

NO_PLAN = 11  # not an error: planning succeeded, with the result that there is no valid plan
INCOMPLETE = 12  # no error either: a bundle was written, without what failed its gates
BLOCKED = 13  # no error either: recorded data was checked, and cannot be trained on

# Handlers before ours. They are restored in a child that a library forks: it must end by its
# signals as that library expects, without our message.
_before: dict[int, Any] = {}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (`sys.argv` if None) and return its exit code."""
    with _signals():
        try:
            from jetsight.cli.group import run  # here, so that Ctrl-C during imports is handled too

            return run(sys.argv[1:] if arguments is None else arguments)
        except KeyboardInterrupt:
            return _say("interrupted", INTERRUPTED)
        except Terminated:
            return _say("terminated", TERMINATED)
        except JetsightError as error:
            return _say(str(error), error.exit_code)
        except (ImportError, OSError) as error:
            known = _known(error)
            if known is None:
                raise
            return _say(str(known), known.exit_code)


def _say(text: str, code: int) -> int:
    line = " ".join(text.split())  # a library's message may have several
    with contextlib.suppress(OSError):
        print(f"jetsight: error: {line}", file=sys.stderr, flush=True)
    return code


def _known(error: ImportError | OSError) -> JetsightError | None:
    """Translate an unexpected error for the user; None if it is a bug of jetsight."""
    if isinstance(error, ImportError):
        from jetsight import errors

        known = errors.missing(error, "this command")
        if known is None and "shared object file" in str(error):
            return JetsightError(f"a system library is missing: {error}; see: jetsight doctor")
        return known
    from jetsight.storage import atomic

    if atomic.is_full(error):
        return atomic.storage_error(error, error.filename or "a file")
    if error.filename is None:  # of no file of the user's, so a traceback helps more
        return None
    return JetsightError(f"{error.filename}: {error.strerror}")


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Unwind the stack on SIGTERM as on Ctrl-C; a second signal ends the process at once."""
    handled = (signal.SIGINT, signal.SIGTERM)
    _before.update({number: signal.getsignal(number) for number in handled})

    def unwind(number: int, _: FrameType | None) -> None:
        _install(dict.fromkeys(handled, signal.SIG_DFL))
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise Terminated

    _install(dict.fromkeys(handled, unwind))
    try:
        yield
    finally:
        _install(_before)
        _before.clear()


def _install(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        if handler is None:  # installed outside Python, which cannot restore it
            continue
        with contextlib.suppress(ValueError):  # not the main thread: its owner handles signals
            signal.signal(number, handler)


os.register_at_fork(after_in_child=lambda: _install(_before))
