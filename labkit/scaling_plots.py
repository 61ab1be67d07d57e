"""Predictions of `labkit.scaling` as figures, with their assumptions beneath.

Drawn as `labkit.plots` draws measured results: Okabe and Ito's colours, always together with a
marker, a line style or a pattern.
"""

from __future__ import annotations

import textwrap
from functools import partial
from typing import TYPE_CHECKING

from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator, PercentFormatter

from labkit import descriptions
from labkit.assumptions import overlap_words, seconds
from labkit.figures import COLOURS, GRID, new_figure, style
from labkit.language_models import gigabytes
from labkit.units import format_bytes, format_share, format_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from labkit.links import Link
    from labkit.planning import Plan
    from labkit.scaling import WeakScaling
    from labkit.training_steps import Prediction

# Light fills and dark patterns, so that neighbours differ without colour, too.
_FILLS = (
    ("#56B4E9", ""),
    ("#E69F00", "//"),
    ("#009E73", "xx"),
    ("#CC79A7", ".."),
    ("#F0E442", "\\\\"),
    ("#999999", "--"),
)


def link_figure(link: Link) -> Figure:
    """Measured points and the fitted line.

    Args:
        link: that was fitted.

    Raises:
        ValueError: it has no points.
    """
    if not link.points:
        raise ValueError("this link was written down, not fitted: use Link.fit(points)")
    figure = new_figure(6.4, 3.6, partial(descriptions.link, link))
    axes = figure.add_subplot()
    sizes = sorted({n for n, _ in link.points})
    collective, ranks = link.fitted
    axes.plot(*zip(*link.points, strict=True), "o", color=COLOURS[0], label="measured")
    low, high = sizes[0], sizes[-1]
    xs = [low * (high / low) ** (i / 40) for i in range(41)]
    line = [link.collective_s(collective, n, ranks) for n in xs]
    colour, _, dashes = style(1)
    axes.plot(xs, line, dashes, color=colour, label=f"fitted: {link}".replace("; ", "\n"))
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda n, _: format_bytes(n)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda t, _: format_time(t)))
    axes.set_xlabel(f"bytes of a tensor, {collective.replace('_', '-')} of {ranks} ranks")
    axes.set_ylabel("time")
    axes.grid(**GRID)
    figure.legend(loc="outside upper center", ncols=1, frameon=False)
    return figure


