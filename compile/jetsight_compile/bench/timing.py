"""Fair timing of several contestants: same inputs, interleaved, separate warm-up, no trimming.

In each round every contestant has one turn, in an order that rotates; a turn is one untimed call
(it loads weights into the cache and wakes the thread pool) and a few timed ones, so slow drifts
(heat, clock rates) affect all alike. Other programs must not run: a contestant that waits for all
its threads suffers most when one has no core.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from jetsight.clock import Clock
from jetsight.errors import first_line
from jetsight.histogram import Histogram

# Thread pools spin for a while after their last task (libgomp 1 to 3 ms); the next contestant would
# run on a busy core if it did not wait until they sleep.
_SETTLE_NS = 5_000_000
_FEWEST_ROUNDS = 5
_REPEAT_EVERY = 4  # rounds between turns with one repeated input
# A contestant that is this much faster on a repeated input than on changing ones caches outputs.
_CACHING = 0.9


@dataclass(frozen=True)
class Contestant:
    """One implementation of the task.

    Args:
        name: e.g. `"jetsight openvino cpu-int8"`.
        prepare: loads or compiles it, once; returns a function that runs it on input number i of a
            pool that all contestants share.
        close: releases it.
    """

    name: str
    prepare: Callable[[], Callable[[int], object]]
    close: Callable[[], None] = lambda: None


@dataclass
class CallTimes:
    """Times of one contestant.

    Args:
        prepare_ms: time to load or compile.
        first_ms: the first call, excluded from the statistics.
        calls_ms: timed calls with changing inputs.
        repeated_ms: timed calls with one repeated input.
        failed: reason why it could not run; without numbers then.
    """

    prepare_ms: float = 0.0
    first_ms: float = 0.0
    calls_ms: Histogram = field(default_factory=Histogram)
    repeated_ms: Histogram = field(default_factory=Histogram)
    failed: str | None = None

    @property
    def remembers(self) -> bool:
        """True if both median and minimum are suspiciously low on a repeated input."""
        changing, repeated = self.calls_ms, self.repeated_ms
        return (
            min(changing.count, repeated.count) > 0
            and repeated.percentile(50) < _CACHING * changing.percentile(50)
            and repeated.min < _CACHING * changing.min
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers of `--json`."""
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
        contestants: each is prepared, timed and closed; one that cannot be prepared is reported.
        clock: time source.
        rounds: turns per contestant.
        budget_s: no round begins later than this, after the first few.
        calls: timed calls per turn.
        warmup: calls after the first that are excluded from the statistics.
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
    """Call with each input of the pool, and record all calls but the first."""
    for position, number in enumerate(pool):
        start_ns = clock.now_ns()
        call(number)
        took_ns = clock.now_ns() - start_ns
        if position:
            recorder.add(took_ns / 1e6)


def _rotated(order: list[str], by: int) -> list[str]:
    by %= max(len(order), 1)
    return order[by:] + order[:by]
