"""Results as figures.

A figure is a `matplotlib.figure.Figure` painted by Agg: pyplot keeps global state that callbacks
on several threads corrupt. The background is white on purpose: it stays readable on a page of
any theme. Colours are those of Okabe and Ito (2008, "Color Universal Design"), always together
with a marker and a line style; orange and sky blue are darker than theirs, so that lines stand
out from white by 3 to 1 (WCAG 2.2, 1.4.11). Texts are black, or dark enough for 4.5 to 1.
"""

from __future__ import annotations

import base64
import io
import math
import textwrap
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.ticker import (
    EngFormatter,
    FixedLocator,
    FuncFormatter,
    MaxNLocator,
    MultipleLocator,
)

from labkit import descriptions, statistics
from labkit.pareto import QUALITY, SIZE, frontier, placed
from labkit.units import format_bytes, format_count, format_ratio, format_time

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.typing import ColorType

    from labkit.ledger import MemoryLedger
    from labkit.results import Comparison, Ratio
    from labkit.sensitivity import Sensitivity
    from labkit.sweeps import Sweep

COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#C48700", "#3A97D0")
# Not as many as colours, so that the fifteenth variant still has a look of its own.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
LINES = ("-", "--", "-.", ":")
_GREY = "#666666"
_FAILED = "#A00000"
# What is too small to matter; its border is dark enough to be seen.
_BAND: dict[str, Any] = {"facecolor": "#dddddd", "edgecolor": _GREY, "linewidth": 0.6, "zorder": 0}
# More dots than this hide each other and cost time to draw.
_DOTS = 250
# Behind a text that lines may run through.
_PLATE = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}


def style(number: int) -> tuple[str, str, str]:
    """Colour, marker and line style of the variant with this number."""
    return (
        COLOURS[number % len(COLOURS)],
        MARKERS[number % len(MARKERS)],
        LINES[number % len(LINES)],
    )


def ink(colour: str) -> str:
    """Black or white, whichever is easier to read on a colour.

    >>> ink("#0072B2"), ink("#C48700")
    ('white', 'black')
    """
    on_white, on_black = contrast(colour, "white"), contrast(colour, "black")
    return "white" if on_white >= on_black else "black"


def contrast(one: ColorType, other: ColorType) -> float:
    """The contrast ratio of two colours, from 1 to 21 (WCAG 2.2, definition of contrast ratio).

    Args:
        one: anything that matplotlib takes for a colour; what is transparent is seen on white.
        other: likewise.

    >>> round(contrast("black", "white")), round(contrast("#767676", "white"), 2)
    (21, 4.54)
    """
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: ColorType) -> float:
    """Relative luminance of a colour of sRGB (WCAG 2.2)."""
    *rgb, alpha = to_rgba(colour)
    seen = [alpha * c + 1 - alpha for c in rgb]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in seen)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


class Picture(Figure):
    """A figure that a notebook shows by itself, also where pyplot was never imported.

    JupyterLab gives a PNG no alternative text, whatever its metadata say (seen in 4.6), so the
    picture comes as HTML, with the text for a screen reader and once more, folded, for everybody.
    What cannot show HTML takes the PNG.
    """

    _describe: Callable[[], str] | str = ""

    @property
    def description(self) -> str:
        """What it shows, in a few sentences with the main numbers."""
        text = self._describe if isinstance(self._describe, str) else self._describe()
        # One line: it stands in an attribute, and in the text of a saved output.
        return " ".join(text.split())

    def _repr_png_(self) -> bytes:
        return to_png(self)

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        text = self.description
        png = base64.b64encode(to_small_png(self)).decode()
        # The class marks measured output, as in labkit.tables.
        html = (
            f'<div class="labkit-result">{_image(png, text)}<details><summary>This plot in words'
            f"</summary><p>{escape(text)}</p></details></div><!-- labkit-result -->"
        )
        data = {"text/plain": f"Picture: {text}", "text/html": html, "image/png": png}
        return data, {"image/png": {"alt": text}}

    def html(self) -> str:
        """The picture with its description, for a page."""
        return _image(base64.b64encode(to_small_png(self)).decode(), self.description)


