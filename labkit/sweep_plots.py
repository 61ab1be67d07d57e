"""A sweep as a figure."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

from labkit import descriptions
from labkit.figures import COLOURS, GREY, GRID, LINES, new_figure, style
from labkit.scales import (
    set_bytes_axis,
    set_parameter_axis,
    set_ratio_axis,
    set_time_axis,
    short,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from labkit.figures import Picture
    from labkit.sweeps import Sweep


def sweep_figure(sweep: Sweep) -> Picture:
    """Time, speed-up and peak memory (where measured) against the first swept parameter."""
    measured = sweep.comparisons
    with_memory = any(c.memory for c in measured)
    rows = 3 if with_memory else 2
    figure = new_figure(7.5, 1.0 + 2.5 * rows, partial(descriptions.sweep, sweep))
    axes = list(figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0])
    axis = sweep.swept[0]
    values = list(dict.fromkeys(p.parameters[axis] for p in sweep.points))
    place = set_parameter_axis(axes[-1], axis, values)
    for i, (label, part) in enumerate(sweep.slices):
        for name in part.names:
            number = sweep.names.index(name)
            colour, marker, line = style(number)
            look = {"color": colour, "marker": marker, "linestyle": line, "markersize": 5}
            if label:
                look["linestyle"] = LINES[i % len(LINES)]
            look["label"] = " ".join(filter(None, [short(name, 24), label]))
            _draw_series(axes, part, name, place, look)
    axes[0].set_ylabel("time per evaluation")
    axes[1].set_ylabel(f"speed-up over {short(sweep.names[0], 18)}" if measured else "speed-up")
    axes[1].axhline(1, color=COLOURS[0], linewidth=1.2)
    set_time_axis(axes[0], "y", [t.median_s for c in measured for t in c.trials.values()])
    ratios = [r for c in measured for r in c.ratios.values() if r.rounds]
    ends = [end for r in ratios for end in (r.low, r.high) if math.isfinite(r.high)]
    set_ratio_axis(axes[1], "y", [1.0, *(r.speedup for r in ratios), *ends])
    if with_memory:
        axes[2].set_ylabel("peak memory")
        largest = max(2**20, *(m.peak_bytes for c in measured for m in c.memory.values()))
        set_bytes_axis(axes[2].yaxis, largest, 2)
        axes[2].set_ylim(0, largest * 1.1)
    if measured:
        count = len(axes[0].get_legend_handles_labels()[1])
        figure.legend(
            *axes[0].get_legend_handles_labels(),
            loc="outside upper center",
            ncols=min(3, count),
            frameon=False,
        )
    else:
        axes[0].text(0.5, 0.5, "nothing measured yet", ha="center", transform=axes[0].transAxes)
    for each in axes:
        each.grid(**GRID)
    return figure


def _draw_series(
    axes: list[Axes], sweep: Sweep, name: str, place: dict[Any, float], look: dict[str, Any]
) -> None:
    series = [(place[v], c) for v, c in sweep.series(name) if c.trials[name].times_s]
    if not series:
        return
    xs = [x for x, _ in series]
    axes[0].plot(xs, [c.trials[name].median_s for _, c in series], **look)
    if name != sweep.names[0]:
        ratios = [c[name] for _, c in series]
        axes[1].plot(xs, [r.speedup for r in ratios], **look)
        known = [(x, r) for x, r in zip(xs, ratios, strict=True) if math.isfinite(r.high)]
        axes[1].vlines(
            [x for x, _ in known],
            [r.low for _, r in known],
            [r.high for _, r in known],
            color=look["color"],
            linewidth=2,
        )
        where = sweep.crossover(name)
        if where is not None:
            axes[1].axvline(where, color=GREY, linestyle=":", linewidth=1.2)
            axes[1].annotate(
                f"{sweep.swept[0]} = {where:.3g}",
                # One above the other: several variants may cross close together.
                (where, 0.02 + 0.07 * len(axes[1].texts)),
                xycoords=("data", "axes fraction"),
                xytext=(3, 0),
                textcoords="offset points",
                color=GREY,
                fontsize="small",
            )
    peaks = [(x, c.memory[name].peak_bytes) for x, c in series if name in c.memory]
    if peaks and len(axes) > 2:
        axes[2].plot(*zip(*peaks, strict=True), **look)
