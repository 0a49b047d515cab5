"""One palette and one matplotlib style for every chart: plans, the demo, films, the model card.

The palette is that of Okabe and Ito, which people with any colour vision can tell apart.
"""

from __future__ import annotations

from typing import Any

from jetsight.errors import MissingDependency

INK, GREY, FAINT = "#22262b", "#7b818a", "#d9dce1"
BLUE, ORANGE, GREEN, RED = "#0072b2", "#e69f00", "#009e73", "#d55e00"
PURPLE, SKY = "#cc79a7", "#56b4e9"
DASHED, DOTTED = (0, (4, 3)), (0, (1, 2))
# Neither a date nor a version, so that equal data give equal bytes.
METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
_STYLE = {
    "text.parse_math": False,  # a path may hold dollar signs
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "jetsight",  # else ids in the file are random
    "font.family": "sans-serif",
    "font.size": 8.5,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
}


def context(purpose: str) -> Any:
    """Context manager in which matplotlib draws in this style.

    Args:
        purpose: of the chart, for the error message.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as problem:
        raise MissingDependency("matplotlib", "train", purpose) from problem
    return matplotlib.rc_context(_STYLE)


def figure(width_in: float, height_in: float) -> Any:
    """Make an empty figure whose parts make room for each other; it needs no display."""
    from matplotlib.figure import Figure

    # Not pyplot, which picks a window system and keeps every figure alive.
    return Figure(figsize=(width_in, height_in), layout="constrained")


def note(
    axis: Any,
    text: str,
    at: tuple[float, float],
    shift_pt: tuple[float, float] = (0, 0),
    *,
    align: str = "center baseline",
    coords: str = "data",
    color: str = INK,
    size: float = 8.0,
) -> None:
    """Write a short text at a point of an axis.

    Args:
        axis: to write into.
        text: one line.
        at: the point, in `coords`.
        shift_pt: moved by so many points of type, right and up.
        align: horizontal and vertical alignment, e.g. `"left top"`.
        coords: `"data"`; `"x"` or `"y"` if only that one is data and the other a share of the axis.
        color: of the text.
        size: in points.
    """
    places = {"x": axis.get_xaxis_transform, "y": axis.get_yaxis_transform}
    horizontal, vertical = align.split()
    axis.annotate(
        text,
        at,
        xytext=shift_pt,
        textcoords="offset points",
        xycoords=places[coords]() if coords in places else coords,
        ha=horizontal,
        va=vertical,
        color=color,
        fontsize=size,
    )
