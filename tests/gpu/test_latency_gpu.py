"""How long the shipped model takes on this GPU, as CUDA graphs and kernel by kernel, in turn.

No limit on absolute times is tested: they belong to a named GPU and go into `docs/hardware.md`.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator

import numpy as np
import pytest
from helpers.gpu_rows import ROWS
from helpers.paths import ROOT

from jetsight import cli
from jetsight.bundle.bundle import Bundle
from jetsight.clock import MonotonicClock
from jetsight.engine import Engine
from jetsight.histogram import Histogram
from jetsight.tensorrt.backend import TensorRtBackend
from jetsight.tensorrt.bindings import open_library
from jetsight.tensorrt.fingerprint import host_spec
from jetsight_compile.config.targets import TARGETS

pytestmark = pytest.mark.gpu
MODEL = ROOT / "train" / "jetsight_train" / "zoo" / "pusht-nano"
GRAPHS = ("encode", "forecast")
ROUNDS, WARM_UP = 300, 20


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Iterator[Bundle]:
    """The shipped model in float16 and in INT8, or INT4 weights where TensorRT-RTX has no INT8."""
    target = str(host_spec(open_library()).target)
    smaller = "int8" if "int8" in TARGETS[target].allowed else "int4"
    path = tmp_path_factory.mktemp("bundle") / "nano.jetsight"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        data = str(ROOT / "calib_data" / "pusht")
        command = ["compile", str(MODEL), "--calib", data, "--target", target, "--out", str(path)]
        assert cli.main([*command, "--precision", "fp16", "--precision", smaller]) == 0
        assert cli.main(["build", str(path), "--no-measure"]) == 0
        yield Bundle.open(path)


def load(backend: TensorRtBackend, bundle: Bundle, family: str) -> dict[str, Engine]:
    """Both engines of a family, fed with the first reference sample."""
    engines: dict[str, Engine] = {name: backend.load(bundle.graph(family, name)) for name in GRAPHS}
    golden = bundle.golden()
    for engine in engines.values():
        for name, array in engine.inputs.items():
            array.write(golden[name][0])
    return engines


def race(graphs: dict[str, Engine], plain: dict[str, Engine]) -> dict[str, list[Histogram]]:
    """Milliseconds of every graph, replayed and enqueued, taking turns; warm-up left out."""
    clock = MonotonicClock()
    found = {name: [Histogram(), Histogram()] for name in GRAPHS}
    for turn in range(WARM_UP + ROUNDS):
        for name in GRAPHS:
            for engine, times in zip((graphs[name], plain[name]), found[name], strict=True):
                start = clock.now_ns()
                engine.run()
                if turn >= WARM_UP:
                    times.add((clock.now_ns() - start) / 1e6)
    return found


def row(bundle: Bundle, family: str, found: dict[str, list[Histogram]]) -> str:
    facts = host_spec(open_library())
    ratios = [plain.percentile(50) / replayed.percentile(50) for replayed, plain in found.values()]
    times = [
        " / ".join(f"{found[name][0].summary()[key]:.3f}" for key in ("p50", "p99", "max"))
        for name in GRAPHS
    ]
    faster = " and ".join(f"{ratio:.2f}x" for ratio in ratios)
    cells = (
        datetime.date.today().isoformat(),
        f"{facts.gpu}, {facts.driver}",
        f"{facts.library} {facts.version}",
        f"{bundle.manifest.name}, {family}",
        *times,
        faster,
    )
    return f"| {' | '.join(cells)} |"


def test_the_shipped_model_is_timed_with_graphs_and_without(bundle) -> None:
    for family in (family.name for family in bundle.manifest.families):
        backends = TensorRtBackend(), TensorRtBackend(graphs=False)
        try:
            graphs, plain = (load(backend, bundle, family) for backend in backends)
            found = race(graphs, plain)
            for name, output in zip(GRAPHS, ("z", "z_future"), strict=True):
                same = [e[name].outputs[output].read().copy() for e in (graphs, plain)]
                np.testing.assert_array_equal(*same)
                assert plain[name].replays is False
                assert graphs[name].replays or graphs[name].graph_problem
            ROWS.append(row(bundle, family, found))
        finally:
            for backend in backends:
                backend.close()
