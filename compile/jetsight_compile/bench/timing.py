"""Timing several contestants fairly: same inputs, interleaved, warm-up apart, nothing trimmed.

In each round every contestant has one turn, in an order that rotates; a turn is one untimed call
(it brings weights into the cache and wakes the thread pool) and a few that are. Whatever the
machine does meanwhile happens to all of them. That helps against slow drifts (heat, clock rates);
against other programs nothing helps but their absence, since a contestant that waits for all its
threads suffers most when one has no core.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from jetsight.clock import Clock
from jetsight.errors import first_line
from jetsight.histogram import Histogram

# Thread pools spin for a while after their last task (libgomp 1 to 3 ms); let them fall asleep
# before the next contestant starts, or it would run on a busy core.
_SETTLE_NS = 5_000_000
_FEWEST_ROUNDS = 5
_REPEAT_EVERY = 4  # rounds between turns with one repeated input
# A contestant that answers a repeated input this much faster than changing ones remembers answers.
_CACHING = 0.9


@dataclass(frozen=True)
class Contestant:
    """One way to do the job.

    Args:
        name: e.g. `"jetsight openvino cpu-int8"`.
        prepare: loads or compiles it, once; returns a function that does the job on input number i
            of a pool all contestants share.
        close: releases it.
    """

    name: str
    prepare: Callable[[], Callable[[int], object]]
    close: Callable[[], None] = lambda: None


@dataclass
class CallTimes:
    """Times of one contestant.

    Args:
        prepare_ms: loading or compiling.
        first_ms: the first call, which is in no statistic.
        calls_ms: the calls that count.
        repeated_ms: calls that all got the same input.
        failed: why it could not take part; no numbers then.
    """

    prepare_ms: float = 0.0
    first_ms: float = 0.0
    calls_ms: Histogram = field(default_factory=Histogram)
    repeated_ms: Histogram = field(default_factory=Histogram)
    failed: str | None = None

    @property
    def remembers(self) -> bool:
        """True if it is suspiciously fast when the input does not change, typically and at best."""
        changing, repeated = self.calls_ms, self.repeated_ms
        return (
            min(changing.count, repeated.count) > 0
            and repeated.percentile(50) < _CACHING * changing.percentile(50)
            and repeated.min < _CACHING * changing.min
        )

    def as_dict(self) -> dict[str, Any]:
        """Numbers for `--json`."""
        if self.failed is not None:
            return {"failed": self.failed}
        return {
            "prepare_ms": self.prepare_ms,
            "first_ms": self.first_ms,
            "calls": self.calls_ms.count,
            "min": self.calls_ms.min,
            **self.calls_ms.summary(),
            "repeated_p50": self.repeated_ms.percentile(50),
            "remembers": self.remembers,
        }


def race(
    contestants: Sequence[Contestant],
    clock: Clock,
    *,
    rounds: int,
    budget_s: float = math.inf,
    calls: int = 3,
    warmup: int = 3,
    inputs: int = 8,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, CallTimes]:
    """Time all contestants.

    Args:
        contestants: each is prepared, raced and closed; one that cannot be prepared is reported.
        clock: to time with.
        rounds: turns per contestant.
        budget_s: begin no round later than this, once there were a few.
        calls: timed calls per turn.
        warmup: calls after the first that are in no statistic.
        inputs: size of the pool of inputs.
        say: called with the name of what is being prepared.

    Returns:
        Timing by name, in the order given.
    """
    timings: dict[str, CallTimes] = {}
    ready: dict[str, Callable[[int], object]] = {}
    for contestant in contestants:
        say(f"prepare {contestant.name}")
        timings[contestant.name], call = _prepared(contestant, clock, warmup, inputs)
        if call is not None:
            ready[contestant.name] = call
    say(f"race {len(ready)} contestants, {rounds} rounds")
    order, start_ns = list(ready), clock.now_ns()
    for number in range(rounds):
        if number >= _FEWEST_ROUNDS and clock.now_ns() - start_ns > budget_s * 1e9:
            break
        for name in _rotated(order, number):
            clock.sleep_ns(_SETTLE_NS)
            changing = [(number * calls + i) % inputs for i in range(calls + 1)]
            _turn(ready[name], changing, clock, timings[name].calls_ms)
            if number % _REPEAT_EVERY == 0:
                _turn(ready[name], [0] * (calls + 1), clock, timings[name].repeated_ms)
    for contestant in contestants:
        contestant.close()
    return timings


def _prepared(
    contestant: Contestant, clock: Clock, warmup: int, inputs: int
) -> tuple[CallTimes, Callable[[int], object] | None]:
    """Load a contestant and make its first calls."""
    timing = CallTimes()
    start_ns = clock.now_ns()
    try:
        call = contestant.prepare()
        timing.prepare_ms = (clock.now_ns() - start_ns) / 1e6
        start_ns = clock.now_ns()
        call(0)
        timing.first_ms = (clock.now_ns() - start_ns) / 1e6
    except Exception as error:  # a missing compiler or library must not end the whole benchmark
        return CallTimes(failed=f"{type(error).__name__}: {first_line(error, most=1)}"), None
    for i in range(warmup):
        call(i % inputs)
    return timing, call


def _turn(
    call: Callable[[int], object], pool: Iterable[int], clock: Clock, recorder: Histogram
) -> None:
    """Call with each input of the pool; all but the first call count."""
    first = True
    for number in pool:
        start_ns = clock.now_ns()
        call(number)
        took_ns = clock.now_ns() - start_ns
        if not first:
            recorder.add(took_ns / 1e6)
        first = False


def _rotated(order: list[str], by: int) -> list[str]:
    by %= max(len(order), 1)
    return order[by:] + order[:by]
