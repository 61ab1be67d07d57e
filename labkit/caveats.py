"""What weakens a measurement, each with its remedy: the only place where labkit warns."""

from __future__ import annotations

from dataclasses import dataclass

from labkit.units import format_bytes, format_share, format_time


@dataclass(frozen=True)
class Caveat:
    """Something that weakens a measurement.

    Attributes:
        kind: a word to search for, such as "noise".
        text: what was seen, with its number.
        remedy: what to do about it.
        variant: the variant that it concerns; None for the whole comparison.

    >>> print(noise(0.2))
    noise: identical code differs by 20 % from one round to the next. Remedy: close other programs, or give a larger budget_s.
    """

    kind: str
    text: str
    remedy: str
    variant: str | None = None

    def __str__(self) -> str:
        where = f" ({self.variant})" if self.variant else ""
        return f"{self.kind}{where}: {self.text}. Remedy: {self.remedy}."

    def to_dict(self) -> dict[str, str | None]:
        return {
            "kind": self.kind,
            "text": self.text,
            "remedy": self.remedy,
            "variant": self.variant,
        }


def noise(spread: float) -> Caveat:
    return Caveat(
        "noise",
        f"identical code differs by {format_share(spread)} from one round to the next",
        "close other programs, or give a larger budget_s",
    )


def resolution_out_of_reach(asked: float, reachable: float, needed_s: float) -> Caveat:
    return Caveat(
        "resolution",
        f"resolution={asked:g} is finer than this machine can give at this moment in this budget "
        f"(about {reachable:.2g})",
        f"ask for resolution={reachable:.2g}, or budget_s={needed_s:.2g}, or a quieter moment",
    )


def budget_spent(variant: str, rounds: int, width: float, resolution: float) -> Caveat:
    return Caveat(
        "budget",
        f"the budget was spent after {rounds} rounds with an interval {format_share(width)} wide, "
        f"for a resolution of {format_share(resolution)}",
        "give a larger budget_s, or a coarser resolution, or a quieter moment",
        variant,
    )


def too_few_rounds(variant: str, rounds: int, needed: int, needed_s: float) -> Caveat:
    return Caveat(
        "too few rounds",
        f"{rounds} rounds; an interval needs at least {needed}",
        f"give budget_s={needed_s:.2g} or more, or a smaller piece of work",
        variant,
    )


def stopped_early(rounds: int) -> Caveat:
    return Caveat(
        "stopped",
        f"stopped after {rounds} rounds; the intervals are valid, and wider than they could be",
        "run again and let it finish",
    )


def garbage(variant: str, per_evaluation_s: float, share: float) -> Caveat:
    return Caveat(
        "garbage collection",
        f"every evaluation leaves reference cycles, which cost {format_time(per_evaluation_s)} "
        f"({format_share(share)} more) to collect; that is not in the times",
        "break the cycles, or add this cost when you compare",
        variant,
    )


def throttled(share: float) -> Caveat:
    return Caveat(
        "throttled",
        f"the processor quota stopped this container for {format_share(share)} of the run",
        "use fewer threads (threads=1), or ask for a larger quota",
    )


def drift(variant: str, share: float) -> Caveat:
    return Caveat(
        "drift",
        f"the second half of the run is {format_share(share)} away from the first; ratios are "
        "not affected, absolute times are",
        "quote the ratio; for absolute times let the machine warm up and run longer",
        variant,
    )


def memory_unreset(why: str) -> Caveat:
    return Caveat(
        "memory",
        f"the kernel's high-water mark could not be reset ({why}); a peak below an earlier one "
        "is not seen",
        "read it as a lower bound",
    )


def small_memory(variant: str, limit_bytes: int) -> Caveat:
    return Caveat(
        "memory limit",
        f"the process may use {format_bytes(limit_bytes)} at most",
        "use a smaller size",
        variant,
    )
