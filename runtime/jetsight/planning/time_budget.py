"""Choice of the planner that makes most of a time budget, from times measured on this machine.

    $XDG_CACHE_HOME/jetsight/planner-times/   0700
        <key>.json                            0600, replaced in one step

The key covers everything a time depends on: graphs, backend and version, threads, machine. A file
that is damaged, of another user or of another key is ignored: the times are measured again.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jetsight.bundle.planner_spec import PlannerSpec
from jetsight.errors import JetsightError, UsageError
from jetsight.machine.jetson import jetson
from jetsight.storage import atomic, strict_json

# Share of a budget for iterations; the rest is for the goal, the histories and the result.
_USABLE = 0.9
_FEW = 3  # iterations; with fewer, a plan is hardly better than its best first sample
_MOST_BYTES = 1 << 20
_LOGGER = logging.getLogger("jetsight")

_REMEMBERED = 4
# A refused plan brings no new measurement. Without fading, a machine that was busy for a while
# would be refused for ever; with it, one twice too slow is tried once in 69 plans.
_FADE = 0.99


@dataclass(frozen=True)
class GraphTime:
    """Milliseconds that one iteration of a planner's graph takes here."""

    graph: str
    p50_ms: float
    p99_ms: float
    runs: int

    def __post_init__(self) -> None:
        if not 0 <= self.p50_ms <= self.p99_ms or self.runs < 1:
            raise UsageError(f"times of {self.graph} are {self.p50_ms} and {self.p99_ms} ms")


@dataclass(frozen=True, slots=True)
class PlannerChoice:
    """A planner for a budget.

    Args:
        planner: its graph.
        iterations: that fit; at least 1.
        expected_ms: what they take at worst, one plan in a hundred aside.
        fits: that is within the budget.
    """

    planner: str
    iterations: int
    expected_ms: float
    fits: bool


@dataclass(frozen=True)
class MeasuredOn:
    """Everything that times depend on; None where the machine does not report it."""

    graphs: Mapping[str, str]
    backend: str
    backend_version: str | None
    threads: int | None
    processor: str | None
    cores: int
    gpu: str | None
    driver: str | None
    power_mode: str | None

    @property
    def key(self) -> str:
        """32 hex digits; equal only if all of it is."""
        return hashlib.sha256(strict_json.dump(self)).hexdigest()[:32]


@dataclass(frozen=True)
class _Times:
    """Content of a file."""

    format: Literal["jetsight-planner-times"]
    version: Literal[1]
    on: MeasuredOn
    times: tuple[GraphTime, ...]


def choose(
    times: Sequence[GraphTime], planners: Sequence[PlannerSpec], budget_ms: float
) -> PlannerChoice:
    """Choose the planner that makes most of a budget, and how many of its iterations fit.

    As many iterations fit as 90 % of the budget holds at the 99th percentile of one, at most
    those the planner was meant for. Of the planners with at least 3 (or all they were meant for),
    those that look farthest ahead are taken, and of them the one that tries most candidates in all.
    Where none has so many, the one with most iterations is taken; where not even one iteration
    fits, the fastest.
    """
    by_graph = {planner.graph: planner for planner in planners}

    def fitting(time: GraphTime) -> int:
        most = by_graph[time.graph].iterations
        return min(most, int(_USABLE * budget_ms / time.p99_ms)) if time.p99_ms > 0 else most

    def rank(time: GraphTime) -> tuple[float, ...]:
        planner, count = by_graph[time.graph], fitting(time)
        if count >= min(_FEW, planner.iterations):
            return 2, planner.horizon, planner.samples * count
        return (1, count, -time.p99_ms) if count else (0, -time.p99_ms, 0)

    best = max(times, key=rank)
    count = fitting(best)
    return PlannerChoice(best.graph, max(1, count), max(1, count) * best.p99_ms, count > 0)


def percentiles(graph: str, times_ns: Sequence[int]) -> GraphTime:
    """Summarize measured iterations of a graph."""
    ordered = sorted(times_ns)
    last = len(ordered) - 1
    p50, p99 = (ordered[min(last, int(share * len(ordered)))] / 1e6 for share in (0.5, 0.99))
    return GraphTime(graph, p50, p99, len(ordered))


