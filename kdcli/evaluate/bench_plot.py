"""The speeds and latencies of a bench as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kdcli.errors import MissingError, UsageError
from kdcli.evaluate.measure import BATCHES, Measurement
from kdcli.files import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from kdcli.evaluate.bench import BenchReport

FORMS = (".svg", ".png", ".pdf")
_COLOURS = {"pytorch": "#4477aa", "numpy": "#66ccee", "onnx": "#228833", "int8": "#ccbb44", "teacher": "#ee6677"}
"""Paul Tol's bright scheme, told apart by colour-blind eyes too."""


def check_plot(path: Path) -> None:
    """Refuse what could not be drawn, before hours of measuring.

    Raises:
        UsageError: The suffix is no picture's.
        MissingError: matplotlib is not installed.
    """
    if path.suffix not in FORMS:
        raise UsageError(f"a plot is {', '.join(FORMS)}, not {path.name!r}", hint="for example --plot bench.svg")
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MissingError("a plot needs matplotlib", hint="pip install matplotlib") from error


def plot(report: BenchReport, path: Path) -> None:
    """Draw sentences per second by batch, and latency at batch 1, both on logarithmic scales.

    Args:
        report: The measurements.
        path: The picture to write, in the form that its suffix says.

    Raises:
        UsageError: The suffix is no picture's.
        MissingError: matplotlib is not installed.
    """
    check_plot(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 1.6 + 0.45 * len(report.models)), layout="constrained")
    speed, latency = figure.subplots(1, 2, width_ratios=[3, 2])
    _speeds(speed, report.models)
    _latencies(latency, report.models)
    figure.suptitle(f"{report.task}: {report.machine['processor']}, {report.machine['cores']} cores", fontsize=10)
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _speeds(axes: Axes, models: Sequence[Measurement]) -> None:
    height = 0.8 / len(BATCHES)
    for row, model in enumerate(models):
        for number, batch in enumerate(BATCHES):
            place, value = row + (number - 1) * height, model.per_second[batch]
            axes.barh(place, value, height * 0.9, color=_COLOURS[model.kind], alpha=0.4 + 0.3 * number)
            axes.annotate(
                f"{value:,.0f}  (batch {batch})" if value >= 10 else f"{value:.2g}  (batch {batch})",
                (value, place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
            )
    axes.set_xscale("log")
    rates = [rate for model in models for rate in model.per_second.values()]
    axes.set_xlim(10 ** np.floor(np.log10(min(rates) / 2)), max(rates) * 8)
    axes.set_xlabel("sentences per second")
    _rows(axes, models, names=True)


def _latencies(axes: Axes, models: Sequence[Measurement]) -> None:
    for row, model in enumerate(models):
        taken = model.latency
        axes.plot([taken.p50, taken.p99], [row, row], color=_COLOURS[model.kind], linewidth=2)
        for marker, value in zip("o|x", (taken.p50, taken.p95, taken.p99), strict=True):
            axes.plot(value, row, marker, color=_COLOURS[model.kind], markersize=7)
    axes.set_xscale("log")
    axes.set_xlabel("ms for one text: p50 o, p95 |, p99 x")
    _rows(axes, models, names=False)


def _rows(axes: Axes, models: Sequence[Measurement], *, names: bool) -> None:
    axes.set_yticks(range(len(models)), [model.name for model in models] if names else [""] * len(models))
    axes.set_ylim(len(models) - 0.5, -0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", alpha=0.3)
