"""Progress of long work on stderr: a line rewritten on a terminal, now and then a line in a log.

In a file or pipe the first line comes after 10 s, so that short work stays silent, and then one per
5 % of the work, at least 10 s and at most a minute apart.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sized
from contextvars import ContextVar
from typing import TextIO, TypeVar

from jetsight.clock import Clock, MonotonicClock
from jetsight.terminal import TerminalLine

T = TypeVar("T")

LOG_EVERY_S, LOG_AT_MOST_S, LOG_SHARE = 10.0, 60.0, 0.05
TERMINAL_EVERY_S = 0.1
_BAR_CELLS = 20

_quiet: ContextVar[bool] = ContextVar("quiet", default=False)


@contextlib.contextmanager
def quiet_progress(quiet: bool = True) -> Iterator[None]:
    """Show no progress inside the block if `quiet`; for `--quiet`."""
    token = _quiet.set(quiet or _quiet.get())
    try:
        yield
    finally:
        _quiet.reset(token)


class Progress:
    """Counter of finished units with an estimate of the time left; never fails.

    Use as a context manager, which clears the line of a terminal at its end.

    Args:
        title: of the work, e.g. `"train"`.
        total: number of units; None where it is not known.
        unit: one of them, e.g. `"step"`.
        initial: units that an earlier run finished.
        clock: clock that the time left is estimated by.
        stream: None for stderr.
    """

    def __init__(
        self,
        title: str,
        total: int | None,
        unit: str,
        *,
        initial: int = 0,
        clock: Clock | None = None,
        stream: TextIO | None = None,
    ) -> None:
        self._title, self._total, self._unit = title, total, unit
        self._clock = clock or MonotonicClock()
        self._line = TerminalLine(stream or sys.stderr)
        self._silent = _quiet.get()
        self._done = self._first = self._shown_at = initial
        self._note = ""
        self._began_ns = self._shown_ns = self._clock.now_ns()
        self._rewritten = False

    def update(self, count: int = 1, notes: Mapping[str, object] | None = None) -> None:
        """Count `count` more units as done; `notes` replace the values shown behind the time."""
        self._done += count
        if notes is not None:
            self._note = "".join(f", {key} {value}" for key, value in notes.items())
        if self._silent:
            return
        now_ns = self._clock.now_ns()
        if self._is_due((now_ns - self._shown_ns) / 1e9):
            self._show(now_ns)

    def reach(self, done: int, total: int) -> None:
        """Set the units that are done, and their total, where both are counted elsewhere."""
        self._total = total
        self.update(done - self._done)

    def close(self) -> None:
        """Clear the line of a terminal."""
        if self._rewritten:
            self._line.rewrite("")
            self._rewritten = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _is_due(self, since_s: float) -> bool:
        if self._line.live:
            return since_s >= TERMINAL_EVERY_S
        if since_s < LOG_EVERY_S:
            return False
        share = (self._done - self._shown_at) / self._total if self._total else 0.0
        # The first line shows that the work is alive, however little is done.
        first = self._shown_ns == self._began_ns
        return first or share >= LOG_SHARE or since_s >= LOG_AT_MOST_S

    def _show(self, now_ns: int) -> None:
        text = self._text((now_ns - self._began_ns) / 1e9)
        self._shown_ns, self._shown_at = now_ns, self._done
        if self._line.live:
            self._line.rewrite(text)
            self._rewritten = True
        else:
            self._line.write(f"  {text}\n")

    def _text(self, took_s: float) -> str:
        new = self._done - self._first
        rate = new / took_s if took_s > 0 else 0.0
        if self._total is None:
            return f"{self._title}: {self._done} {self._unit}s in {duration(took_s)}{self._note}"
        share = min(self._done / self._total, 1.0) if self._total else 1.0
        left = duration((self._total - self._done) / rate) if rate > 0 else "unknown time"
        bar = ""
        if self._line.live:
            cells = round(share * _BAR_CELLS)
            bar = f" [{'#' * cells}{'.' * (_BAR_CELLS - cells)}]"
        return (
            f"{self._title}:{bar} {share:.0%}, {self._unit} {self._done} of {self._total}, "
            f"{left} left{self._note}"
        )


class StageLines:
    """One line per stage of work whose stages differ, with a rough estimate of the time left.

    Args:
        total: stages that are expected; there may be more.
        clock: clock that the time left is estimated by.
        stream: None for stderr.
    """

    def __init__(
        self, total: int, *, clock: Clock | None = None, stream: TextIO | None = None
    ) -> None:
        self._total, self._begun = total, 0
        self._clock = clock or MonotonicClock()
        self._line = TerminalLine(stream or sys.stderr)
        self._silent = _quiet.get()
        self._began_ns = self._clock.now_ns()

    def __call__(self, stage: str) -> None:
        """Say that `stage` begins."""
        done, self._begun = self._begun, self._begun + 1
        if self._silent:
            return
        took_s = (self._clock.now_ns() - self._began_ns) / 1e9
        about = ""
        if took_s >= LOG_EVERY_S and done < self._total:
            left = duration(took_s / done * (self._total - done))
            about = f" ({self._begun} of {self._total}, about {left} left)"
        self._line.write(f"  {stage}{about}\n")


def progress(items: Iterable[T], title: str, unit: str, *, total: int | None = None) -> Iterator[T]:
    """Iterate over `items` and show the progress; `total` where `len(items)` does not exist."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Progress(title, total, unit) as shown:
        for item in items:
            yield item
            shown.update()


def duration(seconds: float) -> str:
    """Format a time in two units, e.g. `"1 h 05 min"`.

    Example:
        >>> duration(95)
        '1 min 35 s'
    """
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
