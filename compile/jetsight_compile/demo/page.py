"""`report.html`: one page without script, font or picture that would have to be loaded."""

from __future__ import annotations

import base64
import importlib.util
import io
import math
from collections.abc import Mapping
from importlib import resources
from typing import Any

from jetsight.engine import NDArray
from jetsight.errors import MissingDependency


def check_tools() -> None:
    """Find out early whether the page can be made.

    Raises:
        MissingDependency: jinja2 or matplotlib is not installed.
    """
    for module, extra in (("jinja2", "compile"), ("matplotlib", "train")):
        try:
            found = importlib.util.find_spec(module) is not None
        except (ImportError, ValueError):  # ValueError: hidden through sys.modules[name] = None
            found = False
        if not found:
            raise MissingDependency(module, extra, "writing the demo's report")


def render(facts: Mapping[str, Any]) -> str:
    """The page, from the values that `report.html.j2` names."""
    import jinja2

    text = resources.files("jetsight_compile.demo").joinpath("report.html.j2").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"picture": picture, "number": number, "ms": milliseconds}
    return environment.from_string(text).render(**facts)


def picture(frame_hwc_u8: NDArray) -> str:
    """A frame as a `data:` URI that an `<img>` shows without loading anything."""
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(buffer, frame_hwc_u8, format="png", metadata={"Software": "jetsight"})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def embedded(svg: bytes) -> str:
    """A drawing as a `data:` URI; beside other drawings its names stay its own."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode("ascii")


def number(value: float | None, digits: int = 3) -> str:
    """A number with that many significant digits; a dash for none."""
    if value is None or not math.isfinite(value):
        return "-"
    if value != 0 and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}"
    places = digits - 1 - math.floor(math.log10(abs(value))) if value else digits - 1
    return f"{value:.{max(places, 0)}f}"


def milliseconds(value: float) -> str:
    """A time as the tables show it: `2.14 ms`."""
    return f"{value:.2f} ms" if value < 10 else f"{value:.1f} ms"
