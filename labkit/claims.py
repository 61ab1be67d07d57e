"""Sentences about a result that hold, fail or stay open."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labkit.machines import Machine, machine
from labkit.units import format_bytes, format_ratio, format_share

if TYPE_CHECKING:
    from collections.abc import Callable

    from labkit.results import Comparison

CONFIRMED, REFUTED, INCONCLUSIVE = "CONFIRMED", "REFUTED", "INCONCLUSIVE"
NOT_HERE = "NOT HERE"
NOT_MEASURED = "not measured here"
# What a peak is off by when nothing differs: pages that a library touches for the first time.
_MEMORY_NOISE_BYTES = 2**20
# What a system does by itself keeps no work from its cores.
_HELD = 0.1


@dataclass(frozen=True)
class Claim:
    """A sentence, what was seen, and whether it holds.

    Printing it gives one line: measured numbers first, then the state, then the sentence with
    its threshold, so that a regression test can compare the end and ignore the beginning.

    >>> print(Claim("int8 vs float32", "3.41x [3.20x, 3.60x]", CONFIRMED, "at least 1.5x faster"))
    int8 vs float32: 3.41x [3.20x, 3.60x]  CONFIRMED: at least 1.5x faster
    """

    subject: str
    seen: str
    state: str
    sentence: str
    needs: str = ""
    why: str = ""

    def __bool__(self) -> bool:
        return self.state == CONFIRMED

    def __str__(self) -> str:
        needs = f" (needs {self.needs})" if self.needs else ""
        line = f"{self.subject}: {self.seen}  {self.state}: {self.sentence}{needs}"
        return f"{line}\n    {self.why}" if self.why else line

    def _ipython_display_(self) -> None:
        # The line is already printed; the last expression of a cell must not show it twice.
        return None


def check(
    sentence: str,
    holds: bool | Callable[[], bool | None] | None,  # noqa: FBT001  (the sentence names it)
    *,
    seen: str = "",
    subject: str = "check",
    needs: str | tuple[str, ...] | None = None,
) -> Claim:
    """Print a claim about anything: True CONFIRMED, False REFUTED, None INCONCLUSIVE.

    Args:
        sentence: what is claimed.
        holds: whether it holds; a function is asked only where the machine has what it needs.
        seen: the numbers behind it.
        subject: what it is about.
        needs: what the machine must have, as in `labkit.Machine.has`; without it: NOT HERE.

    >>> claim = check("the loss went down", 0.1 < 2.3, seen="2.30 to 0.10", subject="training")
    training: 2.30 to 0.10  CONFIRMED: the loss went down
    """
    wanted, missing = missing_here(machine(), needs)
    if missing:
        claim = Claim(subject, NOT_MEASURED, NOT_HERE, sentence, wanted, missing)
    else:
        known = holds() if callable(holds) else holds
        state = INCONCLUSIVE if known is None else CONFIRMED if known else REFUTED
        claim = Claim(subject, seen, state, sentence, wanted)
    print(claim)
    return claim


def missing_here(here: Machine | None, needs: str | tuple[str, ...] | None) -> tuple[str, str]:
    """What a claim needs, as one text, and what the machine lacks of it, in sentences."""
    wanted = () if needs is None else (needs,) if isinstance(needs, str) else tuple(needs)
    lacks = [why for need in wanted if here and (why := here.missing(need))]
    return ", ".join(wanted), " ".join(lacks)


def held(comparison: Comparison, cores: int) -> str:
    """What a run lacked that needs so many cores for itself; nothing, where they were free."""
    here, used = comparison.machine, comparison.held_cores
    if here is None or used is None or here.visible_cores - used >= cores - _HELD:
        return ""
    return f"Other programs used {used:.2f} of the {here.visible_cores} cores during this run."


def _state(low: float, high: float, threshold: float) -> str:
    if low >= threshold:
        return CONFIRMED
    return REFUTED if high < threshold else INCONCLUSIVE


def check_claim(
    comparison: Comparison,
    name: str,
    *,
    faster_than: str | None = None,
    slower_than: str | None = None,
    same_as: str | None = None,
    less_memory_than: str | None = None,
    by: float | None = None,
    within: float | None = None,
    needs: str | tuple[str, ...] | None = None,
) -> Claim:
    """Decide a claim; see `labkit.results.Comparison.claim`."""
    given = {
        "faster_than": faster_than,
        "slower_than": slower_than,
        "same_as": same_as,
        "less_memory_than": less_memory_than,
    }
    terms = [(word, other) for word, other in given.items() if other is not None]
    if len(terms) != 1:
        raise ValueError(f"a claim has exactly one of {', '.join(given)}; got {dict(terms)}")
    word, other = terms[0]
    if word == "same_as" and by is not None:
        raise ValueError("same_as takes within=, a share such as 0.05; not by=")
    if word != "same_as" and within is not None:
        raise ValueError(f"{word} takes by=, a factor such as 1.5; not within=")
    if by is not None and not by >= 1:
        raise ValueError(f"by={by}: give a factor of at least 1, such as 1.5")
    if within is not None and not within > 0:
        raise ValueError(f"within={within}: give a share above 0, such as 0.05")

    factor = 1.0 if by is None else by
    subject = f"{name} vs {other}"
    at_least = f"at least {factor:g}x " if by is not None else ""
    share = comparison.resolution if within is None else within
    sentence = {
        "faster_than": f"{at_least}faster",
        "slower_than": f"{at_least}slower",
        "same_as": f"same speed within {format_share(share)}",
        "less_memory_than": f"{at_least}less memory",
    }[word]
    wanted, missing = missing_here(comparison.machine, needs)
    free = re.search(r"(\d+) free cores?", wanted)
    if free and not missing:
        missing = held(comparison, int(free[1]))
    # Without a GPU there is no variant on it, and the claim still says what it would need.
    if missing and not {name, other} <= set(comparison.names):
        return Claim(subject, NOT_MEASURED, NOT_HERE, sentence, wanted, missing)
    ratio = comparison.ratio(name, other)
    seen = f"{format_ratio(ratio.speedup)} {ratio.interval_text}"
    if ratio.failure and not ratio.rounds:
        seen = f"no result ({ratio.failure})"

    if word == "faster_than":
        state = _state(ratio.low, ratio.high, factor)
        if by is None and ratio.low <= 1:
            state = REFUTED if ratio.high <= 1 else INCONCLUSIVE
    elif word == "slower_than":
        state = _state(1 / ratio.high, 1 / ratio.low if ratio.low > 0 else float("inf"), factor)
        if by is None and ratio.high >= 1:
            state = REFUTED if ratio.low >= 1 else INCONCLUSIVE
    elif word == "same_as":
        inside = ratio.low >= 1 / (1 + share) and ratio.high <= 1 + share
        outside = ratio.low > 1 + share or ratio.high < 1 / (1 + share)
        state = CONFIRMED if inside else REFUTED if outside else INCONCLUSIVE
    else:
        mine, theirs = comparison.memory.get(name), comparison.memory.get(other)
        if mine is None or theirs is None:
            state, seen = INCONCLUSIVE, "peak memory was not measured (memory=True measures it)"
        else:
            seen = f"{format_bytes(mine.peak_bytes)} against {format_bytes(theirs.peak_bytes)}"
            gap_bytes = theirs.peak_bytes - max(1.0, factor) * mine.peak_bytes
            near = by is None and abs(gap_bytes) <= _MEMORY_NOISE_BYTES
            near = near or max(mine.peak_bytes, theirs.peak_bytes) <= _MEMORY_NOISE_BYTES
            state = INCONCLUSIVE if near else CONFIRMED if gap_bytes >= 0 else REFUTED

    if missing:
        return Claim(subject, seen, NOT_HERE, sentence, wanted, missing)
    return Claim(subject, seen, state, sentence, wanted)
