"""Progress of a build: one line on a terminal, plain lines in a file or pipe."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TextIO

from jetsight.tensorrt.bindings import TensorRtModule
from jetsight.terminal import TerminalLine

Say = Callable[[float, str], None]  # part done from 0 to 1, and name of the phase


class ProgressLine:
    """Line of a terminal that is rewritten; on other streams one line per step.

    Args:
        stream: usually stderr.
    """

    def __init__(self, stream: TextIO) -> None:
        self._line = TerminalLine(stream)
        self._shown = self._newest = ""

    def step(self, text: str) -> None:
        """Begin a step, e.g. `"trt-op20-fp16 encode: building"`."""
        if self._line.live:
            self._line.rewrite(text)
        else:
            self._line.write(f"  {text}\n")
        self._shown = text

    def done(self, part: float, what: str) -> None:
        """Show the progress of the step, on a terminal only."""
        text = f"{self._shown} {part:4.0%}  {what}"
        if self._line.live and text != self._newest:
            self._newest = text
            self._line.rewrite(text)

    def close(self) -> None:
        """Clear the line."""
        if self._line.live and self._shown:
            self._line.rewrite("")


class Phases:
    """Progress of nested phases of a build as one number that never decreases."""

    def __init__(self) -> None:
        self._phases: dict[str, tuple[str | None, int, int]] = {}  # parent, steps, steps done
        self._most = 0.0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Begin a phase of that many steps inside `parent`."""
        self._phases[name] = (parent, max(steps, 1), 0)

    def step(self, name: str, index: int) -> None:
        """Count step `index` of a phase as done."""
        if name in self._phases:
            parent, steps, _ = self._phases[name]
            self._phases[name] = (parent, steps, min(index + 1, steps))

    def finish(self, name: str) -> None:
        """End a phase."""
        self._phases.pop(name, None)

    def part(self) -> float:
        """Compute the part done, from 0 to 1."""
        roots = [name for name, (parent, _, _) in self._phases.items() if parent is None]
        now = max((self._part_of(name, 0) for name in roots), default=0.0)
        self._most = max(self._most, now)
        return self._most

    def _part_of(self, name: str, depth: int) -> float:
        _, steps, done = self._phases[name]
        # The limit of depth ends a cycle, if a phase is reported as its own ancestor.
        inner = [n for n, (parent, _, _) in self._phases.items() if parent == name]
        nested = max((self._part_of(n, depth + 1) for n in inner), default=0.0) if depth < 8 else 0
        return min((done + nested) / steps, 1.0)


def make_monitor(library: TensorRtModule, say: Say, stop: Callable[[], bool]) -> Any | None:
    """Make an `IProgressMonitor` that reports to `say` and cancels if `stop` returns True.

    Returns:
        The monitor; None if this TensorRT does not support one.
    """
    base: Any = getattr(library.module, "IProgressMonitor", None)
    if base is None:
        return None

    class Monitor(base):  # type: ignore[misc]
        """TensorRT calls it from its own threads, one phase at a time each."""

        def __init__(self) -> None:
            base.__init__(self)  # pybind11 refuses an object whose base was not initialised
            self._phases, self._lock = Phases(), threading.Lock()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                self._phases.start(phase_name, parent_phase, num_steps)
                say(self._phases.part(), phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self._lock:
                self._phases.step(phase_name, step)
                say(self._phases.part(), phase_name)
            return not stop()  # False cancels the build

        def phase_finish(self, phase_name: str) -> None:
            with self._lock:
                self._phases.finish(phase_name)

    return Monitor()
