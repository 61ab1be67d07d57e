"""The board's figures: machines side by side, guesses against results, facts that divide.

One line for each machine or guess, thirty and more; colours always together with a marker, and
the numbers in text beside each line.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, cast

from labkit.figures import COLOURS, GREY, GRID, new_figure
from labkit.statistics import Verdict
from labkit.units import format_ratio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes

    from labkit.board_views import Row, Seat, View
    from labkit.figures import Picture
    from labkit.results import Ratio

_LOOKS = {
    Verdict.FASTER: (COLOURS[1], ">"),
    Verdict.SLOWER: (COLOURS[2], "<"),
    Verdict.SAME: (COLOURS[0], "s"),
    Verdict.INCONCLUSIVE: (GREY, "o"),
}
_GUESS, _RESULT = (COLOURS[2], "D"), (COLOURS[1], "s")
_HOLLOW = "hollow: with caveats"
_LONGEST = 26
# So many guesses are read aloud.
_TOLD = 3
# Inches: of a figure, and of its axes at least.
_WIDTH, _NARROWEST = 8.6, 3.2
# An end of an interval may lie this many times beyond all speed-ups before it is cut off: one
# machine that knows nothing must not flatten all others.
_BEYOND = 2.0


def forest_figure(view: View) -> Picture:
    """One line a machine: its speed-up, interval and verdict; other runs of it as thin strokes.

    Args:
        view: of `labkit.boards.Board.view`.
    """
    rows = view.rows
    ratios = [row.run.ratio for row in rows if row.run.known]
    seen = dict.fromkeys(ratio.verdict for ratio in ratios)
    keys = [(*_LOOKS[verdict], verdict.value) for verdict in seen]
    if any(row.run.known and row.run.caveats for row in rows):
        keys.append((GREY, "o", _HOLLOW))
    if any(run.known for row in rows for run in row.others):
        keys.append((GREY, "|", "other runs"))
    lines = [(_drawn(row.seat), _numbers(row)) for row in rows]
    axes = _rows_axes(view, lines, keys, view.spread_sentences)
    _set_ratios(axes, ratios, [1.0])
    for place, row in enumerate(rows):
        _draw_row(axes, place, row)
    axes.set_xlabel(f"speed-up of {_cut(view.question.pair)} on each machine")
    return cast("Picture", axes.figure)


def guesses_figure(view: View) -> Picture:
    """One line a guess, the closest first: the guess, and the interval of its result."""
    guesses, first = view.guesses, view.closest
    lines = [
        (
            _drawn(guess.seat) + (f", guess {guess.turn}" if guess.turn else ""),
            "closest, " * (guess in first)
            + f"said {format_ratio(guess.predicted)}: {guess.judged}",
        )
        for guess in guesses
    ]
    keys = [(*_GUESS, "guess"), (*_RESULT, "result, with its interval")]
    told = [f"{guess}." for guess in guesses[:_TOLD]]
    more = [f"{len(guesses) - _TOLD} more guesses are in the table."] * (len(guesses) > _TOLD)
    words = [*view.guess_sentences, *told, *more]
    axes = _rows_axes(view, lines, keys, words)
    ratios = [guess.run.ratio for guess in guesses]
    _set_ratios(axes, ratios, [1.0, *(guess.predicted for guess in guesses)])
    for place, guess in enumerate(guesses):
        ratio = guess.run.ratio
        axes.plot([guess.predicted, ratio.speedup], [place, place], ":", color=GREY, linewidth=1.2)
        _interval(axes, place, ratio, _RESULT[0])
        axes.plot(ratio.speedup, place, _RESULT[1], color=_RESULT[0], markersize=6)
        axes.plot(guess.predicted, place, _GUESS[1], color=_GUESS[0], markersize=7)
    axes.set_xlabel(f"speed-up of {_cut(view.question.pair)}")
    return cast("Picture", axes.figure)


def facts_figure(view: View) -> Picture:
    """Each fact that divides the machines: those with it above those without."""
    lines, groups, ends = [], [], []
    for split in view.splits:
        for word, rows in (("with", split.group), ("without", split.others)):
            low = min(row.run.ratio.low for row in rows)
            high = max(row.run.ratio.high for row in rows)
            name = _cut(f"{word} {split.facts[0]} ({len(rows)})")
            lines.append((name, f"{format_ratio(low)} to {format_ratio(high)}"))
            groups.append(rows)
            ends.append((low, high))
    # So that the intervals of a large group still lie apart.
    height = max(0.6, 0.06 * max(map(len, groups), default=0))
    axes = _rows_axes(view, lines, [], view.fact_sentences, height=height)
    _set_ratios(axes, [row.run.ratio for rows in groups for row in rows], [1.0])
    for place, rows in enumerate(groups):
        colour, marker = ((COLOURS[1], "o"), (COLOURS[2], "s"))[place % 2]
        low, high = ends[place]
        band = (colour, 0.15)
        axes.barh(place, high - low, left=low, height=0.8, facecolor=band, edgecolor=colour)
        for number, row in enumerate(rows):
            # One above the other: equal results must not hide each other.
            at = place - 0.35 + 0.7 * (number + 0.5) / len(rows)
            _interval(axes, at, row.run.ratio, colour, width=1.5)
            axes.plot(row.run.ratio.speedup, at, marker, color=colour, markersize=5)
        if place % 2 and place + 1 < len(groups):
            axes.axhline(place + 0.5, color=GREY, linewidth=0.8)
    axes.set_xlabel(f"speed-up of {_cut(view.question.pair)} on each machine")
    return cast("Picture", axes.figure)


def _rows_axes(
    view: View,
    lines: Sequence[tuple[str, str]],
    keys: Sequence[tuple[str, str, str]],
    words: Sequence[str],
    *,
    height: float = 0.25,
) -> Axes:
    """Axes with a name and a text on the two sides of each line, and a legend.

    Margins are worked out from the lengths of the texts: letting matplotlib find them takes as
    long as all the rest, and a board paints while records arrive.

    Args:
        view: for the title.
        lines: name and text.
        keys: colour, marker and meaning, for the legend.
        words: what the figure shows.
        height: of a line, in inches.
    """
    names, beside = ([_drawable(text) or "?" for text in side] for side in _sides(lines))
    left = 0.2 + 0.083 * max(map(len, names), default=0)
    right = 0.2 + 0.068 * max(map(len, beside), default=0)
    tall, bottom, top = height * max(2, len(names)), 0.55 + 0.35 * bool(keys), 0.35
    wide = max(_NARROWEST, _WIDTH - left - right)
    full, whole = left + wide + right, bottom + tall + top
    figure = new_figure(full, whole, " ".join(words))
    figure.set_layout_engine("none")
    axes = figure.add_axes((left / full, bottom / whole, wide / full, tall / whole))
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(max(2, len(names)) - 0.4, -0.6)
    for place, text in enumerate(beside):
        where = axes.get_yaxis_transform()
        axes.text(1.01, place, text, transform=where, fontsize="small", va="center")
    axes.set_title(_drawable(_cut(view.question.place)) or "?", fontsize="medium")
    for label in (axes.title, *axes.get_yticklabels(), *axes.texts):
        # A name may hold a dollar sign.
        label.set_parse_math(False)
    if not names:
        axes.text(0.5, 0.5, "nothing to show yet", ha="center", transform=axes.transAxes)
    axes.axvline(1, color="black", linewidth=1.2, zorder=1)
    handles = []
    for colour, marker, meaning in keys:
        inside = "white" if meaning == _HOLLOW else colour
        handles += axes.plot([], [], marker, color=colour, markerfacecolor=inside, markersize=7)
        handles[-1].set_label(meaning)
    if handles:
        figure.legend(handles=handles, loc="lower center", ncols=len(handles), frameon=False)
    return axes


def _sides(lines: Sequence[tuple[str, str]]) -> tuple[list[str], list[str]]:
    return [name for name, _ in lines], [text for _, text in lines]


def _numbers(row: Row) -> str:
    ratio = row.run.ratio
    if row.run.known:
        return f"{format_ratio(ratio.speedup)} {ratio.interval_text}"
    return _cut(ratio.failure.reason) if ratio.failure else "no interval yet"


def _draw_row(axes: Axes, place: int, row: Row) -> None:
    run = row.run
    for other in row.others:
        if other.known:
            # Below the line, where the newest run does not hide it.
            axes.plot(other.ratio.speedup, place + 0.3, "|", color=GREY, markersize=6)
    if not run.known:
        return
    colour, marker = _LOOKS[run.ratio.verdict]
    _interval(axes, place, run.ratio, colour)
    axes.plot(
        run.ratio.speedup,
        place,
        marker,
        color=colour,
        markerfacecolor="white" if run.caveats else colour,
        markeredgewidth=1.4,
        markersize=7,
    )


def _interval(axes: Axes, place: float, ratio: Ratio, colour: str, *, width: float = 2) -> None:
    axes.plot(
        [ratio.low, ratio.high],
        [place, place],
        color=colour,
        linewidth=width,
        solid_capstyle="butt",
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


def _set_ratios(axes: Axes, ratios: Sequence[Ratio], others: Sequence[float]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter

    low, high = _limits(ratios, others)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.minorticks_off()
    axes.xaxis.set_major_locator(FixedLocator(_ticks(low, high)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda r, _: f"{r:g}x"))
    axes.grid(axis="x", **GRID)
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