class TimesFile:
    """File of times that were measured before under the same circumstances.

    Args:
        on: the circumstances.
        folder: of the files; `$XDG_CACHE_HOME/jetsight/planner-times` if None.
    """

    def __init__(self, on: MeasuredOn, folder: Path | None = None) -> None:
        self._on, self._folder = on, folder

    def path(self) -> Path:
        """Return the path of the file.

        Raises:
            EngineError: this user has no folder for caches.
        """
        from jetsight.storage.ownership import default_root

        folder = self._folder or default_root().parent / "planner-times"
        return folder / f"{self._on.key}.json"

    def read(self) -> tuple[GraphTime, ...] | None:
        """Read the times of every graph; None if there is no valid file."""
        from jetsight.storage.ownership import read_file, refuse_shared

        try:
            path = self.path()
            refuse_shared(path.parent)
            data = read_file(path, _MOST_BYTES)
            found = strict_json.parse(data, _Times, str(path), max_bytes=_MOST_BYTES)
        except FileNotFoundError:
            return None
        except (OSError, JetsightError) as error:
            _LOGGER.warning("planner times are measured again: %s", error)
            return None
        graphs = [time.graph for time in found.times]
        # The name holds half of a digest, so the content is compared in full.
        if found.on != self._on or sorted(graphs) != sorted(self._on.graphs):
            _LOGGER.warning("planner times are measured again: %s is about something else", path)
            return None
        return found.times

    def write(self, times: Sequence[GraphTime]) -> None:
        """Write the times; where that is not possible, they are measured in every session."""
        try:
            path = self.path()
            # In two steps, because `mode` applies to the last folder only.
            path.parent.parent.mkdir(parents=True, exist_ok=True)
            path.parent.mkdir(mode=0o700, exist_ok=True)
            content = _Times("jetsight-planner-times", 1, self._on, tuple(times))
            with atomic.new_file(path) as stream:
                # Whatever the umask is.
                os.fchmod(stream.fileno(), 0o600)
                stream.write(strict_json.dump(content))
        except (OSError, JetsightError) as error:
            _LOGGER.warning("planner times could not be kept: %s", error)


def measured_on(
    graphs: Mapping[str, str], backend: str, version: str | None, threads: int | None
) -> MeasuredOn:
    """Describe this machine and how it computes.

    Args:
        graphs: SHA-256 by planner graph.
        backend: its name.
        version: of its library.
        threads: of the CPU; None for one per physical core.
    """
    from jetsight.machine import system as machine

    root = Path("/")
    system, gpus, board = machine.system(root), machine.cuda(root), jetson(root)
    return MeasuredOn(
        graphs=graphs,
        backend=backend,
        backend_version=version,
        threads=threads,
        processor=system.processor,
        cores=system.cores,
        gpu=gpus.devices[0].name if gpus.devices else None,
        driver=gpus.driver,
        power_mode=str(board.power_mode) if board and board.power_mode else None,
    )


class IterationTimer:
    """Last few measured times of one iteration.

    A plan begins if the fastest of them fits, since any of them may have been disturbed, and goes
    on while the slowest one fits.
    """

    def __init__(self) -> None:
        self._times_ns = array("d", [math.nan] * _REMEMBERED)
        self._count = 0

    def add(self, elapsed_ns: int, iterations: int) -> None:
        """Add the time that some iterations took together."""
        self._times_ns[self._count % _REMEMBERED] = elapsed_ns / iterations
        self._count += 1

    def affordable(self, left_ns: int, *, started: bool) -> int | None:
        """Count the iterations that end within `left_ns`; None for any number.

        Args:
            left_ns: until the deadline.
            started: the plan has an iteration already.
        """
        if left_ns <= 0:
            return 0
        known = self._times_ns[: min(self._count, _REMEMBERED)]
        # Without a measured time one iteration is run to get one.
        if not known:
            return None if started else 1
        expected = max(known) if started else min(known)
        # A clock that stands still, as in tests.
        if expected <= 0:
            return None
        count = int(left_ns // expected)
        if count == 0 and not started:
            for i in range(len(known)):
                self._times_ns[i] *= _FADE
        return count
