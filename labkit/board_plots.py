"""The board's figures: machines side by side, guesses against results, facts that divide.

One line for each machine or guess, thirty and more; colours always together with a marker, and
the numbers in text beside each line.
"""

from __future__ import annotations

import math
import textwrap
from functools import cache
from typing import TYPE_CHECKING, cast

from labkit.plots import COLOURS, new_figure
from labkit.statistics import Verdict
from labkit.units import format_ratio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from labkit.boards import Row, Seat, View
    from labkit.results import Ratio

_LOOKS = {
    Verdict.FASTER: (COLOURS[1], ">"),
    Verdict.SLOWER: (COLOURS[2], "<"),
    Verdict.SAME: (COLOURS[0], "s"),
    Verdict.INCONCLUSIVE: ("#666666", "o"),
}
_GUESS = (COLOURS[2], "D")
_GRID = "#dddddd"
_GREY = "#666666"
_LONGEST = 26
# An end of an interval may lie this many times beyond all speed-ups before it is cut off: one
# machine that knows nothing must not flatten all others.
_BEYOND = 2.0


def forest_figure(view: View) -> Figure:
    """One line a machine: its speed-up, interval and verdict; other runs of it as thin strokes.

    Args:
        view: of `labkit.boards.Board.view`.
    """
    rows = view.rows
    axes = _rows_axes(view, [_drawn(row.seat) for row in rows], view.spread_sentences)
    ratios = [row.run.ratio for row in rows if row.run.known]
    low, high = _limits(ratios, [1.0])
    _set_ratios(axes, low, high)
    for place, row in enumerate(rows):
        _draw_row(axes, place, row)
    axes.axvline(1, color="black", linewidth=1.2, zorder=1)
    axes.set_xlabel(f"speed-up of {_cut(view.question.pair)} on each machine")
    seen = dict.fromkeys(ratio.verdict for ratio in ratios)
    handles = [_handle(axes, *_LOOKS[verdict], verdict.value) for verdict in seen]
    if any(row.run.known and row.run.caveats for row in rows):
        handles.append(_handle(axes, _GREY, "o", "hollow: with caveats", hollow=True))
    if any(run.known for row in rows for run in row.others):
        handles.append(_handle(axes, _GREY, "|", "other runs"))
    return _finished(axes, handles)


def guesses_figure(view: View) -> Figure:
    """One line a guess, the closest first: the guess, and the interval of its result."""
    guesses = view.guesses
    names = [_drawn(g.seat) + (f", guess {g.turn}" if g.turn else "") for g in guesses]
    axes = _rows_axes(view, names, [*view.guess_sentences, *(f"{guess}." for guess in guesses)])
    ratios = [guess.run.ratio for guess in guesses]
    low, high = _limits(ratios, [1.0, *(guess.predicted for guess in guesses)])
    _set_ratios(axes, low, high)
    first = view.closest
    for place, guess in enumerate(guesses):
        ratio = guess.run.ratio
        axes.plot([guess.predicted, ratio.speedup], [place, place], ":", color=_GREY, linewidth=1.2)
        _interval(axes, place, ratio, COLOURS[1])
        axes.plot(ratio.speedup, place, "s", color=COLOURS[1], markersize=6)
        axes.plot(guess.predicted, place, _GUESS[1], color=_GUESS[0], markersize=7)
        said = f"said {format_ratio(guess.predicted)}: {guess.judged}"
        _beside(axes, place, f"closest, {said}" if guess in first else said)
    axes.axvline(1, color="black", linewidth=1.2, zorder=1)
    axes.set_xlabel(f"speed-up of {_cut(view.question.pair)}")
    handles = [_handle(axes, _GUESS[0], _GUESS[1], "guess")] if guesses else []
    handles += [_handle(axes, COLOURS[1], "s", "result, with its interval")] if guesses else []
    return _finished(axes, handles)


def facts_figure(view: View) -> Figure:
    """Each fact that divides the machines: those with it above those without."""
    names, groups = [], []
    for split in view.splits:
        for word, rows in (("with", split.group), ("without", split.others)):
            names.append(_cut(f"{word} {split.facts[0]} ({len(rows)})"))
            groups.append(rows)
    axes = _rows_axes(view, names, view.fact_sentences, height=0.5)
    _set_ratios(axes, *_limits([row.run.ratio for rows in groups for row in rows], [1.0]))
    for place, rows in enumerate(groups):
        colour, marker = ((COLOURS[1], "o"), (COLOURS[2], "s"))[place % 2]
        ends = [end for row in rows for end in (row.run.ratio.low, row.run.ratio.high)]
        axes.barh(
            place, max(ends) - min(ends), left=min(ends), height=0.5, color=colour, alpha=0.15
        )
        for number, row in enumerate(rows):
            # One above the other: equal results must not hide each other.
            at = place - 0.2 + 0.4 * (number + 0.5) / len(rows)
            _interval(axes, at, row.run.ratio, colour, width=1.5)
            axes.plot(row.run.ratio.speedup, at, marker, color=colour, markersize=5)
        _beside(axes, place, f"{format_ratio(min(ends))} to {format_ratio(max(ends))}")
        if place % 2 and place + 1 < len(groups):
            axes.axhline(place + 0.5, color=_GREY, linewidth=0.8)
    axes.axvline(1, color="black", linewidth=1.2, zorder=1)
    axes.set_xlabel(f"speed-up of {_cut(view.question.pair)} on each machine")
    return _finished(axes, [])


