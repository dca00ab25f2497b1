"""Plots of a page by matplotlib: inline SVG in the page's colours and letters."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from io import StringIO
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from kdcli.report.collect import Curve
from kdcli.student.deferral import Calibration

INK, FAINT = "#0000e0", "#0000e1"
LEAST_HEIGHT = 4.0  # the least height of an axis of scores, in points of a score: less is noise
PALETTE = ("#0000c0", "#0000c1", "#0000c2", "#0000c3", "#0000c4", "#0000c5")
"""Stand-ins for the page's own colours, which differ in light and dark."""
COLOURS = {"teacher": 0, "student": 1, "baseline": 2, "generator": 3, "original": 2, "lite": 1, "heavy": 0, "corpus": 3}
_IN_PAGE = {
    INK: "currentColor",
    FAINT: "var(--rule)",
    **{colour: f"var(--c{number})" for number, colour in enumerate(PALETTE)},
}
_STYLE: dict[Any, Any] = {
    **{"font.size": 9.5, "axes.labelsize": 9.5, "legend.fontsize": 9, "lines.linewidth": 1.6, "lines.markersize": 3.5},
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), FAINT),
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    "svg.fonttype": "none",
    "text.parse_math": False,  # a dollar sign in a label is one
}


def colour_of(name: str) -> int:
    """Return the palette's number of a model or source: the same in every plot."""
    return COLOURS.get(name, 4)


def curves(
    name: str,
    drawn: Sequence[Curve],
    quantities: Sequence[str],
    *,
    y: str,
    times: float = 1.0,
    teacher: float | None = None,
) -> str:
    """Draw quantities of learning curves, so many ``times``, against updates, and a line at the teacher's height."""
    with _axes(name, f"{y} against updates") as (axes, svg):
        labels: set[str] = set()
        heights: list[float] = []
        for number, curve in enumerate(drawn):
            grid = curve.label.startswith("lr ")  # each of its curves has its own colour
            colour = PALETTE[number % len(PALETTE) if grid else colour_of(curve.stage)]
            for quantity in (one for one in quantities if one in curve.values):
                of = {"loss": "training", "dev_loss": "dev"}.get(quantity, "")
                label = " ".join(filter(None, [curve.label if grid else "" if of else curve.stage, of]))
                dashed: dict[str, Any] = (
                    {"linestyle": "--", "markerfacecolor": "none"} if quantity == "dev_loss" else {}
                )
                values = times * np.array(curve.values[quantity], float)  # None is NaN, and leaves a hole
                marker = "o" if len(values) < 40 else ""
                once = "_" if label in labels else label  # of several seeds
                axes.plot(curve.steps, values, color=colour, marker=marker, label=once, **dashed)
                labels.add(label)
                heights += values[np.isfinite(values)].tolist()
        if teacher is not None:
            axes.axhline(teacher, color=PALETTE[colour_of("teacher")], linestyle=":", label="teacher")
        if y == "loss" and min(heights, default=0) > 0 and max(heights) > 8 * min(heights):
            axes.set_yscale("log")
            _label_logs(axes.yaxis, (1, 2, 5))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value % 1 == 0 else ""))
        axes.set(xlabel="updates", ylabel=y, xlim=(0, None))
        if len(labels) + (teacher is not None) > 1:
            axes.legend()
    return svg[0]


def scatter(
    name: str, x: NDArray[Any], y: NDArray[Any], *, labels: tuple[str, str], colour: int, most: int = 800
) -> str:
    """Draw one score against another, of at most so many rows, drawn at random with a fixed seed."""
    rows = np.sort(np.random.default_rng(1).permutation(len(x))[:most])
    with _axes(name, f"{labels[1]} against {labels[0]}", width=4, height=4) as (axes, svg):
        low = float(min(x.min(), y.min()))
        axes.axline((low, low), slope=1, color=FAINT, linewidth=1)
        axes.plot(x[rows], y[rows], ".", color=PALETTE[colour], alpha=0.45, markersize=4)
        axes.set(xlabel=labels[0], ylabel=labels[1], aspect="equal")
    return svg[0]


