"""Laws of scaling as figures: points, intervals, the ideal, the law with its band."""

from __future__ import annotations

import itertools
import math
from functools import partial
from typing import TYPE_CHECKING

from matplotlib.ticker import FuncFormatter, MaxNLocator

from labkit import descriptions
from labkit.figures import COLOURS, GREY, GRID, new_figure, style
from labkit.laws import AMDAHL, cores_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from labkit.laws import Scaling


def laws_figure(scalings: Sequence[Scaling]) -> Figure:
    """One panel for each, side by side; see `labkit.laws.figure`."""
    drawn = new_figure(5.4 * len(scalings), 4.0, partial(descriptions.laws, scalings))
    panels = drawn.subplots(1, len(scalings), squeeze=False)[0]
    for scaling, axes in zip(scalings, panels, strict=True):
        _draw(axes, scaling)
    # Where a legend hangs below the axes, one pass does not find the margins.
    drawn.draw_without_rendering()
    return drawn


def _draw(axes: Axes, scaling: Scaling) -> None:
    most = max([2, *(p.workers for p in scaling.points)])
    xs = [1 + (most - 1) * i / 100 for i in range(101)]
    axes.plot(xs, xs, color=COLOURS[0], linewidth=1.2, label="ideal: each worker counts in full")
    fitted = max([1, *(p.workers for p in scaling.fitted)])
    if scaling.describes:
        colour, _, line = style(1)
        along = [x for x in xs if x <= fitted]
        lows = [scaling.at(x, scaling.high) for x in along]
        highs = [scaling.at(x, scaling.low) for x in along]
        axes.fill_between(along, lows, highs, fc=(colour, 0.25), ec=colour, linewidth=0.6)
        label = f"{scaling.law}: serial share {scaling.share_text}"
        axes.plot(along, [scaling.at(x) for x in along], line, color=colour, label=label)
    elif scaling.fitted:
        axes.plot([], [], " ", label=f"{scaling.law}: no serial share fits all points")
    colour, marker, _ = style(2)
    axes.plot(1, 1, marker, color=colour, markersize=7)
    for beyond, points in itertools.groupby(scaling.points, lambda p: p not in scaling.fitted):
        label = "measured, not fitted: fewer cores" if beyond else "measured, with its interval"
        filled = "white" if beyond else colour
        for p in points:
            high = p.high if math.isfinite(p.high) else p.speedup
            axes.plot([p.workers] * 2, [p.low, high], color=colour, linewidth=2)
            axes.plot(
                p.workers,
                p.speedup,
                marker,
                color=colour,
                markerfacecolor=filled,
                markersize=7,
                label=label,
            )
            label = ""
    if scaling.cores is not None and 1 <= scaling.cores <= most:
        axes.axvline(scaling.cores, color=GREY, linestyle=":", linewidth=1.2)
        label = f"{cores_text(scaling.cores)} may be used"
        axes.plot([], [], color=GREY, linestyle=":", linewidth=1.2, label=label)
    if most > 16:
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
    else:
        axes.set_xlim(1 - 0.08 * (most - 1), most + 0.08 * (most - 1))
        axes.set_ylim(0, 1.08 * max([most, *(p.high for p in scaling.points if p.high < math.inf)]))
        axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}x"))
    counts = [1, *(p.workers for p in scaling.points)]
    axes.set_xticks(counts, [str(n) for n in counts])
    axes.set_xlabel(scaling.unit)
    axes.set_ylabel("speed-up T1/Tp" if scaling.law == AMDAHL else "scaled speed-up p T1/Tp")
    axes.set_title(
        "the same work for all" if scaling.law == AMDAHL else "work that grows with the workers",
        fontsize="medium",
    )
    axes.grid(**GRID)
    axes.minorticks_off()
    # Below the axes, where no point can stand.
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.16), frameon=False, fontsize="small")