def _rows_axes(
    view: View, names: Sequence[str], words: Sequence[str], *, height: float = 0.24
) -> Axes:
    figure = new_figure(8.6, 1.5 + max(2, len(names)) * height, " ".join(words))
    axes = figure.add_subplot()
    axes.set_yticks(range(len(names)), names)
    for label in axes.get_yticklabels():
        # A name may hold a dollar sign.
        label.set_parse_math(False)
    axes.set_ylim(len(names) - 0.4, -0.6)
    title = "\n".join(textwrap.wrap(_drawable(view.question.place) or "experiment", 90)[:2])
    axes.set_title(title, fontsize="medium", parse_math=False)
    if not names:
        axes.text(0.5, 0.5, "nothing to show yet", ha="center", transform=axes.transAxes)
    return axes


def _draw_row(axes: Axes, place: int, row: Row) -> None:
    run = row.run
    for other in row.others:
        if other.known:
            axes.plot(other.ratio.speedup, place, "|", color=_GREY, markersize=8, alpha=0.7)
    if not run.known:
        failure = run.ratio.failure
        _beside(axes, place, _cut(failure.reason) if failure else "no interval yet")
        return
    colour, marker = _LOOKS[run.ratio.verdict]
    _interval(axes, place, run.ratio, colour)
    inside = "white" if run.caveats else colour
    axes.plot(
        *(run.ratio.speedup, place, marker),
        color=colour,
        markerfacecolor=inside,
        markeredgewidth=1.4,
        markersize=7,
    )
    _beside(axes, place, f"{format_ratio(run.ratio.speedup)} {run.ratio.interval_text}")


def _interval(axes: Axes, place: float, ratio: Ratio, colour: str, *, width: float = 3) -> None:
    axes.plot(
        [ratio.low, ratio.high],
        [place, place],
        color=colour,
        linewidth=width,
        alpha=0.55,
        solid_capstyle="butt",
    )


def _beside(axes: Axes, place: float, text: str) -> None:
    axes.text(
        1.01,
        place,
        _drawable(text) or "",
        transform=axes.get_yaxis_transform(),
        fontsize="small",
        va="center",
        parse_math=False,
    )


def _limits(ratios: Sequence[Ratio], others: Sequence[float]) -> tuple[float, float]:
    middles = [*(ratio.speedup for ratio in ratios), *others]
    low, high = min(middles), max(middles)
    low = min([low, *(max(ratio.low, low / _BEYOND) for ratio in ratios)])
    high = max([high, *(min(ratio.high, high * _BEYOND) for ratio in ratios)])
    # Equal machines must look equal.
    low, high = min(low, 0.95), max(high, 1.05)
    pad = (high / low) ** 0.06
    return low / pad, high * pad


def _set_ratios(axes: Axes, low: float, high: float) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter

    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.minorticks_off()
    axes.xaxis.set_major_locator(FixedLocator(_ticks(low, high)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda r, _: f"{r:g}x"))
    axes.grid(visible=True, axis="x", color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)


def _ticks(low: float, high: float) -> list[float]:
    """A few round numbers between the two; 1 is among them.

    >>> _ticks(0.4, 6), _ticks(0.93, 1.08), _ticks(0.01, 500)
    ([0.5, 1.0, 2.0, 5.0], [0.95, 1.0, 1.05], [0.01, 0.1, 1.0, 10.0, 100.0])
    """
    choices: list[Sequence[float]] = [(1,), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)]
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for subs in choices:
        ticks = [float(f"{sub * 10.0**e:.3g}") for e in decades for sub in subs]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) >= 4:
            return ticks[:: math.ceil(len(ticks) / 9)] if len(ticks) > 9 else ticks
    step = 0.05 if high / low < 1.3 else 0.1 if high / low < 2 else 0.25
    count = range(math.ceil(low / step), math.floor(high / step) + 1)
    return [float(f"{step * i:.3g}") for i in count]


def _handle(
    axes: Axes, colour: str, marker: str, label: str, *, hollow: bool = False
) -> tuple[object, str]:
    (line,) = axes.plot(
        [],
        [],
        marker,
        color=colour,
        markerfacecolor="white" if hollow else colour,
        markersize=7,
    )
    return line, label


def _finished(axes: Axes, handles: Sequence[tuple[object, str]]) -> Figure:
    figure = cast("Figure", axes.figure)
    if handles:
        lines, labels = zip(*handles, strict=True)
        figure.legend(lines, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 2 * _LONGEST else text[: 2 * _LONGEST - 1] + "…"


def _drawn(seat: Seat) -> str:
    """The label, or the neutral one where the font lacks a letter of the name."""
    text = _drawable(seat.label) or seat.neutral
    if len(text) <= _LONGEST:
        return text
    # The end tells apart what begins alike.
    return f"{text[: _LONGEST - 10]}…{text[-9:]}"


def _drawable(text: str) -> str:
    """The text if the font has all of it; else nothing.

    >>> _drawable("Zoë"), _drawable(chr(0x1F680))
    ('Zoë', '')
    """
    has = _glyphs()
    return text if all(has(ord(letter)) for letter in text) else ""


@cache
def _glyphs() -> Callable[[int], object]:
    from matplotlib import font_manager
    from matplotlib.font_manager import FontProperties

    return font_manager.get_font(font_manager.findfont(FontProperties())).get_char_index
