"""Comparisons as figures, live and done, and curves of any numbers."""

from __future__ import annotations

import math
import textwrap
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from matplotlib.ticker import (
    MaxNLocator,
)

from labkit import descriptions, statistics
from labkit.figures import COLOURS, GREY, GRID, fixed_axes, ink, new_figure, style
from labkit.pareto import QUALITY, SIZE, frontier, placed
from labkit.scales import (
    cut,
    set_bytes_axis,
    set_ratio_axis,
    set_time_axis,
)
from labkit.units import format_bytes, format_ratio, format_time

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from labkit.figures import Picture
    from labkit.results import Comparison, Ratio

_FAILED = "#A00000"
# What is too small to matter; its border is dark enough to be seen.
_BAND: dict[str, Any] = {"facecolor": "#dddddd", "edgecolor": GREY, "linewidth": 0.6, "zorder": 0}
# More dots than this hide each other and cost time to draw.
_DOTS = 250
# Behind a text that lines may run through.
_PLATE = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}


def narrowing(ratio: Ratio, points: int = 40) -> list[tuple[int, float, float, float]]:
    """How a ratio became known: (rounds, low, speed-up, high) at moments of the run.

    Args:
        ratio: of one variant.
        points: how many moments at most, more of them at the beginning.

    >>> from labkit.results import Ratio
    >>> path = narrowing(Ratio("b", "a", log_ratios=(0.7,) * 100), points=5)
    >>> [rounds for rounds, *_ in path]
    [9, 16, 30, 55, 100]
    """
    total, alpha = ratio.rounds, 1 - ratio.confidence
    first = statistics.minimum_rounds(alpha)
    if total < first:
        return []
    growth = (total / first) ** (1 / max(1, points - 1))
    moments = sorted({*(round(first * growth**i) for i in range(points - 1)), total})
    path = []
    for rounds in moments:
        seen = ratio.log_ratios[:rounds]
        low, high = statistics.interval(seen, alpha=alpha)
        middle = sorted(seen)[len(seen) // 2]
        path.append((rounds, math.exp(low), math.exp(middle), math.exp(high)))
    return path


def comparison_figure(comparison: Comparison) -> Figure:
    """Samples, speed-ups with their intervals, and peak memory where it was measured."""
    columns = 3 if comparison.memory else 2
    figure = new_figure(
        4.2 * columns,
        1.3 + 0.62 * len(comparison),
        partial(descriptions.comparison, comparison),
    )
    axes = figure.subplots(1, columns, sharey=True, squeeze=False)[0]
    _draw_times(axes[0], comparison)
    _draw_speedups(axes[1], comparison)
    if comparison.memory:
        _draw_memory(axes[2], comparison)
    _name_rows(axes[0], comparison)
    if comparison.title:
        values = ", ".join(f"{k}={v}" for k, v in comparison.parameters.items())
        figure.suptitle(_title(comparison.title, values, 14 * columns * 2), fontsize="medium")
    return figure


def live_figures(comparison: Comparison) -> list[Picture]:
    """A run under way: the intervals as they narrow, the times so far, and the memory if measured.

    Separate figures, so that a page lets them stand side by side or one below the other.
    Painted several times a second beside the measurement, so their margins are fixed: letting
    matplotlib find them takes longer than all the rest.
    """
    height = max(3.2, 1.4 + 0.5 * len(comparison))
    # Together they fit a page of 1200 pixels with its margins.
    # Three lines of the legend, and more where there are more than six of its entries.
    lines = len(comparison) if _has_long_names(comparison) else math.ceil(len(comparison) / 2)
    top = max(0.6, 0.19 * lines + 0.05)
    height = max(height, top + 2.4)
    intervals = fixed_axes(
        3.8, height, partial(descriptions.intervals, comparison), left=0.85, top=top
    )
    _draw_narrowing(intervals, comparison)
    labels = [line for label in _row_labels(comparison) for line in label.split("\n")]
    left = min(1.6, max(0.8, 0.2 + 0.083 * max(len(label) for label in labels)))
    times = fixed_axes(3.2, height, partial(descriptions.times, comparison), left=left)
    _draw_times(times, comparison)
    _name_rows(times, comparison)
    drawn = [intervals, times]
    if comparison.memory:
        memory = fixed_axes(2.7, height, partial(descriptions.memory, comparison), left=left)
        _draw_memory(memory, comparison, ticks=1)
        _name_rows(memory, comparison, times=False)
        memory.set_xlabel("peak memory")
        drawn.append(memory)
    if len(placed(comparison)) > 1:
        words = partial(descriptions.pareto, comparison, QUALITY, SIZE)
        drawn.append(fixed_axes(6.4, height, words, left=0.85, top=0.3, right=2.6))
        _draw_pareto(drawn[-1], comparison)
    return [cast("Picture", axes.figure) for axes in drawn]


def pareto_figure(comparison: Comparison, quality: str = QUALITY, size: str = SIZE) -> Figure:
    """Time against quality, the area as the size, the frontier marked.

    Args:
        comparison: whose variants bring along how good and how large they are.
        quality: the name of the first number; more is better.
        size: the name of the second, in bytes.

    Raises:
        ValueError: fewer than two variants have a time and a quality, and none failed. Where
            variants failed, a metric would not help: the figure says what happened.
    """
    if len(placed(comparison, quality)) < 2:
        if comparison.failures:
            return _words_figure(descriptions.too_few_placed(comparison, quality))
        known = list(dict.fromkeys(m for t in comparison.trials.values() for m in t.metrics))
        raise ValueError(
            f"fewer than two variants have a time and {quality!r}; their metrics are {known}: "
            "give labkit.Variant(..., metrics={...})"
        )
    height = max(3.6, 1.0 + 0.3 * len(comparison))
    words = partial(descriptions.pareto, comparison, quality, size)
    axes = fixed_axes(8.2, height, words, left=0.85, top=0.3, right=2.9)
    _draw_pareto(axes, comparison, quality, size)
    return cast("Figure", axes.figure)


def _words_figure(words: str) -> Figure:
    lines = textwrap.wrap(words, 90)
    figure = new_figure(8.2, 0.4 + 0.22 * len(lines), words)
    figure.text(0.02, 0.5, "\n".join(lines), va="center")
    return figure


def curves_figure(
    curves: Mapping[str, Sequence[float]],
    *,
    x: str,
    y: str,
    smooth: int = 1,
    xs: Sequence[float] | None = None,
    log: bool = False,
) -> Figure:
    """One line for each name, such as the losses of several trainings.

    Args:
        curves: numbers by name.
        x: what is counted on the horizontal axis.
        y: what the numbers are.
        smooth: draw means of this many numbers in a row.
        xs: where the numbers stand on the horizontal axis, in this direction; None: 1, 2, ...
        log: a logarithmic vertical axis.
    """
    lines = {
        name: np.convolve(values, np.ones(smooth) / smooth, mode="valid").tolist()
        for name, values in curves.items()
    }
    at = {
        name: range(smooth, smooth + len(means)) if xs is None else xs
        for name, means in lines.items()
    }
    upright = f"{y} (means of {smooth})" if smooth > 1 else y
    figure = new_figure(7.0, 3.6, partial(descriptions.curves, lines, at, x, upright))
    axes = figure.add_subplot()
    for number, (name, means) in enumerate(lines.items()):
        colour, marker, line = style(number)
        every = max(1, len(means) // 8)
        axes.plot(
            at[name],
            means,
            line,
            color=colour,
            marker=marker,
            markevery=(number * every // max(1, len(curves)), every),
            markersize=5,
            label=name,
        )
    axes.set_xlabel(x)
    if xs is not None and xs[0] > xs[-1]:
        axes.invert_xaxis()
    if log:
        axes.set_yscale("log")
    axes.set_ylabel(upright)
    axes.grid(**GRID)
    # As many columns as fit: a character takes a twelfth of an inch, a line and its gaps one.
    widest = 1 + max(len(name) for name in curves) / 12
    columns = max(1, min(4, len(curves), int(7.0 / widest)))
    figure.legend(loc="outside upper center", ncols=columns, frameon=False)
    return figure


def _title(title: str, values: str, width: int) -> str:
    return "\n".join(textwrap.wrap(f"{title} ({values})" if values else title, width))


def _thinned(values: Sequence[float]) -> Sequence[float]:
    step = max(1, math.ceil(len(values) / _DOTS))
    return values[::step]


def _row_labels(comparison: Comparison, *, times: bool = True) -> list[str]:
    labels = []
    for name, trial in comparison.trials.items():
        label = "\n".join(textwrap.wrap(name, 18, max_lines=2, placeholder="…"))
        with_time = times and trial.times_s
        labels.append(f"{label}\n{format_time(trial.median_s)}" if with_time else label)
    return labels


def _name_rows(axes: Axes, comparison: Comparison, *, times: bool = True) -> None:
    labels = _row_labels(comparison, times=times)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)


def _draw_times(axes: Axes, comparison: Comparison) -> None:
    seen: list[float] = []
    for row, (name, trial) in enumerate(comparison.trials.items()):
        colour, marker, _ = style(row)
        if trial.times_s:
            dots = _thinned(trial.times_s)
            # A fixed pattern, not chance: the same result gives the same picture.
            heights = [row + 0.22 * math.sin(2.4 * i) for i in range(len(dots))]
            axes.plot(dots, heights, ".", color=colour, alpha=0.25, markersize=3)
            axes.plot(trial.median_s, row, marker, color=colour, markersize=7)
            ordered = sorted(trial.times_s)
            seen += [ordered[0], ordered[int(0.98 * (len(ordered) - 1))], trial.median_s]
        elif failure := comparison.failures.get(name):
            axes.text(
                0.5,
                row,
                "\n".join(textwrap.wrap(str(failure), 22, max_lines=2, placeholder="…")),
                transform=axes.get_yaxis_transform(),
                color=_FAILED,
                fontsize="small",
                ha="center",
                va="center",
            )
    set_time_axis(axes, "x", seen)
    axes.set_xlabel("time (dots: samples)")
    axes.grid(axis="x", **GRID)


def _draw_speedups(axes: Axes, comparison: Comparison) -> None:
    share = comparison.resolution
    axes.axvspan(1 / (1 + share), 1 + share, **_BAND)
    axes.axvline(1, color=COLOURS[0], linewidth=1.2)
    seen = [1.0]
    for row, (name, ratio) in enumerate(comparison.ratios.items(), start=1):
        if not ratio.rounds:
            continue
        colour, marker, _ = style(row)
        known = math.isfinite(ratio.high)
        low, high = (ratio.low, ratio.high) if known else (ratio.speedup, ratio.speedup)
        axes.plot([low, high], [row, row], color=colour, linewidth=3)
        # The white rim sets the middle apart from its interval.
        axes.plot(ratio.speedup, row, marker, color=colour, markersize=8, markeredgecolor="white")
        seen += [low, high]
        failure = comparison.failures.get(name)
        said = f"then {failure.kind}" if failure else ratio.verdict.value
        axes.text(
            0.5,
            row - 0.22,
            f"{format_ratio(ratio.speedup)} {ratio.interval_text} {said}",
            transform=axes.get_yaxis_transform(),
            color=_FAILED if failure else "black",
            fontsize="small",
            ha="center",
            va="bottom",
            bbox=_PLATE,
        )
    axes.text(
        0.5,
        -0.22,
        "baseline",
        transform=axes.get_yaxis_transform(),
        fontsize="small",
        ha="center",
        va="bottom",
        bbox=_PLATE,
    )
    set_ratio_axis(axes, "x", seen)
    axes.set_xlabel("speed-up (grey: too small to matter)")


def _draw_memory(axes: Axes, comparison: Comparison, *, ticks: int = 2) -> None:
    # A few pages must not look like a difference.
    largest = max(2**20, *(m.peak_bytes for m in comparison.memory.values()))
    for row, name in enumerate(comparison.names):
        colour, *_ = style(row)
        if name not in comparison.memory:
            continue
        peak_bytes = comparison.memory[name].peak_bytes
        axes.barh(row, peak_bytes, height=0.4, color=colour)
        inside = peak_bytes > 0.6 * largest
        axes.annotate(
            format_bytes(peak_bytes),
            (peak_bytes, row),
            xytext=(-4 if inside else 4, 0),
            textcoords="offset points",
            ha="right" if inside else "left",
            va="center",
            fontsize="small",
            color=ink(colour) if inside else "black",
            fontweight="bold" if inside else "normal",
        )
    axes.set_xlim(0, largest * 1.05)
    set_bytes_axis(axes.xaxis, largest, ticks)
    axes.set_xlabel("peak memory above the start")


def _has_long_names(comparison: Comparison) -> bool:
    """Whether the names need a line of the legend each, and there are few enough for that."""
    return len(comparison) <= 8 and max(len(name) for name in comparison.names) > 8


def _draw_narrowing(axes: Axes, comparison: Comparison) -> None:
    # Two labels stand side by side where they are short; three lines have room above the axes.
    long = _has_long_names(comparison)
    width = 22 if long else 9
    axes.axhline(1, color=COLOURS[0], linewidth=1.2, label=cut(comparison.baseline, width))
    share = comparison.resolution
    axes.axhspan(1 / (1 + share), 1 + share, **_BAND)
    seen, rounds = [1.0], 0
    for number, (name, ratio) in enumerate(comparison.ratios.items(), start=1):
        path = narrowing(ratio)
        if not path:
            continue
        colour, marker, line = style(number)
        xs, lows, middles, highs = zip(*path, strict=True)
        axes.fill_between(xs, lows, highs, fc=(colour, 0.2), ec=colour, linewidth=0.6)
        label = f"{cut(name, width)} {format_ratio(ratio.speedup)}"
        axes.plot(xs, middles, line, color=colour, linewidth=1.8, label=label)
        axes.plot(xs[-1], middles[-1], marker, color=colour)
        # The first intervals are so wide that they would flatten everything after them.
        later = max(0, len(path) // 3)
        seen += [*lows[later:], *highs[later:]]
        rounds = max(rounds, xs[-1])
    if rounds:
        axes.set_xlim(0, rounds * 1.05)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    else:
        for ratio in list(comparison.ratios.values())[:1]:
            text = f"an interval needs {statistics.minimum_rounds(1 - ratio.confidence)} rounds"
            axes.text(0.5, 0.7, text, ha="center", transform=axes.transAxes)
        axes.set_xlim(0, 1)
        axes.set_xticks([])
    set_ratio_axis(axes, "y", seen)
    axes.set_xlabel("rounds")
    axes.set_ylabel("speed-up")
    # Above the axes, where no line can run beneath it.
    columns = 1 if long else 2
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=columns,
        frameon=False,
        fontsize="small",
        borderaxespad=0.2,
    )


def _draw_pareto(
    axes: Axes, comparison: Comparison, quality: str = QUALITY, size: str = SIZE
) -> None:
    at, best = placed(comparison, quality), frontier(comparison, quality)
    sizes = {name: comparison.trials[name].metrics.get(size, math.nan) for name in at}
    largest = max((n for n in sizes.values() if math.isfinite(n)), default=math.nan)
    for number, name in enumerate(comparison.names):
        if name not in at:
            continue
        colour, marker, _ = style(number)
        share = sizes[name] / largest if math.isfinite(sizes[name]) else 0.1
        axes.scatter(*at[name], s=900 * share, fc=(colour, 0.25), ec=colour, linewidths=0.6)
        label = cut(name, 24)
        if math.isfinite(sizes[name]):
            label += f", {format_bytes(sizes[name])}"
        axes.plot(
            *at[name],
            marker,
            color=colour,
            markersize=7,
            markeredgecolor="black" if name in best else colour,
            markeredgewidth=1.6 if name in best else 0.5,
            label=label,
        )
    points = [at[name] for name in best]
    axes.step(
        *zip(*points, strict=True),
        where="post",
        color=GREY,
        linewidth=1.2,
        linestyle="--",
        label="frontier",
        zorder=0,
    )
    set_time_axis(axes, "x", [seconds for seconds, _ in at.values()], most=5)
    values = [value for _, value in at.values()]
    pad = max(0.2 * (max(values) - min(values)), 0.005)
    axes.set_ylim(min(values) - pad, max(values) + pad)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("time per evaluation")
    axes.set_ylabel(f"{quality} (area: size)" if math.isfinite(largest) else quality)
    axes.grid(**GRID)
    axes.set_axisbelow(True)
    axes.legend(
        loc="center left",
        bbox_to_anchor=(1.02, 0.5),
        frameon=False,
        fontsize="small",
        borderaxespad=0.2,
    )
