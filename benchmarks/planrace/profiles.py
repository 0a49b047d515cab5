"""Profile of one iteration by operator, as each library reports it itself."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jetsight.backends.onnxruntime import OnnxRuntimeBackend
from jetsight.backends.openvino import OpenVinoBackend
from planrace.ours import states
from planrace.problem import Problem

Shares = dict[str, tuple[float, int]]  # operator: ms per iteration, kernels


class _ProfiledOnnxRuntime(OnnxRuntimeBackend):
    """The backend as it is, with the library's profile switched on."""

    prefix = ""

    def _options(self) -> Any:
        options = super()._options()
        options.enable_profiling = True
        options.profile_file_prefix = self.prefix
        return options


def by_operator(problem: Problem, graph: bytes, backend: str, threads: int) -> Shares:
    """Time of each kind of kernel in one plan's average iteration, largest first.

    Profiling costs time of its own: read the shares, not the sum.
    """
    found = _PROFILERS[backend](problem, graph, threads)
    return dict(sorted(found.items(), key=lambda item: -item[1][0]))


def _onnxruntime(problem: Problem, graph: bytes, threads: int) -> Shares:
    with tempfile.TemporaryDirectory(prefix="jetsight-profile-") as folder:
        backend = _ProfiledOnnxRuntime(threads=threads)
        backend.prefix = str(Path(folder, "profile"))
        engine = backend.load(graph)
        runs = len(list(states(engine, problem, 0)))
        events = json.loads(Path(engine._session.end_profiling()).read_text())
        engine.close()
    kernels = (e for e in events if e.get("cat") == "Node" and e["name"].endswith("_kernel_time"))
    return _summed(((e["args"]["op_name"], e["dur"] / 1e3) for e in kernels), runs)


def _openvino(problem: Problem, graph: bytes, threads: int) -> Shares:
    backend = OpenVinoBackend(threads=threads)
    backend._options["PERF_COUNT"] = "YES"
    engine = backend.load(graph)
    runs = len(list(states(engine, problem, 0)))
    # The library says what the last run took.
    ran = [e for e in engine._request.profiling_info if str(e.status).endswith("EXECUTED")]
    times = [
        (f"{e.node_type} {e.exec_type}", e.real_time.total_seconds() * 1e3)
        for e in ran
        if "NOT" not in str(e.status) and e.real_time.total_seconds() > 0.0
    ]
    engine.close()
    assert runs == problem.iterations
    return _summed(times, 1)


def _summed(kernels: Iterable[tuple[str, float]], runs: int) -> Shares:
    total: Shares = {}
    for name, ms in kernels:
        before, count = total.get(name, (0.0, 0))
        total[name] = (before + ms, count + 1)
    return {name: (ms / runs, round(count / runs)) for name, (ms, count) in total.items()}


def products_share(shares: Mapping[str, tuple[float, int]]) -> float:
    """Part of the time that is in matrix products."""
    products = ("Gemm", "QGemm", "MatMul", "FullyConnected", "FusedMatMul", "FusedGemm")
    spent = sum(ms for name, (ms, _) in shares.items() if name.startswith(products))
    return spent / max(sum(ms for ms, _ in shares.values()), 1e-9)


_PROFILERS = {"onnxruntime": _onnxruntime, "openvino": _openvino}