def weak_scaling_figure(found: WeakScaling) -> Figure:
    """Throughput and efficiency against the number of ranks, one line for each overlap.

    Args:
        found: predictions.
    """
    words = {overlap: overlap_words(overlap) for overlap in found.steps}
    figure = new_figure(9.0, 4.6, partial(descriptions.weak_scaling, found, words))
    throughput, efficiency = figure.subplots(1, 2)
    ranks = [step.ranks for step in next(iter(found.steps.values()))]
    throughput.plot(ranks, ranks, ":", color=COLOURS[0], label="as many times as ranks")
    for number, (overlap, steps) in enumerate(found.steps.items(), start=1):
        colour, marker, line = style(number)
        # The first is the broadest, so that it shows below one that lies on it.
        size = max(4, 11 - 3 * number)
        look = {"color": colour, "marker": marker, "linestyle": line, "markersize": size}
        throughput.plot(ranks, [step.speedup for step in steps], label=words[overlap], **look)
        efficiency.plot(ranks, [step.efficiency for step in steps], **look)
    for axes in (throughput, efficiency):
        axes.set_xscale("log", base=2)
        every = max(1, -(-len(ranks) // 6))
        axes.set_xticks(ranks[::every], [str(n) for n in ranks[::every]])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("ranks, each with the same batch")
        axes.grid(**GRID)
    throughput.set_yscale("log", base=2)
    throughput.yaxis.set_major_formatter(FuncFormatter(lambda r, _: f"{r:g}x"))
    throughput.set_ylabel("throughput over one rank")
    efficiency.set_ylim(0, 1.05)
    efficiency.yaxis.set_major_formatter(PercentFormatter(1))
    efficiency.set_ylabel("efficiency")
    figure.legend(
        *throughput.get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False
    )
    _write_beneath(figure, f"Predicted: {found.title or 'data parallel'}", found.assumptions)
    return figure


def plan_figure(plan: Plan, most: int = 8) -> Figure:
    """Memory and parts of the step for the best splits, and some that need too much memory.

    Args:
        plan: of a training.
        most: at most this many splits that fit, and half as many that do not.

    Raises:
        ValueError: no split can be drawn.
    """
    tight = sorted(
        (found for _, _, found in plan.rejected if found is not None),
        key=lambda found: found.memory.total,
    )
    drawn = [*plan.fitting[:most], *tight[: max(1, most // 2)]]
    if not drawn:
        raise ValueError(
            f"{plan.title}: no split comes out even; print(plan) says why. Give another gpus= "
            "or batch="
        )
    figure = new_figure(10.5, 2.9 + 0.48 * len(drawn), partial(descriptions.plan, plan, drawn))
    memory, time = figure.subplots(1, 2, sharey=True)
    _stack(memory, [found.memory.parts for found in drawn])
    _stack(time, [found.times_s if found.fits else {} for found in drawn])
    limit = plan.gpu.limit_bytes
    memory.axvline(limit, color=COLOURS[0], linewidth=1.6, linestyle="--")
    memory.set_xlim(0, 1.12 * max(limit, *(found.memory.total for found in drawn)))
    memory.xaxis.set_major_locator(MaxNLocator(5))
    memory.xaxis.set_major_formatter(FuncFormatter(lambda n, _: gigabytes(n)))
    memory.set_xlabel(f"memory of the fullest GPU (dashed: {gigabytes(limit)} are there)")
    longest = max((found.step_s for found in drawn if found.fits), default=1.0)
    time.set_xlim(0, 1.3 * longest)
    time.xaxis.set_major_formatter(FuncFormatter(lambda t, _: seconds(t)))
    time.set_xlabel("time of a step")
    for row, found in enumerate(drawn):
        text = f"MFU {format_share(round(found.mfu, 3))}" if found.fits else "does not fit"
        at = found.step_s + 0.02 * longest if found.fits else 0.02 * longest
        time.text(at, row, text, va="center", fontsize="small")
    memory.set_yticks(range(len(drawn)), [_label(found) for found in drawn], fontsize="small")
    memory.set_ylim(len(drawn) - 0.4, -0.6)
    for axes in (memory, time):
        axes.grid(**GRID, axis="x")
        axes.set_axisbelow(True)
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(
            *(handles, labels),
            loc="lower left",
            bbox_to_anchor=(0, 1.0),
            ncols=3,
            frameon=False,
            fontsize="small",
        )
    _write_beneath(figure, f"Predicted: {plan.title}", plan.assumptions, width=150)
    return figure


def _label(found: Prediction) -> str:
    split = found.split
    return f"{split}\nmicro-batch {split.microbatch}, {split.recompute}, ZeRO {split.zero}"


def _stack(axes: Axes, rows: Sequence[dict[str, float]]) -> None:
    """Bars of parts, one for each row; parts that no row has are left out."""
    names = [name for name in next((r for r in rows if r), {}) if any(r.get(name) for r in rows)]
    starts = [0.0] * len(rows)
    for name, (colour, pattern) in zip(names, _FILLS, strict=False):
        widths = [row.get(name, 0.0) for row in rows]
        axes.barh(
            range(len(rows)),
            widths,
            left=starts,
            height=0.6,
            color=colour,
            hatch=pattern,
            edgecolor="black",
            linewidth=0.5,
            label=name,
        )
        starts = [start + width for start, width in zip(starts, widths, strict=True)]


def _write_beneath(
    figure: Figure, title: str, assumptions: Sequence[str], width: int = 130
) -> None:
    lines = [line for text in assumptions for line in textwrap.wrap(f"Assumed: {text}", width)]
    # The layout leaves room for a label of the figure, not for loose text.
    figure.supxlabel("\n".join([title, *lines]), fontsize="small", x=0.01, ha="left")
