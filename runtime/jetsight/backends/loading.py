"""Engines of a verified bundle: choice of the family, loading, and parity with its reference data.

Shapes: n golden samples, D latent, H horizon.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from jetsight.backends import registry
from jetsight.bundle import onnx_scan
from jetsight.bundle.bundle import Bundle
from jetsight.bundle.manifest import Family
from jetsight.bundle.parity import rank_agreement, smallest_agreement, smallest_cosine, worst_cosine
from jetsight.engine import Backend, Engine
from jetsight.errors import EngineError, JetsightError, UsageError

_NEEDS_ENGINES = "tensorrt"  # the backend that only runs engines built before
_LOGGER = logging.getLogger("jetsight")


@dataclass(slots=True)
class Loaded:
    """Two loaded graphs of one family, with the backend that can load more of them."""

    encode: Engine
    forecast: Engine
    maker: Backend
    family: Family
    threads: int | None = None

    @property
    def backend(self) -> str:
        """Name of the backend."""
        return self.maker.name

    @property
    def version(self) -> str | None:
        """Version of the backend's library."""
        return next((i.version for i in registry.available() if i.name == self.backend), None)

    def close(self) -> None:
        """Release both engines."""
        self.encode.close()
        self.forecast.close()


def load(
    bundle: Bundle, backend: str | None, family: str | None, threads: int | None = None
) -> Loaded:
    """Load `encode` and `forecast` of one family.

    Args:
        bundle: verified.
        backend: name of a backend; None for the preferred one.
        family: name of a family; None for the fastest one whose engines were built and proven
            here, else the first in the manifest that can run here.
        threads: CPU threads; None for one per physical core.

    Raises:
        UsageError: no such family or backend, or they do not fit.
        MissingDependency: the backend is not installed.
        EngineError: no family can run here, or a graph cannot be loaded.
    """
    backend = registry.requested(backend)
    chosen = _choose_family(bundle, backend, family)
    engine_maker = registry.open_backend(backend, chosen.name, threads=threads)
    encode = engine_maker.load(read_graph(bundle, chosen.name, "encode"))
    try:
        forecast = engine_maker.load(read_graph(bundle, chosen.name, "forecast"))
    except BaseException:  # Ctrl-C too: no memory of a GPU may stay allocated
        encode.close()
        raise
    return Loaded(encode, forecast, engine_maker, chosen, threads)


def read_graph(bundle: Bundle, family: str, graph: str) -> bytes:
    """Read a graph, and refuse references to weights in other files.

    Raises:
        UsageError: there is no such graph.
        BundleError: it changed since the bundle was opened.
        EngineError: a weight is in another file.
    """
    data = bundle.graph(family, graph)
    onnx_scan.refuse_external_data(data, f"{bundle.path}: graph {graph!r} of {family}")
    return data


def _choose_family(bundle: Bundle, backend: str | None, name: str | None) -> Family:
    families = {family.name: family for family in bundle.manifest.families}
    if name is not None:
        if name not in families:
            raise UsageError(
                f"{bundle.path} has no family {name!r}; choose one of {', '.join(families)}"
            )
        return families[name]
    known = [info for info in registry.available() if backend in (None, info.name)]
    usable = [info for info in known if info.reason is None]
    if any(info.name == _NEEDS_ENGINES for info in usable):
        built = _built_here(bundle)
        if built is not None:
            return families[built]
        usable = [info for info in usable if info.name != _NEEDS_ENGINES]
    # A family that cannot run here is better than none: opening its backend raises an error that
    # names the missing package.
    for infos in (usable, known):
        for family in families.values():
            if any(info.runs(family.name) for info in infos):
                return family
    raise EngineError(
        f"{bundle.path} holds the families {', '.join(families)}, and this version can run none of "
        "them here; compile it again with --target cpu"
    )


def _built_here(bundle: Bundle) -> str | None:
    """Find the fastest family with engines of this machine; None, with a warning, without any."""
    from jetsight.tensorrt.bindings import open_library
    from jetsight.tensorrt.engine_cache import EngineStore, fastest_family
    from jetsight.tensorrt.fingerprint import host_spec

    try:
        family = fastest_family(bundle, EngineStore(), host_spec(open_library()))
    except JetsightError as error:
        _LOGGER.warning("no engines of this machine are used: %s", error)
        return None
    if family is None:
        _LOGGER.warning("no engines of %s were built here; run: jetsight build", bundle.path)
    return family


def parity(bundle: Bundle, loaded: Loaded) -> dict[str, float]:
    """Compare the outputs of both engines with PyTorch's on the golden samples.

    Returns:
        Smallest cosine by graph, `encode` and `forecast`.

    Raises:
        EngineError: an output is not finite, or points elsewhere than the reference.
    """
    golden = bundle.golden()
    cosines = {
        "encode": worst_cosine(loaded.encode, golden, "z"),
        "forecast": worst_cosine(loaded.forecast, golden, "z_future"),
    }
    for graph, cosine in cosines.items():
        smallest = smallest_cosine(loaded.family.precision[graph])
        if not cosine >= smallest:  # also when it is NaN
            raise EngineError(
                f"graph {graph!r} of {loaded.family.name} on {loaded.backend} does not agree with "
                f"PyTorch: cosine {cosine:.4f} on the bundle's reference data, expected "
                f"at least {smallest}; try another --backend or --family"
            )
    return cosines


def prove_planner(bundle: Bundle, loaded: Loaded, graph: str, engine: Engine) -> None:
    """Compare the ranks of candidates of a planner's engine with PyTorch's on the golden problems.

    Raises:
        EngineError: the ranks differ by more than the precision of the graph explains.
    """
    agreement = rank_agreement(engine, bundle.golden(), graph)
    limit = smallest_agreement(loaded.family.precision[graph])
    if agreement is not None and not agreement >= limit:  # also when it is NaN
        raise EngineError(
            f"graph {graph!r} of {loaded.family.name} on {loaded.backend} does not rank plans like "
            f"PyTorch: rank correlation {agreement:.4f} on the bundle's reference data, "
            f"expected at least {limit}; try another --backend or --family"
        )
