"""`jetsight doctor`: report the abilities of this machine and the missing packages."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator

import click

from jetsight.cli.table import fields, human_bytes, table
from jetsight.doctor.examine import examine
from jetsight.doctor.report import Engines, Report
from jetsight.machine.clocks import ClockRate
from jetsight.machine.jetson import Jetson


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def doctor(as_json: bool) -> None:
    """Show what this machine can run, what is missing and which package installs it."""
    report = examine()
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(report), indent=2))
        return
    for line in describe(report):
        click.echo(line)


def describe(report: Report) -> Iterator[str]:
    """Format the page, line by line."""
    yield from fields(_machine(report))
    yield ""
    rows = [
        ("yes" if able.possible else "no", able.what, "; ".join(able.missing))
        for able in report.abilities
    ]
    yield from table(("can", "what", "missing"), rows)
    yield ""
    found = [package for package in report.packages if package.version]
    yield "packages  " + (", ".join(f"{p.module} {p.version}" for p in found) or "none")
    absent = [package for package in report.packages if not package.version]
    if absent:
        yield ""
        yield from table(("absent", "brought by"), [(p.module, p.brought_by) for p in absent])
    for line in report.advice:
        yield ""
        yield f"advice: {line}"


def _machine(report: Report) -> Iterator[tuple[str, str]]:
    system, board = report.system, report.jetson
    yield "jetsight", f"{report.jetsight} on Python {system.python}"
    yield "system", f"{system.os or 'unknown'}, {system.architecture}"
    yield "processor", f"{system.processor or 'unknown'}, {system.cores} cores"
    if system.memory_bytes is not None:
        free = system.memory_available_bytes
        shown = f", {human_bytes(free)} available" if free is not None else ""
        yield "memory", f"{human_bytes(system.memory_bytes)}{shown}"
    if board is not None:
        yield from _board(board)
    yield "gpu", _gpu(report)
    yield from _tensorrt(report)
    yield from _state(report)
    yield "engines", _engines(report.engines)
    cameras = [f"{c.path} ({c.name or 'unnamed'})" for c in report.cameras]
    yield "cameras", ", ".join(cameras) or "none"


def _board(board: Jetson) -> Iterator[tuple[str, str]]:
    pack = f"JetPack {board.jetpack}, " if board.jetpack else ""
    yield "board", f"{board.model or 'Jetson'}, {pack}L4T {board.l4t or 'unknown'}"
    if board.power_mode is not None:
        name = f" {board.power_mode_name}" if board.power_mode_name else ""
        best = board.fastest_mode
        most = f", fastest {best.number} {best.name}" if best else ""
        yield "power mode", f"{board.power_mode}{name}{most}"
    if board.cuda_toolkit is not None:
        yield "toolkit", f"CUDA {board.cuda_toolkit}"


def _tensorrt(report: Report) -> Iterator[tuple[str, str]]:
    found = report.tensorrt
    system = f"{found.system} of the system" if found.system else None
    binding = f"{found.binding} importable" if found.binding else None
    if system or binding:
        yield "tensorrt", ", ".join([system or "none of the system", binding or "not importable"])


def _engines(engines: Engines) -> str:
    if engines.problem is not None:
        return engines.problem
    return f"{engines.usable} of {engines.stored} usable here, in {engines.folder}"


def _state(report: Report) -> Iterator[tuple[str, str]]:
    """List clocks, temperatures and throttling, as far as they are known."""
    rates = [_rate(rate) for rate in report.clocks.all()]
    yield from [("clocks" if row == 0 else "", rate) for row, rate in enumerate(rates)]
    zones = [
        f"{zone.zone} {zone.millidegrees / 1000:.1f} C"
        for zone in report.temperatures
        if zone.millidegrees is not None
    ]
    if zones:
        yield "heat", ", ".join(zones)
    signs = [
        f"{sign.events} x {sign.reason}" if sign.events is not None else sign.reason
        for sign in report.throttles
        if sign.events or sign.active
    ]
    if report.throttles:
        yield "throttled", ", ".join(signs) or "no"


def _rate(rate: ClockRate) -> str:
    current, low, high = (
        "?" if value is None else f"{value / 1e6:.0f}"
        for value in (rate.current_hz, rate.min_hz, rate.max_hz)
    )
    held = {True: "locked", False: "not locked", None: "lock unknown"}[rate.locked]
    return f"{rate.name}: {current} MHz of {low}..{high}, {held}"


def _gpu(report: Report) -> str:
    driver = report.cuda
    if driver.problem is not None:
        return driver.problem
    devices = ", ".join(
        f"{gpu.name} {human_bytes(gpu.memory_bytes)} sm {gpu.compute_capability}"
        for gpu in driver.devices
    )
    return f"{devices}, CUDA {driver.cuda}, driver {driver.driver or 'unknown'}"
