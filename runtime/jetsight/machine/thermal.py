"""Temperatures of the machine, and the reasons it was throttled for.

A zone of a part that is switched off has a name and no temperature. Over-current and under-voltage
events are counted since boot; thermal alerts are only on or off.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jetsight.machine import sysfs

# Meaning of the three counters of the hwmon chip `soctherm_oc`, the same on Orin and Thor.
_OVER_CURRENT = {
    "oc1": "under-voltage",
    "oc2": "average over-current",
    "oc3": "instantaneous over-current",
}
_POSSIBLE = range(-60_000, 200_001)  # a part that is switched off reports -256000


@dataclass(frozen=True)
class Temperature:
    """One thermal zone; from `throttle_millidegrees` on the kernel throttles it."""

    zone: str
    millidegrees: int | None
    throttle_millidegrees: int | None


@dataclass(frozen=True)
class Throttle:
    """A reason for throttling: `events` since boot, or `active` now; None if not reported."""

    reason: str
    events: int | None
    active: bool | None


def temperatures(root: Path) -> tuple[Temperature, ...]:
    """List every thermal zone that has a name."""
    found = []
    for zone in sysfs.nodes(root / "sys/class/thermal", "thermal_zone[0-9]*"):
        name = sysfs.text(zone / "type")
        if name is not None:
            found.append(Temperature(name, _millidegrees(zone / "temp"), _passive_trip(zone)))
    return tuple(found)


def throttles(root: Path) -> tuple[Throttle, ...]:
    """List the state of everything that can throttle this machine."""
    return (*_over_current(root), *_alerts(root), *_processor(root))


def _millidegrees(path: Path) -> int | None:
    value = sysfs.integer(path)
    return value if value is not None and value in _POSSIBLE else None


def _passive_trip(zone: Path) -> int | None:
    # At passive trips the kernel throttles; active ones start a fan, critical ones shut down.
    trips = [
        _millidegrees(kind.with_name(kind.name.replace("_type", "_temp")))
        for kind in sysfs.nodes(zone, "trip_point_*_type")
        if sysfs.text(kind) == "passive"
    ]
    return min((trip for trip in trips if trip is not None and trip > 0), default=None)


def _over_current(root: Path) -> Iterator[Throttle]:
    for chip in sysfs.nodes(root / "sys/class/hwmon", "hwmon[0-9]*"):
        if sysfs.text(chip / "name") != "soctherm_oc":  # numbers change from boot to boot
            continue
        for counter in sysfs.nodes(chip, "oc[0-9]*_event_cnt"):
            events, name = sysfs.integer(counter), counter.name.partition("_")[0]
            if events is not None:
                yield Throttle(_OVER_CURRENT.get(name, name), events, None)


def _alerts(root: Path) -> Iterator[Throttle]:
    for device in sysfs.nodes(root / "sys/class/thermal", "cooling_device[0-9]*"):
        kind, state = sysfs.text(device / "type"), sysfs.integer(device / "cur_state")
        if kind is not None and state is not None and re.search(r"throttle-alert|surface", kind):
            yield Throttle(kind, None, state > 0)


def _processor(root: Path) -> Iterator[Throttle]:
    # Of cpu0 alone: the cores of one package share its counter.
    counter = "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count"
    events = sysfs.integer(root / counter)
    if events is not None:
        yield Throttle("processor package", events, None)
