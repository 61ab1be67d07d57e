"""Wrong timers, on purpose: the ways in which a quick look at a clock misleads.

Each is what people really write. They are here, and not in a notebook, so that nobody copies
them; `labkit.compare` is beside each in the first notebook. After Mytkowicz, Diwan, Hauswirth and
Sweeney, "Producing wrong data without doing anything obviously wrong!", ASPLOS 2009, and Kalibera
and Jones, "Rigorous benchmarking in reasonable time", ISMM 2013.
"""

from __future__ import annotations

import contextlib
import functools
import math
import subprocess
import sys
import time
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING, Any

from labkit.machines import machine
from labkit.units import format_ratio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from matplotlib.figure import Figure

    from labkit.results import Comparison

    Function = Callable[[], Any]

# Work in bursts, as a browser, a backup or a neighbour on a shared server has it. It ends when
# the pipe to whoever started it closes.
_NEIGHBOUR = """
import random, select, sys, time
while not select.select([sys.stdin], [], [], random.uniform(0.0, 0.02))[0]:
    end = time.perf_counter() + random.uniform(0.002, 0.05)
    while time.perf_counter() < end:
        sum(range(1000))
"""


def seconds(function: Function) -> float:
    """One look at the clock before, one after."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def one_run(first: Function, second: Function) -> float:
    """Each once: chance decides."""
    return seconds(first) / seconds(second)


def best_of_few(first: Function, second: Function, runs: int = 3) -> float:
    """The best of three: less chance, but still chance, and no word on how much of it."""
    return min(seconds(first) for _ in range(runs)) / min(seconds(second) for _ in range(runs))


def mean_of_few(first: Function, second: Function, runs: int = 10) -> float:
    """The mean of ten: one interruption counts as much as the other nine runs."""
    return mean(seconds(first) for _ in range(runs)) / mean(seconds(second) for _ in range(runs))


def one_after_the_other(first: Function, second: Function, lasts_s: float = 0.3) -> float:
    """All runs of one, then all of the other, while the machine changes between the two."""
    before_s = _mean_over(first, lasts_s)
    with neighbours():
        after_s = _mean_over(second, lasts_s)
    return before_s / after_s


def _mean_over(function: Function, lasts_s: float) -> float:
    runs, began = 0, time.perf_counter()
    while time.perf_counter() - began < lasts_s:
        function()
        runs += 1
    return (time.perf_counter() - began) / runs


@contextlib.contextmanager
def neighbours(count: int | None = None) -> Iterator[None]:
    """Other programs that want the processor too, in bursts, for as long as the block runs.

    Args:
        count: how many; None: one more than the cores that may be used.
    """
    count = machine().usable_threads + 1 if count is None else count
    started = [
        subprocess.Popen(
            [sys.executable, "-S", "-c", _NEIGHBOUR],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(count)
    ]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()


@dataclass(frozen=True)
class NaiveClaims:
    """What a wrong timer says of the same two functions, time after time.

    Attributes:
        timer: its name.
        speedups: what it said, one number a try.
    """

    timer: str
    speedups: tuple[float, ...]

    def off_by(self, share: float) -> int:
        """How many tries claim a difference of more than this share."""
        return sum(not 1 / (1 + share) <= s <= 1 + share for s in self.speedups)

    def __repr__(self) -> str:
        return f"NaiveClaims({self.timer})"

    def __str__(self) -> str:
        low, high = min(self.speedups), max(self.speedups)
        return (
            f"{self.timer}: {format_ratio(low)} to {format_ratio(high)}; more than 2 % apart in "
            f"{self.off_by(0.02)} of {len(self.speedups)} tries"
        )

    def _repr_html_(self) -> str:
        return f'<div class="labkit-result"><p>{self}</p></div><!-- labkit-result -->'


def ask_again(
    timer: Callable[[Function, Function], float], first: Function, second: Function, tries: int = 20
) -> NaiveClaims:
    """Let a wrong timer compare the same two functions again and again.

    >>> def work():
    ...     return sum(range(1000))
    >>> claims = ask_again(one_run, work, work)
    >>> claims, len(claims.speedups)
    (NaiveClaims(one_run), 20)
    """
    name = getattr(timer, "__name__", "timer")
    return NaiveClaims(name, tuple(timer(first, second) for _ in range(tries)))


def naive_figure(claims: Sequence[NaiveClaims], comparison: Comparison) -> Figure:
    """What wrong timers claimed, try by try, above the interval of a comparison.

    Args:
        claims: of several timers.
        comparison: of the same two functions; its second variant is shown.
    """
    from labkit import descriptions
    from labkit.figures import GRID, new_figure, style

    ratio = comparison[comparison.names[1]]
    words = functools.partial(descriptions.naive, claims, comparison)
    figure = new_figure(8.0, 1.3 + 0.5 * (len(claims) + 1), words)
    axes = figure.add_subplot()
    axes.axvline(1, color="black", linewidth=1.2)
    for row, claim in enumerate(claims):
        colour, marker, _ = style(row + 1)
        rows = [row] * len(claim.speedups)
        # Where points lie on each other their rims still show them.
        axes.plot(claim.speedups, rows, marker, mec=colour, mfc=(colour, 0.4))
    low, high = (
        (ratio.low, ratio.high) if math.isfinite(ratio.high) else (ratio.speedup, ratio.speedup)
    )
    axes.plot([low, high], [len(claims)] * 2, color="black", linewidth=4)
    axes.plot(ratio.speedup, len(claims), "o", color="black", mec="white", markersize=8)
    names = [c.timer.replace("_", " ") for c in claims] + ["labkit.compare (interval)"]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xscale("log")
    seen = [s for c in claims for s in c.speedups] + [low, high]
    # The same distance on both sides of 1, and never so near that 1 % fills the picture.
    reach = max(1.5, *(max(s, 1 / s) for s in seen)) * 1.1
    axes.set_xlim(1 / reach, reach)
    ticks = [t for t in (0.01, 0.1, 0.2, 0.5, 0.8, 1, 1.25, 2, 5, 10, 100) if 1 / reach < t < reach]
    if reach > 4:
        ticks = [t for t in ticks if t not in (0.8, 1.25)]
    axes.set_xticks(ticks, [f"{t:g}x" for t in ticks])
    axes.minorticks_off()
    axes.grid(axis="x", **GRID)
    axes.set_xlabel("speed-up that is claimed for identical code")
    return figure
