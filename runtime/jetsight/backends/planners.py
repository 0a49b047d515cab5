"""The planners of a loaded bundle."""

from __future__ import annotations

from jetsight.backends import loading
from jetsight.backends.loading import Loaded
from jetsight.bundle.bundle import Bundle
from jetsight.bundle.manifest import graph_path
from jetsight.bundle.runtime_spec import PlanSpec
from jetsight.planning.imagine import Planning
from jetsight.planning.time_budget import TimesFile, measured_on


def planning_of(bundle: Bundle, loaded: Loaded) -> Planning:
    """Describe planners of the same family and backend, each loaded when it is first used."""
    family = loaded.family.name
    spec = PlanSpec.from_manifest(bundle.manifest, family)

    def times() -> TimesFile:
        files = bundle.manifest.files
        graphs = {p.graph: files[graph_path(family, p.graph)].sha256 for p in spec.planners}
        return TimesFile(measured_on(graphs, loaded.backend, loaded.version, loaded.threads))

    return Planning(
        spec=spec,
        backend=loaded.maker,
        graph=lambda graph: loading.read_graph(bundle, family, graph),
        prove=lambda graph, engine: loading.prove_planner(bundle, loaded, graph, engine),
        times=times,
    )
