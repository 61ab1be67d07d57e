"""The roofline of a machine, and where variants stand under it.

Source: Williams, Waterman and Patterson, "Roofline: an insightful visual performance model for
multicore architectures", Communications of the ACM 52(4), 2009.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import FuncFormatter

from labkit import descriptions
from labkit.figures import GREY, GRID, new_figure, style
from labkit.units import format_rate, format_share

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from labkit.peaks import Peaks
    from labkit.results import Comparison


# A copy reads one byte for each that it writes, and a write reads its line of memory first: three
# transfers for two bytes that are counted. Work that only reads has one for one.
_READING = 1.5


@dataclass(frozen=True)
class RooflinePoint:
    """A variant on the roofline.

    Attributes:
        name: of the variant.
        intensity_flops_per_byte: operations for each byte that is moved.
        flops_per_s: the rate that was reached, from the median time.
        share: of what the machine can reach at this intensity with data from memory.
        limit: what the roof is made of at this intensity, "memory" or "compute".
    """

    name: str
    intensity_flops_per_byte: float
    flops_per_s: float
    share: float
    limit: str = "memory"

    @property
    def why_above(self) -> str:
        """How a point can stand above the roof; empty where it does not."""
        if self.share <= 1:
            return ""
        # A roof is measured, too: a few percent say nothing.
        if self.share <= 1.1:
            return " (at the roof)"
        if self.limit == "memory" and self.share <= _READING:
            return " (reads more than a copy does, or from a cache)"
        if self.limit == "memory":
            return " (data from a cache)"
        return " (faster than the products of the roof)"

    def __str__(self) -> str:
        rate = format_rate(self.flops_per_s, "FLOP/s")
        share = format_share(float(f"{self.share:.2g}"))
        return f"{self.name}: {rate}, {share} of the limit{self.why_above}"


def place(peaks: Peaks, comparison: Comparison) -> list[RooflinePoint]:
    """Where the variants stand that state their ``flops`` and ``bytes_moved``, or were traced.

    >>> from labkit.peaks import CopyRate, GemmRate, Peaks
    >>> from labkit.results import Comparison
    >>> from labkit.trials import Trial
    >>> peaks = Peaks((CopyRate(2**28, 20e9),), (GemmRate(1024, 100e9),))
    >>> trial = Trial("sum", (1e-3,), (0,), flops=1e6, bytes_moved=8e6)
    >>> print(*place(peaks, Comparison({"sum": trial})))
    sum: 1 GFLOP/s, 40 % of the limit
    """
    points = []
    for name, trial in comparison.trials.items():
        flops, moved = trial.cost
        if flops and moved and trial.times_s:
            intensity = flops / moved
            rate = flops / trial.median_s
            limit, _ = peaks.bound(flops, moved)
            share = rate / peaks.roofline(intensity)
            points.append(RooflinePoint(name, intensity, rate, share, limit))
    return points


def roofline_figure(peaks: Peaks, *comparisons: Comparison) -> Figure:
    """The roof of memory and arithmetic, the best cache's roof, and the variants under them."""
    points = [point for c in comparisons for point in place(peaks, c)]
    figure = new_figure(8.0, 4.6, partial(descriptions.roofline, peaks, points))
    axes = figure.add_subplot()
    seen = [p.intensity_flops_per_byte for p in points]
    low = min([peaks.ridge_flops_per_byte / 64, *(x / 4 for x in seen)])
    high = max([peaks.ridge_flops_per_byte * 16, *(x * 4 for x in seen)])
    xs = np.geomspace(low, high, 200)
    axes.loglog(xs, [peaks.roofline(x) for x in xs], color="black", linewidth=2)
    cache = max(peaks.copies, key=lambda copy: copy.bytes_per_s)
    if cache.bytes_per_s > 1.1 * peaks.bandwidth_bytes_per_s:
        roof = np.minimum(xs * cache.bytes_per_s, peaks.gemm_flops_per_s)
        axes.loglog(
            xs,
            roof,
            color=GREY,
            linestyle="--",
            linewidth=1.2,
            label=f"from a cache: {format_rate(cache.bytes_per_s, 'B/s')}",
        )
    axes.loglog(
        [],
        [],
        color="black",
        linewidth=2,
        label=f"from memory: {format_rate(peaks.bandwidth_bytes_per_s, 'B/s')}; "
        f"products: {format_rate(peaks.gemm_flops_per_s, 'FLOP/s')}",
    )
    for number, point in enumerate(points):
        colour, marker, _ = style(number)
        axes.plot(
            point.intensity_flops_per_byte,
            point.flops_per_s,
            marker,
            color=colour,
            markersize=9,
            label=str(point),
        )
    ridge = peaks.ridge_flops_per_byte
    # Room below for the words.
    bottom = min([peaks.roofline(low), *(p.flops_per_s / 2 for p in points)]) / 2
    axes.set_ylim(bottom, 10 ** (math.log10(peaks.gemm_flops_per_s) + 0.3))
    axes.set_xlim(low, high)
    axes.axvline(ridge, color=GREY, linestyle=":", linewidth=1.2)
    for text, side in (("memory is the limit ", "right"), (" arithmetic is the limit", "left")):
        # In the lowest line of the picture, where neither a roof nor a point stands.
        axes.text(
            ridge, 0.02, text, ha=side, transform=axes.get_xaxis_transform(), fontsize="small"
        )
    axes.set_xlabel(
        f"operations for each byte moved (FLOP/B); the roof is flat from {ridge:.3g} on"
    )
    axes.set_ylabel("rate (FLOP/s)")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: format_rate(y, "FLOP/s")))
    axes.grid(**GRID)
    axes.minorticks_off()
    figure.legend(loc="outside upper left", frameon=False, fontsize="small", ncols=2)
    return figure
