"""Episodes made by several processes, in any order."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from jetsight.errors import DataError, JetsightError


def each_episode(
    attempt: Callable[[int], JetsightError | None],
    indices: Sequence[int],
    workers: int,
    work: str,
) -> Iterator[None]:
    """Call `attempt` for every index, in this process or in several; yields once after each.

    Args:
        attempt: makes one episode and returns an expected failure, because it may cross processes.
        indices: episodes to make.
        workers: processes.
        work: participle and object, for the message about a process that died.

    Raises:
        JetsightError: that of an attempt.
        DataError: a process died.
    """
    if workers <= 1 or len(indices) <= 1:
        for i in indices:
            _raise(attempt(i))
            yield
        return
    # spawn: simulators keep threads and display handles that do not survive a fork.
    pool = ProcessPoolExecutor(
        min(workers, len(indices)), multiprocessing.get_context("spawn"), _begin_worker
    )
    try:
        for future in as_completed([pool.submit(attempt, i) for i in indices]):
            _raise(future.result())
            yield
    except BrokenProcessPool as problem:
        raise DataError(
            f"a process {work} died, perhaps for lack of memory; "
            "finished episodes are kept: run again with --resume and fewer --workers"
        ) from problem
    finally:
        pool.shutdown(cancel_futures=True)  # episodes in progress end and are kept


def _begin_worker() -> None:
    """Initialise a worker: it ends with its parent, and leaves the report to it."""
    # Ctrl-C reaches every process.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # A worker per core, so more threads would compete.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # The pool's queues stay open in every worker, so a killed parent is not noticed there.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _raise(problem: JetsightError | None) -> None:
    if problem is not None:
        raise problem
