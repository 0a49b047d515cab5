"""The runner of every group of gates: measurements beside negative controls, as manifest gates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx

from jetsight.bundle.manifest import Gate
from jetsight_compile.calibration.emulate import runnable
from jetsight_compile.validate.limits import IMAGINE_LIMITS, LIMITS, limit_of, within
from jetsight_compile.validate.metrics import Measurement

# Behind a gate that training left closed, a mis-scaled layer has no effect, so several are tried.
MOST_FAULTS = 12
CONTROL = "control mis-scales "


@dataclass(frozen=True)
class GateResult:
    """The measured gates of one or more graphs.

    Attributes:
        precision: of each graph, which decides the limits.
        values: measurement by gate.
        controls: what the negative control of each gate reached.
    """

    precision: Mapping[str, str]
    values: Mapping[str, Measurement]
    controls: Mapping[str, float]

    @property
    def passed(self) -> bool:
        """True if every value is within its limit."""
        return all(within(gate, self.precision, x.value) for gate, x in self.values.items())

    def joined(self, other: GateResult) -> GateResult:
        """Return the gates of two results for graphs of the same precision."""
        values, controls = {**self.values, **other.values}, {**self.controls, **other.controls}
        return GateResult(self.precision, values, controls)

    def gates(self, family: str) -> list[Gate]:
        """Return the gates as the manifest of a family records them."""
        return [
            Gate(
                family=family,
                name=name,
                value=measured.value,
                limit=limit_of(name, self.precision)[1],
                direction=limit_of(name, self.precision)[0],
                passed=within(name, self.precision, measured.value),
                control_value=self.controls[name],
                control_failed=not within(name, self.precision, self.controls[name]),
                detail=measured.detail,
            )
            for name, measured in self.values.items()
        ]


def worst(each: Sequence[Mapping[str, Measurement]]) -> dict[str, Measurement]:
    """Return each gate's worst measurement, e.g. over backends; a gate may be missing in some."""
    found: dict[str, Measurement] = {}
    for name, measured in (item for values in each for item in values.items()):
        sign = 1.0 if (LIMITS | IMAGINE_LIMITS)[name][0] == "min" else -1.0
        # A NaN is the worst of all: min and max alone would keep whichever came first.
        pair = (found.get(name, measured), measured)
        found[name] = min(pair, key=lambda x: (math.isfinite(x.value), sign * x.value))
    return found


def with_fault_control(
    values: Mapping[str, Measurement],
    layers: Sequence[str],
    measure: Callable[[str], Mapping[str, Measurement]],
    precision: Mapping[str, str],
) -> GateResult:
    """Search for a layer whose fault every gate of a group sees, as their negative control.

    Args:
        values: measurements of the group.
        layers: names of layers, in the order to try.
        measure: the group's measurements once a layer is mis-scaled.
        precision: of each graph, whose limits the faulty values have to miss.

    Returns:
        The values beside what the first such layer makes of them, or the last one tried.
    """
    # Without any layer the control equals the value, passes, and so fails its gate.
    layer, faulty = "", dict(values)
    for layer in layers:
        measured = measure(layer)
        faulty = {gate: measured[gate] for gate in values}
        if not any(within(gate, precision, each.value) for gate, each in faulty.items()):
            break
    detail = f"{CONTROL}{layer}"
    return GateResult(
        precision,
        {gate: each.noting(detail) for gate, each in values.items()},
        {gate: each.value for gate, each in faulty.items()},
    )


def graph_bytes(model: onnx.ModelProto) -> bytes:
    """Serialize a graph in a form that the backends of this machine can load."""
    return bytes(runnable(model).SerializeToString())
