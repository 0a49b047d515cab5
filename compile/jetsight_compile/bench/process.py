"""Import time and memory of streaming, each measured in a separate process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from jetsight.errors import EngineError
from jetsight.histogram import Histogram

_IMPORT = """
from time import perf_counter
start = perf_counter()
import jetsight
package = perf_counter()
from jetsight import Bundle, Camera, Session
print((package - start) * 1e3, (perf_counter() - start) * 1e3)
"""
# /proc counts KiB: divided by 1000 and times 1.024 they are MB.
_MEMORY = """
import json, sys
import numpy as np
from jetsight import Frame, Session
bundle, backend, family = sys.argv[1:]
with Session.open(bundle, backend, family) as session:
    spec = session.spec
    images = np.random.default_rng(0).integers(0, 255, (2, *spec.frame_shape), np.uint8)
    state = np.zeros(len(spec.state_names), np.float32)
    action = np.zeros((1, spec.step_size), np.float32)
    for i in range(8 * spec.action_block * spec.history):
        now_ns, before = session.clock.now_ns(), action if i else None
        frame = Frame(images[i % 2], i, i, now_ns, before, action, state)
        forecast = session.step(frame)
    facts = dict(line.split(":", 1) for line in open("/proc/self/status"))
    heavy = [name for name in ("torch", "onnx") if name in sys.modules]
    print(json.dumps({
        "resident_mb": int(facts["VmRSS"].split()[0]) / 1e3 * 1.024,
        "peak_mb": int(facts["VmHWM"].split()[0]) / 1e3 * 1.024,
        "valid": forecast.valid,
        "heavy": heavy,
    }))
"""


def import_times(runs: int) -> dict[str, dict[str, float]]:
    """Measure p50, p99 and max in ms of `import jetsight`, and of all that streaming imports.

    The first process warms the file cache and is not counted.

    Raises:
        EngineError: the interpreter failed.
    """
    package, streaming = Histogram(), Histogram()
    for number in range(runs + 1):
        first, second = map(float, _run(_IMPORT).split())
        if number:
            package.add(first)
            streaming.add(second)
    return {"import": package.summary(), "import_streaming": streaming.summary()}


def session_memory(bundle: Path, backend: str, family: str) -> dict[str, Any]:
    """Measure the resident memory in MB of a process that streams `bundle`, and its imports.

    Raises:
        EngineError: the process failed.
    """
    facts: dict[str, Any] = json.loads(_run(_MEMORY, str(bundle), backend, family))
    return facts


def _run(code: str, *arguments: str) -> str:
    """Run code in a fresh interpreter of the same environment; return its standard output."""
    command = [sys.executable, "-c", code, *arguments]
    # Without cached bytecode every import would compile the sources again.
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise EngineError(f"a measuring process ended with code {done.returncode}: {last}")
    return done.stdout
