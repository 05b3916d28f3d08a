"""A figure that needs no screen, the colours of all of them, and how one is written."""

from __future__ import annotations

from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from percoin.types import CLASS_NAMES
from percoin.whole_file import write_whole

# In colours that colour-blind readers can distinguish (Okabe and Ito, 2008).
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#999999"
CLASS_COLOURS = dict(zip(CLASS_NAMES, (ORANGE, GREY, BLUE), strict=True))


def new_picture(
    width: float,
    height: float,
    title: str = "",
    layout: Literal["constrained"] | None = "constrained",
) -> Figure:
    """An empty figure.

    Args:
        width: In inches.
        height: In inches.
        title: At the top left; taken as it is, without formulas.
        layout: Who places the axes: matplotlib, or with None the caller.
    """
    figure = Figure(figsize=(width, height), dpi=100, layout=layout)
    FigureCanvasAgg(figure)
    # A notebook then shows it without %matplotlib inline. No subclass: loggers would not take one
    # for a figure of matplotlib.
    figure.__dict__["_repr_png_"] = partial(_as_png, figure)
    if title:
        figure.suptitle(title, x=0.01, ha="left", parse_math=False)
    return figure


def _as_png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def date_axis(axes: Axes) -> None:
    """Let the horizontal axis show dates (UTC)."""
    locator = AutoDateLocator(minticks=4, maxticks=9)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.set_xlabel("UTC")


def write_picture(figure: Figure, path: Path) -> None:
    """Replace the PNG file in one step."""
    write_whole(path, partial(figure.savefig, format="png"), is_synced=False)
