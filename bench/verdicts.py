"""How often a verdict is wrong, and how often a real difference is found."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

import labkit as lab
from bench.noise import bursts
from bench.peers import NOTES, ask
from bench.report import Part, Row, middle_s, of
from bench.work import also_squares, loop, products, squares

if TYPE_CHECKING:
    from collections.abc import Callable

_CLAIM = {"faster": 1, "slower": -1}
BESIDE = "beside three bursty processes"


@dataclass(frozen=True)
class Tally:
    """What came out of repeated comparisons: claims (1, 0, -1) and seconds."""

    claims: tuple[int, ...]
    times_s: tuple[float, ...]

    def count(self, *wanted: int) -> int:
        """How many comparisons claimed one of these."""
        return sum(claim in wanted for claim in self.claims)


def compare_often(
    first: Callable[[], Any], second: Callable[[], Any], repetitions: int, **settings: Any
) -> Tally:
    """Compare two functions again and again, each time anew."""
    claims, times_s = [], []
    for _ in range(repetitions):
        began = time.perf_counter()
        comparison = lab.compare({"first": first, "second": second}, **settings)
        times_s.append(time.perf_counter() - began)
        claims.append(_CLAIM.get(comparison["second"].verdict.value, 0))
    return Tally(tuple(claims), tuple(times_s))


def ask_often(name: str, first_steps: int, second_steps: int, repetitions: int) -> Tally:
    """Let a peer compare two loops again and again."""
    found = [ask(name, first_steps, second_steps) for _ in range(repetitions)]
    return Tally(tuple(c for c, _ in found), tuple(s for _, s in found))


def same(*, quick: bool = False) -> Part:
    """Identical code against itself."""
    repetitions = 20 if quick else 200
    peers = {
        "torch Timer + t-test": 5 if quick else 40,
        "pyperf": 1 if quick else 12,
        "pytest-benchmark": 1 if quick else 20,
    }
    with bursts():
        mine = compare_often(loop(1000), loop(1000), repetitions)
        twins = compare_often(squares(), also_squares(), repetitions)
        said = {name: _false(ask_often(name, 1000, 1000, n)) for name, n in peers.items()}
    row = Row(
        f"false verdicts on identical code, {BESIDE}",
        "at most 2 of 200",
        f"{_false(mine)}; {of(mine.count(0), repetitions)} same or inconclusive",
        mine.count(1, -1) <= 2,
        said,
    )
    apart = Row(
        f"false verdicts on two functions of the same source, {BESIDE}",
        "at most 2 of 200",
        f"{_false(twins)}; {of(twins.count(0), repetitions)} same or inconclusive",
        twins.count(1, -1) <= 2,
    )
    notes = "Peers: " + "; ".join(f"{name}: {how}" for name, how in NOTES.items()) + "."
    return Part("Identical code", (row, apart), notes)


def _false(tally: Tally) -> str:
    return f"{of(tally.count(1, -1), len(tally.claims))}, {middle_s(list(tally.times_s))}"


@dataclass(frozen=True)
class Case:
    """A real difference: how it is looked for, and what is asked of labkit."""

    what: str
    first: Callable[[], Any]
    second: Callable[[], Any]
    steps: tuple[int, int] | None
    found: float
    within_s: float | None
    settings: dict[str, Any] = field(default_factory=dict)
    noisy: bool = True


CASES = (
    Case("loop, 3 %, quiet", loop(1000), loop(1030), (1000, 1030), 0.99, 0.5, noisy=False),
    Case("loop, 3 %, noise", loop(1000), loop(1030), (1000, 1030), 0.99, 1.5),
    Case(
        "32 products against 33 (3.1 %), noise",
        products(32),
        products(33),
        None,
        0.99,
        None,
        {"threads": 1, "budget_s": 10},
    ),
    Case(
        "loop, 1 %, resolution 0.005, noise",
        loop(1000),
        loop(1010),
        (1000, 1010),
        0.95,
        2.0,
        {"resolution": 0.005},
    ),
    Case(
        "loop, 0.5 %, budget 10 s, noise",
        loop(1000),
        loop(1005),
        (1000, 1005),
        0.90,
        None,
        {"resolution": 0.0025, "budget_s": 10},
    ),
)


def power(*, quick: bool = False) -> Part:
    """Real differences: the second function does a little more."""
    repetitions = 5 if quick else 100
    peers = {
        "torch Timer + t-test": 3 if quick else 20,
        "pyperf": 1 if quick else 6,
        "pytest-benchmark": 1 if quick else 6,
    }
    rows = []
    for case in CASES:
        with bursts() if case.noisy else contextlib.nullcontext():
            mine = compare_often(case.first, case.second, repetitions, **case.settings)
            said = {}
            for name, n in peers.items():
                if case.steps is None:
                    continue
                first_steps, second_steps = case.steps
                tally = ask_often(name, first_steps, second_steps, n)
                said[name] = f"{_found(tally)}, {middle_s(list(tally.times_s))}"
        share = mine.count(-1) / repetitions
        fast_enough = case.within_s is None or median(mine.times_s) < case.within_s
        target = f"at least {case.found:.0%}"
        if case.within_s is not None:
            target += f", median under {case.within_s} s"
        rows.append(
            Row(
                f"found: {case.what}",
                target,
                f"{_found(mine)}, {middle_s(list(mine.times_s))}",
                share >= case.found and fast_enough,
                said,
            )
        )
    notes = "Counted as found: the verdict names the slower one. The wrong way round is named."
    return Part("Real differences", tuple(rows), notes)


def _found(tally: Tally) -> str:
    text = of(tally.count(-1), len(tally.claims))
    wrong = tally.count(1)
    return f"{text} ({wrong} the wrong way round)" if wrong else text
