"""Report of `jetsight doctor` about a machine."""

from __future__ import annotations

from dataclasses import dataclass

from jetsight.machine.clocks import Clocks
from jetsight.machine.jetson import Jetson
from jetsight.machine.system import Cuda, System, VideoDevice
from jetsight.machine.thermal import Temperature, Throttle


@dataclass(frozen=True)
class Package:
    """An optional package; `brought_by` is the command that installs it."""

    module: str
    version: str | None
    brought_by: str


@dataclass(frozen=True)
class Ability:
    """A function of jetsight, and the packages or devices it lacks on this machine."""

    what: str
    possible: bool
    missing: tuple[str, ...]


@dataclass(frozen=True)
class TensorRt:
    """The system's TensorRT, and the one that Python imports; they can differ."""

    system: str | None
    system_bindings: tuple[str, ...]
    binding: str | None
    binding_path: str | None


@dataclass(frozen=True)
class Engines:
    """Engines built on this machine; `usable` ones were proven here for this TensorRT and GPU."""

    folder: str
    stored: int
    usable: int
    problem: str | None


@dataclass(frozen=True)
class Report:
    """Findings of `jetsight doctor`; `--json` prints exactly these fields."""

    jetsight: str
    system: System
    jetson: Jetson | None
    cuda: Cuda
    tensorrt: TensorRt
    clocks: Clocks
    temperatures: tuple[Temperature, ...]
    throttles: tuple[Throttle, ...]
    cameras: tuple[VideoDevice, ...]
    packages: tuple[Package, ...]
    abilities: tuple[Ability, ...]
    engines: Engines
    advice: tuple[str, ...]

    def version(self, module: str) -> str | None:
        """Return the installed version of an optional package, None if it is absent."""
        return next((p.version for p in self.packages if p.module == module), None)
