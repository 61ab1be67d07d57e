"""How often a verdict is wrong, and how often a real difference is found."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

import labkit as lab
from bench.noise import bursts
from bench.peers import NOTES, PYPERF, PYTEST, TIMER, ask
from bench.report import Part, Row, of
from bench.work import KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping

_CLAIM = {"faster": 1, "slower": -1}
_HOW = (
    "Peers: " + "; ".join(f"{name}: {how}" for name, how in NOTES.items()) + ". They get at least "
    "the sampling time that labkit takes for most comparisons, and fewer repetitions. Seconds are "
    "medians over the comparisons, with the start of every process and without the wait for other "
    "timed runs of labkit on this machine; in brackets, how many times labkit's."
)


@dataclass(frozen=True)
class Tally:
    """What came out of repeated comparisons.

    Attributes:
        claims: 1 the second is faster, -1 slower, 0 neither was said.
        times_s: seconds of each comparison.
        refused: how many were refused, as out of reach at that moment; they claim nothing.
    """

    claims: tuple[int, ...]
    times_s: tuple[float, ...]
    refused: int = 0

    def count(self, *wanted: int) -> int:
        """How many comparisons claimed one of these."""
        return sum(claim in wanted for claim in self.claims)

    @property
    def median_s(self) -> float:
        """Of the comparisons that were made."""
        return median(self.times_s) if self.times_s else float("inf")

    def time_text(self, other: Tally | None = None) -> str:
        """The median, and how many times that of another tally."""
        text = f"{self.median_s:.2f} s"
        return text if other is None else f"{text} ({self.median_s / other.median_s:.1f}x)"


def compare_often(kind: str, sizes: tuple[int, int], repetitions: int, **settings: Any) -> Tally:
    """Let labkit compare two functions again and again, each time anew."""
    claims, times_s, refused = [], [], 0
    for _ in range(repetitions):
        first, second = (KINDS[kind](size) for size in sizes)
        try:
            comparison = lab.compare({"first": first, "second": second}, **settings)
        except lab.ResolutionError:
            refused += 1
            claims.append(0)
            continue
        times_s.append(comparison.duration_s)
        claims.append(_CLAIM.get(comparison["second"].verdict.value, 0))
    return Tally(tuple(claims), tuple(times_s), refused)


def ask_often(name: str, kind: str, sizes: tuple[int, int], repetitions: int) -> Tally:
    """Let a peer compare two functions again and again."""
    found = [ask(name, kind, *sizes) for _ in range(repetitions)]
    return Tally(tuple(c for c, _ in found), tuple(s for _, s in found))


def same(*, quick: bool = False) -> Part:
    """Identical code against itself."""
    peers = {TIMER: 3, PYPERF: 1, PYTEST: 1} if quick else {TIMER: 40, PYPERF: 12, PYTEST: 20}
    return compare_same(20 if quick else 200, peers)


def compare_same(repetitions: int, peers: Mapping[str, int]) -> Part:
    """Identical code against itself, so often by labkit and by each peer."""
    sizes = (1000, 1000)
    with bursts():
        mine = compare_often("loop", sizes, repetitions)
        theirs = {name: ask_often(name, "loop", sizes, n) for name, n in peers.items()}
    row = Row(
        "false verdicts on identical code, beside three bursty processes",
        "at most 2 of 200",
        f"{_false(mine)}, {mine.time_text()}",
        # At the full 200; fewer repetitions may not have more either.
        mine.count(1, -1) <= 2,
        {name: f"{_false(tally)}, {tally.time_text(mine)}" for name, tally in theirs.items()},
    )
    notes = "A verdict is false if it says faster or slower. Lower is better. " + _HOW
    return Part("Identical code", (row,), notes)


def _false(tally: Tally) -> str:
    return _with_refused(of(tally.count(1, -1), len(tally.claims)), tally)


def _with_refused(text: str, tally: Tally) -> str:
    return f"{text} ({tally.refused} refused)" if tally.refused else text


@dataclass(frozen=True)
class Case:
    """A real difference: how it is looked for, and what is asked of labkit.

    Attributes:
        what: is compared, in words.
        kind, sizes: the same, for `bench.work`; the second is the slower one.
        found: share of the comparisons that must find it.
        within_s: that the median comparison must stay under, or None.
        settings: of `labkit.compare`.
        noisy: beside three bursty processes.
    """

    what: str
    kind: str
    sizes: tuple[int, int]
    found: float
    within_s: float | None
    settings: dict[str, Any] = field(default_factory=dict)
    noisy: bool = True


_ONE_THREAD = {"threads": 1}
CASES = (
    Case("loop, 3 %", "loop", (1000, 1030), 0.99, 0.5, noisy=False),
    Case("loop, 3 %", "loop", (1000, 1030), 0.99, 1.5),
    Case("product, 3 % more rows", "product", (256, 264), 0.99, 0.5, _ONE_THREAD, noisy=False),
    Case("product, 3 % more rows", "product", (256, 264), 0.99, 1.5, _ONE_THREAD),
    # Long evaluations, so few rounds a second.
    Case(
        "32 products against 33, 3 %, budget 10 s",
        "products",
        (32, 33),
        0.99,
        1.5,
        _ONE_THREAD | {"budget_s": 10},
    ),
    Case("loop, 1 %, resolution 0.005", "loop", (1000, 1010), 0.95, 2.0, {"resolution": 0.005}),
    Case(
        "loop, 0.5 %, resolution 0.0025, budget 10 s",
        "loop",
        (1000, 1005),
        0.90,
        None,
        {"resolution": 0.0025, "budget_s": 10},
    ),
)


def power(*, quick: bool = False) -> Part:
    """Real differences: the second function does a little more."""
    rows = []
    for case in CASES:
        slow_start = case.kind != "loop"  # every process of a peer imports torch
        peers = {TIMER: 20, PYPERF: 3 if slow_start else 6, PYTEST: 3 if slow_start else 6}
        if quick:
            peers = {TIMER: 2} if slow_start or case.noisy else {TIMER: 2, PYPERF: 1, PYTEST: 1}
        rows.append(find(case, 3 if quick else 100, peers))
    notes = (
        "Found: the verdict names the slower one; naming the other one is the wrong way round. "
        "Higher is better. The matrices are float32, 256 by 256, on one thread. Each line is "
        f"{'3' if quick else '100'} comparisons by labkit. " + _HOW
    )
    return Part("Real differences", tuple(rows), notes)


def find(case: Case, repetitions: int, peers: Mapping[str, int]) -> Row:
    """Look for a real difference so often by labkit and by each peer."""
    with bursts() if case.noisy else contextlib.nullcontext():
        mine = compare_often(case.kind, case.sizes, repetitions, **case.settings)
        theirs = {name: ask_often(name, case.kind, case.sizes, n) for name, n in peers.items()}
    target = f"at least {case.found:.0%}"
    if case.within_s is not None:
        target += f", median under {case.within_s} s"
    share = mine.count(-1) / repetitions
    return Row(
        f"{case.what}, {'beside three bursty processes' if case.noisy else 'quiet'}",
        target,
        f"{_found(mine)}, {mine.time_text()}",
        share >= case.found and (case.within_s is None or mine.median_s < case.within_s),
        {name: f"{_found(tally)}, {tally.time_text(mine)}" for name, tally in theirs.items()},
    )


def _found(tally: Tally) -> str:
    text = of(tally.count(-1), len(tally.claims))
    wrong = tally.count(1)
    return _with_refused(f"{text} ({wrong} the wrong way round)" if wrong else text, tally)
