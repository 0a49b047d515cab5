"""Settings every test shares."""

from __future__ import annotations

import gc
import logging
import os
import signal

import hypothesis

# One thread for the arrays of each process, before torch or NumPy are loaded: two workers with a
# thread per core each wait for one another, and training in the tests took five times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Tests that a shell starts in the background ignore Ctrl-C, and so would every command that they
# start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Time limits per example measure how busy the machine is, not the code.
hypothesis.settings.register_profile("jetsight", deadline=None)
hypothesis.settings.load_profile("jetsight")


def pytest_collection_finish() -> None:
    """Keep what only costs time out of the tests' way.

    A full collection of garbage walks every object of torch and its compilers: a quarter of the
    time of an export. And pytest attaches to every logger that does not propagate, but as soon as
    torch's trace has a handler, an export writes down its stack thousands of times.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    logging.getLogger("torch.__trace").propagate = True