def _image(png: str, text: str) -> str:
    return f'<img alt="{escape(text)}" src="data:image/png;base64,{png}">'


def new_figure(width: float, height: float, describe: Callable[[], str] | str = "") -> Picture:
    """An empty figure on its own canvas.

    Args:
        width: in inches.
        height: in inches.
        describe: what it is going to show, in words (see `labkit.descriptions`); a function is
            asked when somebody wants the words, not each time that a live plot is painted.
    """
    figure = Picture(figsize=(width, height), dpi=100, facecolor="white", layout="constrained")
    figure._describe = describe  # noqa: SLF001 - matplotlib copies and pickles by attributes
    FigureCanvasAgg(figure)
    return figure


def to_png(figure: Figure) -> bytes:
    """The figure as a PNG picture.

    Half the time of ``savefig``, which draws everything twice.
    """
    buffer = io.BytesIO()
    imsave(buffer, _painted(figure), format="png", pil_kwargs={"compress_level": 3})
    return buffer.getvalue()


def to_small_png(figure: Figure) -> bytes:
    """The figure as a PNG picture of 256 colours, a third of the bytes, for a saved notebook."""
    from PIL import Image

    # Nothing is transparent: every figure here has a background.
    painted = Image.fromarray(_painted(figure)).convert("RGB")
    buffer = io.BytesIO()
    painted.quantize(256, dither=Image.Dither.NONE).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def _painted(figure: Figure) -> np.ndarray[Any, Any]:
    """Red, green, blue and opacity of every pixel."""
    canvas = figure.canvas
    if not isinstance(canvas, FigureCanvasAgg):
        canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]


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
    intervals = _fixed_axes(
        3.8, height, partial(descriptions.intervals, comparison), left=0.85, top=top
    )
    _draw_narrowing(intervals, comparison)
    labels = [line for label in _row_labels(comparison) for line in label.split("\n")]
    left = min(1.6, max(0.8, 0.2 + 0.083 * max(len(label) for label in labels)))
    times = _fixed_axes(3.2, height, partial(descriptions.times, comparison), left=left)
    _draw_times(times, comparison)
    _name_rows(times, comparison)
    drawn = [intervals, times]
    if comparison.memory:
        memory = _fixed_axes(2.7, height, partial(descriptions.memory, comparison), left=left)
        _draw_memory(memory, comparison, ticks=1)
        _name_rows(memory, comparison, times=False)
        memory.set_xlabel("peak memory")
        drawn.append(memory)
    if len(placed(comparison)) > 1:
        words = partial(descriptions.pareto, comparison, QUALITY, SIZE)
        drawn.append(_fixed_axes(6.4, height, words, left=0.85, top=0.3, right=2.6))
        _draw_pareto(drawn[-1], comparison)
    return [cast("Picture", axes.figure) for axes in drawn]


def pareto_figure(comparison: Comparison, quality: str = QUALITY, size: str = SIZE) -> Figure:
    """Time against quality, the area as the size, the frontier marked.

    Args:
        comparison: whose variants bring along how good and how large they are.
        quality: the name of the first number; more is better.
        size: the name of the second, in bytes.

    Raises:
        ValueError: fewer than two variants have a time and a quality.
    """
    if len(placed(comparison, quality)) < 2:
        known = list(dict.fromkeys(m for t in comparison.trials.values() for m in t.metrics))
        raise ValueError(
            f"fewer than two variants have a time and {quality!r}; their metrics are {known}: "
            "give labkit.Variant(..., metrics={...})"
        )
    height = max(3.6, 1.0 + 0.3 * len(comparison))
    words = partial(descriptions.pareto, comparison, quality, size)
    axes = _fixed_axes(8.2, height, words, left=0.85, top=0.3, right=2.9)
    _draw_pareto(axes, comparison, quality, size)
    return cast("Figure", axes.figure)


def _fixed_axes(
    width: float,
    height: float,
    describe: Callable[[], str],
    *,
    left: float,
    top: float = 0.6,
    right: float = 0.2,
) -> Axes:
    figure = new_figure(width, height, describe)
    figure.set_layout_engine("none")
    bottom = 0.55
    box = (left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height)
    return figure.add_axes(box)


