"""Which family of a bundle is fastest here, by what `jetsight build` measured on this machine.

A bundle may hold the same model in float16, INT8 and FP8: whether a smaller number format is also
faster at batch 1 is known only after it was built and timed on the device it runs on.
"""

from __future__ import annotations

import math

from jetsight.bundle.bundle import Bundle
from jetsight.bundle.manifest import GRAPHS, graph_path
from jetsight.tensorrt.engine_cache import EngineStore
from jetsight.tensorrt.fingerprint import HostFacts


def fastest_family(bundle: Bundle, store: EngineStore, host: HostFacts) -> str | None:
    """Name of the family whose proven engines take least time together; None if none is built.

    Of several engines of a graph the newest counts, which is the one a session loads. A family that
    was built but not timed comes after those that were.
    """
    built: dict[str, float] = {}
    for record in store.records():
        if record.proven and not record.fingerprint.host.differences(host):
            p50 = math.inf if record.latency is None else record.latency.p50_ms
            built[record.fingerprint.graph_sha256] = p50  # oldest come first
    totals: dict[str, float] = {}
    for family in bundle.manifest.families:
        digests = [bundle.manifest.files[graph_path(family.name, g)].sha256 for g in GRAPHS]
        if all(digest in built for digest in digests):
            totals[family.name] = sum(built[digest] for digest in digests)
    return min(totals, key=totals.__getitem__) if totals else None
