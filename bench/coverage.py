"""Does the interval contain the truth, also when somebody looks all the time?"""

from __future__ import annotations

import math
import timeit
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import labkit as lab
from bench.noise import bursts
from bench.report import Part, Row, of
from bench.work import loop, wait
from labkit import statistics

if TYPE_CHECKING:
    from collections.abc import Callable

_RATIO = 1.1
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Truth:
    """A ratio that is known to lie between two numbers, which are close together."""

    low: float
    high: float

    def is_in(self, low: float, high: float) -> bool:
        """Whether an interval can contain it."""
        return low <= self.high and high >= self.low

    def is_always_in(self, log_ratios: tuple[float, ...], alpha: float) -> bool:
        """The same for the interval after every round, from the first to the last."""
        for rounds in range(statistics.minimum_rounds(alpha), len(log_ratios) + 1):
            low, high = statistics.interval(log_ratios[:rounds], alpha=alpha)
            if not self.is_in(math.exp(low), math.exp(high)):
                return False
        return True


def wait_truth() -> Truth:
    """A wait ends at the first look at the clock after its time, up to 0.3 µs late."""
    return Truth(100 / 110, 100.3 / 110.3)


def loop_truth(turns: int = 1000) -> Truth:
    """The ratio of both loops: the median over many turns of timeit for both, to 0.1 %."""
    timers = [timeit.Timer(loop(steps)) for steps in (1000, 1100)]
    ratios = []
    for turn in range(turns):
        # Who goes first changes from turn to turn.
        order = (0, 1) if turn % 2 else (1, 0)
        took_s = {which: timers[which].timeit(50) for which in order}
        ratios.append(took_s[0] / took_s[1])
    ratio = median(ratios)
    return Truth(ratio / 1.001, ratio * 1.001)


def coverage(*, quick: bool = False) -> Part:
    """Intervals of known ratios."""
    repetitions = 10 if quick else 100
    # Before there is noise.
    loops = loop_truth()
    same = loop(1000)
    rows = [
        _row("waits of 100 and 110 µs", wait(100), wait(110), wait_truth(), repetitions),
        _row("loops of 1000 and 1100 steps", loop(1000), loop(1100), loops, repetitions),
        # One object under two names: whatever differs between the rounds is noise.
        _row(
            "planted ratio in the noise of this machine",
            same,
            same,
            Truth(1 / _RATIO, 1 / _RATIO),
            repetitions,
            planted=_RATIO,
        ),
    ]
    notes = (
        "Waits are over when the clock says so: their ratio is known to 0.03 %. The ratio of the "
        "loops is the median over 1000 turns of timeit for both, on the quiet machine, and taken "
        "as known to 0.1 %. Planted: the rounds of identical code beside noise, one side made 1.1 "
        "times as long. At every moment: the interval after each round of the run, all of them. "
        "Refused: the machine was so busy that labkit gave no interval."
    )
    return Part("Coverage of the 95 % interval", tuple(rows), notes)


def _row(
    what: str,
    first: Callable[[], None],
    second: Callable[[], None],
    truth: Truth,
    repetitions: int,
    *,
    planted: float = 1.0,
) -> Row:
    inside = always = refused = 0
    with bursts():
        for _ in range(repetitions):
            try:
                # A fine resolution, so that runs are long and there is much to look at.
                ratio = lab.compare(
                    {"first": first, "second": second}, budget_s=1.0, resolution=0.004
                )["second"]
            except lab.ResolutionError:
                refused += 1
                continue
            rounds = tuple(r - math.log(planted) for r in ratio.log_ratios)
            alpha = 1 - ratio.confidence
            low, high = statistics.interval(rounds, alpha=alpha)
            inside += truth.is_in(math.exp(low), math.exp(high))
            always += truth.is_always_in(rounds, alpha)
    given = repetitions - refused
    text = f"{of(inside, given)} at the end, {of(always, given)} at every moment"
    return Row(
        what,
        "at least 95 %, also at every moment",
        f"{text}; {refused} refused" if refused else text,
        given > 0 and min(inside, always) >= _CONFIDENCE * given,
    )
