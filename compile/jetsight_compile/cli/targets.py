"""`jetsight targets`: list the compile targets and the Jetson modules."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from jetsight.cli.table import table

if TYPE_CHECKING:
    from jetsight_compile.config.targets import Target


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print both tables as one JSON object.")
def targets(as_json: bool) -> None:
    """Show every target of `jetsight compile`, its precisions, and the Jetson modules.

    A precision that is not listed for a target is refused by `jetsight compile`; --json says why.
    """
    from jetsight.machine.jetson_modules import MODULES
    from jetsight_compile.config.targets import TARGETS

    if as_json:
        rows = {
            "targets": [dataclasses.asdict(target) for target in TARGETS.values()],
            "modules": [dataclasses.asdict(module) for module in MODULES],
        }
        click.echo(json.dumps(rows))
        return
    for line in (*_targets(), "", *_features(), "", *_modules()):
        click.echo(line)


def _targets() -> Iterator[str]:
    from jetsight_compile.config.targets import TARGETS

    head = ("target", "machine", "compiler", "opset", "attention", "precisions")
    rows = []
    for t in TARGETS.values():
        attention = "one operator" if t.style.attention == "fused" else "decomposed"
        precisions = " ".join(_marked(t, precision) for precision in t.allowed)
        rows.append((t.name, t.what, t.compiler, str(t.style.opset), attention, precisions))
    return table(head, rows)


def _marked(target: Target, precision: str) -> str:
    if precision in target.default:
        return f"*{precision}"
    return f"{precision}+" if precision in target.some else precision


def _features() -> Iterator[str]:
    from jetsight_compile.config.targets import TARGETS

    rows = ((target.name, ", ".join(target.features)) for target in TARGETS.values())
    return table(("target", "features"), rows)


def _modules() -> Iterator[str]:
    from jetsight.machine.jetson_modules import MODULES

    gpu, memory = ("SM", "CUDA/tensor cores", "INT8 TOPS", "FP16 TFLOPS"), ("memory", "bandwidth")
    rows = []
    for m in MODULES:
        cores, int8, fp16 = "/".join(map(str, m.cores)), f"{m.int8_tops:g}", f"{m.fp16_tflops:g}"
        memories = (f"{m.memory_gb} GB", f"{m.bandwidth_gb_s:g} GB/s")
        rows.append((m.name, m.sm, cores, int8, fp16, *memories, m.power_w, " ".join(m.targets)))
    yield from table(("module", *gpu, *memory, "power W", "targets"), rows)
    yield ""
    yield "* compiled by default, + run by the newer of its GPUs only"
    yield "rates are dense and of the GPU alone, in the fastest power mode"