def sweep_figure(sweep: Sweep) -> Picture:
    """Time, speed-up and peak memory (where measured) against the first swept parameter."""
    measured = sweep.comparisons
    with_memory = any(c.memory for c in measured)
    rows = 3 if with_memory else 2
    figure = new_figure(7.5, 1.0 + 2.5 * rows, partial(descriptions.sweep, sweep))
    axes = list(figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0])
    axis = sweep.swept[0]
    values = list(dict.fromkeys(p.parameters[axis] for p in sweep.points))
    place = _set_parameter_axis(axes[-1], axis, values)
    for i, (label, part) in enumerate(sweep.slices):
        for name in part.names:
            number = sweep.names.index(name)
            colour, marker, line = style(number)
            look = {"color": colour, "marker": marker, "linestyle": line, "markersize": 5}
            if label:
                look["linestyle"] = LINES[i % len(LINES)]
            look["label"] = " ".join(filter(None, [_short(name, 24), label]))
            _draw_series(axes, part, name, place, look)
    axes[0].set_ylabel("time per evaluation")
    axes[1].set_ylabel(f"speed-up over {_short(sweep.names[0], 18)}" if measured else "speed-up")
    axes[1].axhline(1, color=COLOURS[0], linewidth=1.2)
    _set_time_axis(axes[0], "y", [t.median_s for c in measured for t in c.trials.values()])
    ratios = [r for c in measured for r in c.ratios.values() if r.rounds]
    ends = [end for r in ratios for end in (r.low, r.high) if math.isfinite(r.high)]
    _set_ratio_axis(axes[1], "y", [1.0, *(r.speedup for r in ratios), *ends])
    if with_memory:
        axes[2].set_ylabel("peak memory")
        largest = max(2**20, *(m.peak_bytes for c in measured for m in c.memory.values()))
        _set_bytes_axis(axes[2].yaxis, largest, 2)
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
        each.grid(visible=True, color="#dddddd", linewidth=0.6)
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
    axes.grid(visible=True, color="#dddddd", linewidth=0.6)
    # As many columns as fit: a character takes a twelfth of an inch, a line and its gaps one.
    widest = 1 + max(len(name) for name in curves) / 12
    columns = max(1, min(4, len(curves), int(7.0 / widest)))
    figure.legend(loc="outside upper center", ncols=columns, frameon=False)
    return figure


def sensitivity_figure(found: Sensitivity) -> Figure:
    """The quality with one layer changed: a line for each change, over the layers."""
    figure = new_figure(7.0, 3.6, partial(descriptions.sensitivity, found))
    axes = figure.add_subplot()
    layers = list(found.alone)
    axes.axhline(found.quality, color=COLOURS[0], linewidth=1.2, label="nothing changed")
    for number, name in enumerate(found.shares, start=1):
        colour, marker, line = style(number)
        axes.plot([found.alone[layer][name] for layer in layers], line, marker=marker, color=colour)
        axes.lines[-1].set_label(name)
    labels = [f"{_cut(n, 14)}\n{format_bytes(found.bytes_of[n])}" for n in layers]
    axes.set_xticks(range(len(layers)), labels, fontsize="small")
    axes.set_xlabel("the layer that is changed, and its weights")
    axes.set_ylabel("quality")
    axes.grid(visible=True, color="#dddddd", linewidth=0.6)
    figure.legend(loc="outside upper center", ncols=min(4, 1 + len(found.shares)), frameon=False)
    return figure