def tradeoff(
    name: str,
    points: Mapping[str, tuple[float, float]],
    *,
    y: str,
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> str:
    """Draw a score against the speed: of each model the texts a second, the score, and the score's interval."""
    with _axes(name, f"{y} against texts a second: {', '.join(points)}") as (axes, svg):
        for label, (speed, height) in points.items():
            colour = PALETTE[colour_of(label)]
            if ranges and label in ranges:
                axes.plot([speed, speed], ranges[label], color=colour, linewidth=4, alpha=0.35, solid_capstyle="butt")
            axes.plot([speed], [height], "o", color=colour, markersize=6)
            # Baseline and student are equally fast: a name on each side.
            side, align = (-7, "right") if label == "baseline" else (7, "left")
            beside: dict[str, Any] = {"xytext": (side, 0), "textcoords": "offset points", "ha": align, "va": "center"}
            axes.annotate(label if len(label) <= 32 else f"{label[:31]}…", (speed, height), **beside)
        axes.set_xscale("log")
        speeds = [speed for speed, _ in points.values()]
        _label_logs(axes.xaxis, (1, 2, 5) if max(speeds) < 100 * min(speeds) else (1,))
        axes.margins(0.18, 0.25)
        low, high = axes.get_ylim()
        if high - low < LEAST_HEIGHT:  # or models that are equal would seem to differ
            axes.set_ylim((low + high - LEAST_HEIGHT) / 2, (low + high + LEAST_HEIGHT) / 2)
        axes.set(xlabel="texts/s", ylabel=y)
    return svg[0]


def deferral(name: str, found: Calibration) -> str:
    """Draw the agreement of student and teacher as a pair, and its accuracy, by the share that the student answers."""
    with _axes(name, "agreement with the teacher against the share that the student answers") as (axes, svg):
        shares, texts = 100 * np.array(found.answered), found.texts
        agreed = 100 * (1 - np.arange(len(shares)) / texts)
        axes.plot(shares, agreed, color=PALETTE[1], label="agreement")
        axes.plot(shares, 100 * (1 - np.array(found.bounds)), color=PALETTE[1], linestyle="--", label="at least (95 %)")
        if found.accuracy:
            axes.plot(shares, 100 * np.array(found.accuracy), color=PALETTE[2], label="accuracy")
        if (place := found.errors()) is not None:
            axes.plot(
                shares[place], 100 * (1 - found.bounds[place]), "o", color=PALETTE[0], markersize=6, label="chosen"
            )
        axes.set(xlabel="% of the texts that the student answers", ylabel="% of all texts", xlim=(0, 100))
        axes.legend(loc="lower left")
    return svg[0]


def _label_logs(axis: Axis, digits: Sequence[float]) -> None:
    """Name the values of a logarithmic axis that begin with one of the digits: 100, 200, 500, 1,000."""
    axis.set_major_locator(LogLocator(subs=digits))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(NullFormatter())


@contextmanager
def _axes(name: str, description: str, *, width: float = 4.6, height: float = 2.9) -> Iterator[tuple[Axes, list[str]]]:
    """Give the axes to draw on, and a list that holds the SVG once the block has ended."""
    svg: list[str] = []
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure.subplots(), svg
        svg.append(_inline(figure, description))


def _inline(figure: Figure, description: str) -> str:
    """Return a figure as an SVG element in the colours and letters of the page; screen readers say the description."""
    file = StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    svg = file.getvalue()
    opening = rf'<svg \1 role="img" aria-label="{escape(description)}">'
    svg = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', opening, svg[svg.index("<svg") :].strip(), count=1)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)
    svg = re.sub(r" font-family: [^;\"]*;", "", svg)
    svg = svg.replace("xlink:href", "href")
    for stand_in, colour in _IN_PAGE.items():
        svg = svg.replace(stand_in, colour)
    return re.sub(r"\s*\n\s*", " ", svg)
