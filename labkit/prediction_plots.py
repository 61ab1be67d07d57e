"""Predictions beside what was then measured, as a figure."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING

from matplotlib.ticker import FixedLocator, FuncFormatter

from labkit.descriptions import joined
from labkit.figures import COLOURS, GREY, GRID, new_figure
from labkit.units import format_ratio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from labkit.figures import Picture
    from labkit.progress import PanelRun

_LABEL = 42


def predictions_figure(runs: Sequence[PanelRun]) -> Picture:
    """One row a run: the prediction, the result with its interval, the way between them.

    Args:
        runs: with a prediction each; the first is on top.

    Raises:
        ValueError: there is no run, or one without a prediction.
    """
    if not runs:
        raise ValueError("there is no run to draw")
    figure = new_figure(8.0, 1.1 + 0.34 * len(runs), _in_words(runs))
    axes = figure.add_subplot()
    axes.axvline(1, color=COLOURS[0], linewidth=1.2)
    seen = [1.0]
    for row, run in enumerate(runs):
        if run.predicted is None:
            raise ValueError(f"nobody predicted the result of {run.experiment!r}")
        once = row == 0
        axes.plot([run.predicted, run.speedup], [row, row], ":", color=GREY, linewidth=1.2)
        axes.plot(
            [run.low, run.high],
            [row, row],
            "|-",
            color=COLOURS[1],
            linewidth=2,
            # Ends that are seen above and below the mark of the result, however close they are.
            markersize=13,
            markeredgewidth=2,
            label="its interval" if once else None,
        )
        axes.plot(
            run.speedup,
            row,
            "o",
            color=COLOURS[1],
            markersize=7,
            label="measured" if once else None,
        )
        axes.plot(
            run.predicted,
            row,
            "D",
            markerfacecolor="none",
            markeredgecolor=COLOURS[2],
            markeredgewidth=1.8,
            markersize=8,
            label="you said" if once else None,
        )
        seen += [run.predicted, run.low, run.high]
    low, high = min(seen) / 1.3, max(seen) * 1.3
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.minorticks_off()
    axes.xaxis.set_major_locator(FixedLocator(_ticks(low, high)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}x"))
    axes.set_xlabel("speed-up (left of 1x: slower)")
    axes.set_yticks(
        range(len(runs)),
        ["\n".join(textwrap.wrap(run.label, _LABEL, max_lines=2, placeholder="…")) for run in runs],
    )
    axes.set_ylim(len(runs) - 0.5, -0.5)
    axes.grid(axis="x", **GRID)
    # Above the axes, where no row can lie under it.
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return figure


def _in_words(runs: Sequence[PanelRun]) -> str:
    parts = [
        f"{run.label}: you said {format_ratio(run.predicted)}, measured "
        f"{format_ratio(run.speedup)} [{format_ratio(run.low)}, {format_ratio(run.high)}]"
        for run in runs
    ]
    return f"Predictions and results on a logarithmic axis: {joined(parts)}."


def _ticks(low: float, high: float, most: int = 9) -> list[float]:
    """Of 1, 2 and 5 times powers of ten, as many as there is room for; powers alone if not.

    >>> _ticks(0.4, 6)
    [0.5, 1.0, 2.0, 5.0]
    >>> _ticks(0.001, 2000)
    [0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0]
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    for digits in ((1, 2, 5), (1,)):
        ticks = [float(f"{digit}e{decade}") for decade in decades for digit in digits]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= most:
            break
    return ticks[:: math.ceil(len(ticks) / most)]