def ledger_figure(ledger: MemoryLedger) -> Figure:
    """Predicted and measured bytes of each part, and all of them over the steps."""
    figure = new_figure(9.0, 3.6, partial(descriptions.ledger, ledger))
    parts, times = figure.subplots(1, 2)
    names = list(ledger.predicted.parts)
    largest = max(*ledger.predicted.parts.values(), *ledger.measured.parts.values(), 2**20)
    for number, (label, side) in enumerate(
        (("predicted", ledger.predicted), ("measured", ledger.measured)), start=1
    ):
        colour, marker, line = style(number)
        rows = [row + 0.4 * (number - 1.5) for row in range(len(names))]
        parts.barh(rows, list(side.parts.values()), height=0.36, color=colour, label=label)
        held = [n for _, n in side.timeline]
        if number == 1:
            # Broad and pale, so that it shows below a measurement that lies on it.
            times.plot(held, color=colour, linewidth=7, alpha=0.75)
        else:
            times.plot(held, line, marker=marker, color=colour, markersize=5)
    parts.set_yticks(range(len(names)), names)
    parts.invert_yaxis()
    parts.set_xlim(0, largest * 1.05)
    _set_bytes_axis(parts.xaxis, largest, 2)
    top = max(n for side in (ledger.predicted, ledger.measured) for _, n in side.timeline)
    times.set_ylim(0, top * 1.1)
    _set_bytes_axis(times.yaxis, top, 2)
    phases = [phase for phase, _ in ledger.measured.timeline]
    times.set_xticks(range(len(phases)), phases, rotation=45, ha="right", fontsize="small")
    times.set_ylabel("held after the phase")
    for axes in (parts, times):
        axes.grid(visible=True, color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
    figure.legend(
        *parts.get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False
    )
    return figure


def _title(title: str, values: str, width: int) -> str:
    return "\n".join(textwrap.wrap(f"{title} ({values})" if values else title, width))


def _short(text: str, width: int) -> str:
    return textwrap.shorten(text, width, placeholder="…") if " " in text else _cut(text, width)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


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
    _set_time_axis(axes, "x", seen)
    axes.set_xlabel("time (dots: samples)")
    axes.grid(visible=True, axis="x", color="#dddddd", linewidth=0.6)


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
    _set_ratio_axis(axes, "x", seen)
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
    _set_bytes_axis(axes.xaxis, largest, ticks)
    axes.set_xlabel("peak memory above the start")


def _has_long_names(comparison: Comparison) -> bool:
    """Whether the names need a line of the legend each, and there are few enough for that."""
    return len(comparison) <= 8 and max(len(name) for name in comparison.names) > 8


def _draw_narrowing(axes: Axes, comparison: Comparison) -> None:
    # Two labels stand side by side where they are short; three lines have room above the axes.
    long = _has_long_names(comparison)
    width = 22 if long else 9
    axes.axhline(1, color=COLOURS[0], linewidth=1.2, label=_cut(comparison.baseline, width))
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
        label = f"{_cut(name, width)} {format_ratio(ratio.speedup)}"
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
    _set_ratio_axis(axes, "y", seen)
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
        label = _cut(name, 24)
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
        color=_GREY,
        linewidth=1.2,
        linestyle="--",
        label="frontier",
        zorder=0,
    )
    _set_time_axis(axes, "x", [seconds for seconds, _ in at.values()], most=5)
    values = [value for _, value in at.values()]
    pad = max(0.2 * (max(values) - min(values)), 0.005)
    axes.set_ylim(min(values) - pad, max(values) + pad)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("time per evaluation")
    axes.set_ylabel(f"{quality} (area: size)" if math.isfinite(largest) else quality)
    axes.grid(visible=True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.legend(
        loc="center left",
        bbox_to_anchor=(1.02, 0.5),
        frameon=False,
        fontsize="small",
        borderaxespad=0.2,
    )


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
            axes[1].axvline(where, color=_GREY, linestyle=":", linewidth=1.2)
            axes[1].annotate(
                f"{sweep.swept[0]} = {where:.3g}",
                # One above the other: several variants may cross close together.
                (where, 0.02 + 0.07 * len(axes[1].texts)),
                xycoords=("data", "axes fraction"),
                xytext=(3, 0),
                textcoords="offset points",
                color=_GREY,
                fontsize="small",
            )
    peaks = [(x, c.memory[name].peak_bytes) for x, c in series if name in c.memory]
    if peaks and len(axes) > 2:
        axes[2].plot(*zip(*peaks, strict=True), **look)


def _set_parameter_axis(axes: Axes, name: str, values: list[Any]) -> dict[Any, float]:
    """Where each value of the swept parameter stands; logarithmic where that fits."""
    axes.set_xlabel(name)
    numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(values):
        axes.set_xticks(range(len(values)), [_short(str(v), 14) for v in values])
        axes.set_xlim(-0.4, len(values) - 0.6)
        return {v: float(i) for i, v in enumerate(values)}
    low, high = min(numbers, default=0.0), max(numbers, default=0.0)
    if low > 0 and high / low >= 8:
        axes.set_xscale("log")
        axes.minorticks_off()
        if len(values) <= 8:
            axes.set_xticks(numbers, [_tick(v) for v in values])
    return dict(zip(values, numbers, strict=True))


def _tick(value: float) -> str:
    """A parameter as it was given, where that is not too long to stand beside others."""
    if isinstance(value, int):
        return str(value) if value < 10**7 else format_count(value)
    return f"{value:g}"


def _set_bytes_axis(axis: Axis, largest: int, ticks: int) -> None:
    # Steps of a power of two: 256 KiB, 512 KiB, not 195 KiB, 391 KiB.
    axis.set_major_locator(MultipleLocator(2 ** math.floor(math.log2(largest / ticks))))
    axis.set_major_formatter(FuncFormatter(lambda n, _: format_bytes(n)))


def _axis(axes: Axes, which: str) -> Axis:
    return axes.xaxis if which == "x" else axes.yaxis


def _set_limits(axes: Axes, which: str, low: float, high: float, *, log: bool) -> None:
    if log:
        pad = (high / low) ** 0.08
        low, high = low / pad, high * pad
    else:
        pad = 0.08 * (high - low)
        low, high = low - pad, high + pad
    if which == "x":
        axes.set_xscale("log" if log else "linear")
        axes.set_xlim(low, high)
    else:
        axes.set_yscale("log" if log else "linear")
        axes.set_ylim(low, high)
    # Also half of the time that an axis takes to draw.
    axes.minorticks_off()


def _set_log_ticks(axes: Axes, which: str, low: float, high: float, most: int) -> None:
    """Powers of ten, or 1, 2 and 5 of each where there are few of them; never too many."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    ticks: list[float] = []
    for subs in ((1,), (1, 2, 5)):
        ticks = [sub * 10.0**e for e in range(first, last + 1) for sub in subs]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) >= 3 or (len(ticks) == 2 and most <= 3):
            break
    _axis(axes, which).set_major_locator(FixedLocator(ticks[:: math.ceil(len(ticks) / most)]))


def _set_time_axis(axes: Axes, which: str, seen_s: list[float], *, most: int | None = None) -> None:
    seen_s = [s for s in seen_s if s > 0 and math.isfinite(s)]
    if seen_s:
        low, high = min(seen_s), max(seen_s)
        log = high / low > 8
        if not log:
            low = 0.0 if which == "y" or low < 0.5 * high else low
            high = high if high > low else 1.1 * high
        _set_limits(axes, which, low, high, log=log)
        if log:
            _set_log_ticks(axes, which, low, high, most or (3 if which == "x" else 6))
        else:
            _axis(axes, which).set_major_locator(MaxNLocator(most or (2 if which == "x" else 4)))
            if low == 0.0:
                axes.set_xlim(left=0) if which == "x" else axes.set_ylim(bottom=0)
    else:
        _axis(axes, which).set_ticks([])
    _axis(axes, which).set_major_formatter(EngFormatter(unit="s"))


def _set_ratio_axis(axes: Axes, which: str, seen: list[float]) -> None:
    seen = [r for r in seen if r > 0 and math.isfinite(r)]
    low, high = min(seen), max(seen)
    log = high / low > 3
    # Identical code must look identical: never zoom in so far that 1 % fills the axis.
    low, high = min(low, 0.95), max(high, 1.05)
    _set_limits(axes, which, low, high, log=log)
    if log:
        _set_log_ticks(axes, which, low, high, 5)
    else:
        _axis(axes, which).set_major_locator(MaxNLocator(5))
    _axis(axes, which).set_major_formatter(FuncFormatter(lambda r, _: f"{r:g}x"))
