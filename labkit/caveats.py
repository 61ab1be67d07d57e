"""What weakens a measurement, each with its remedy: the only place where labkit warns."""

from __future__ import annotations

from dataclasses import dataclass

from labkit.units import format_share, format_time


@dataclass(frozen=True)
class Caveat:
    """Something that weakens a measurement.

    Attributes:
        kind: a word to search for, such as "noise".
        text: what was seen, with its number.
        remedy: what to do about it.
        variant: the variant that it concerns; None for the whole comparison.

    >>> print(noise(0.2).remedy)
    close other programs, or give a larger budget_s
    """

    kind: str
    text: str
    remedy: str
    variant: str | None = None

    def __str__(self) -> str:
        where = f" ({self.variant})" if self.variant else ""
        return f"{self.kind}{where}: {self.text}. Remedy: {self.remedy}."

    def to_dict(self) -> dict[str, str | None]:
        """As plain data, for JSON."""
        return {
            "kind": self.kind,
            "text": self.text,
            "remedy": self.remedy,
            "variant": self.variant,
        }


def noise(spread: float) -> Caveat:
    """Identical code differs a lot from round to round."""
    return Caveat(
        "noise",
        f"identical code differs by {format_share(spread)} from one round to the next",
        "close other programs, or give a larger budget_s",
    )


def seconds_to_type(seconds: float) -> str:
    """As somebody would type it: two digits, no exponent.

    >>> seconds_to_type(0.314), seconds_to_type(7.77), seconds_to_type(153_421.2)
    ('0.31', '7.8', '153421')
    """
    return f"{seconds:.2g}" if seconds < 10 else f"{seconds:.0f}"


def resolution_out_of_reach(asked: float, reachable: float, needed_s: float) -> Caveat:
    """The preflight says that the resolution cannot be reached."""
    return Caveat(
        "resolution",
        f"resolution={asked:g} is finer than this machine can give at this moment in this budget "
        f"(about {reachable:.2g})",
        f"{ways_to_resolve(reachable, needed_s)}, or try at a quieter moment",
    )


def ways_to_resolve(reachable: float, needed_s: float) -> str:
    """What to type where a resolution is out of reach.

    >>> ways_to_resolve(0.05, 31.4)
    'give resolution=0.05 or budget_s=31'
    >>> ways_to_resolve(4.8, 1762)
    'give budget_s=1762'
    """
    # A coarser one than 1 is not allowed: it could not tell twice as fast from the same.
    coarser = f"resolution={reachable:.2g} or " if reachable <= 1 else ""
    return f"give {coarser}budget_s={seconds_to_type(needed_s)}"


def budget_spent(variant: str, rounds: int, width: float, resolution: float) -> Caveat:
    """No answer within the budget."""
    return Caveat(
        "budget",
        f"the budget was spent after {rounds} rounds with an interval {format_share(width)} wide, "
        f"for a resolution of {format_share(resolution)}",
        "give a larger budget_s, or a coarser resolution, or a quieter moment",
        variant,
    )


def too_few_rounds(variant: str, rounds: int, needed: int, needed_s: float) -> Caveat:
    """Not enough rounds for an interval."""
    return Caveat(
        "too few rounds",
        f"{rounds} rounds; an interval needs at least {needed}",
        f"give budget_s={seconds_to_type(needed_s)} or more, or a smaller piece of work",
        variant,
    )


def stopped_early(rounds: int) -> Caveat:
    """Somebody pressed Stop."""
    return Caveat(
        "stopped",
        f"stopped after {rounds} rounds; the intervals are valid, and wider than they could be",
        "run again and let it finish",
    )


def garbage(variant: str, per_evaluation_s: float, share: float) -> Caveat:
    """The collector's work is not in the times."""
    return Caveat(
        "garbage collection",
        f"every evaluation leaves reference cycles, which cost {format_time(per_evaluation_s)} "
        f"({format_share(share)} more) to collect; that is not in the times",
        "break the cycles, or add this cost when you compare",
        variant,
    )


def page_faults(variant: str, faults: float, share: float) -> Caveat:
    """The memory of an evaluation is taken from the system and given back, again and again.

    Source: mallopt(3), on M_TRIM_THRESHOLD and M_MMAP_THRESHOLD.
    """
    return Caveat(
        "page faults",
        f"{variant} gets memory from the operating system in every evaluation ({faults:.0f} page "
        f"faults), which had {format_share(share)} of its processor time; how much it gives back "
        "and gets anew depends on what else the process has allocated, so this time can differ "
        "from one process to the next",
        "keep large results from one evaluation to the next (out=), or start Python with "
        "MALLOC_MMAP_MAX_=0 and MALLOC_TRIM_THRESHOLD_=4294967296 to compare without",
        variant,
    )


def throttled(share: float, retaken: int = 0) -> Caveat:
    """The quota of the container was used up."""
    again = f"; {retaken} samples that it stopped were taken again" if retaken else ""
    return Caveat(
        "throttled",
        f"the processor quota stopped this container for {format_share(share)} of the run{again}",
        "use fewer threads (threads=1), or ask for a larger quota",
    )


def waited(share: float) -> Caveat:
    """Threads were ready to run and had no core."""
    return Caveat(
        "busy cores",
        f"the threads of this run waited for a core, together for {format_share(share)} of it; "
        "where several work on one evaluation, one that waits holds up the others, and the "
        "variants with the most threads lose most",
        "close other programs, or give threads=1",
    )


def side_by_side(at_once: int) -> Caveat:
    """The machine was shared with other timed runs, as asked for."""
    return Caveat(
        "side by side",
        f"up to {at_once} timed runs were allowed on this machine at the same time, each on cores "
        "of its own; they share its caches and its memory bandwidth",
        "measure what matters alone, with at_once=1",
    )


def drift(variant: str, share: float) -> Caveat:
    """Absolute times moved during the run."""
    return Caveat(
        "drift",
        f"the second half of the run is {format_share(share)} away from the first; ratios are "
        "not affected, absolute times are",
        "quote the ratio; for absolute times let the machine warm up and run longer",
        variant,
    )


def memory_unreset(why: str) -> Caveat:
    """The peak before the evaluation is not known apart."""
    return Caveat(
        "memory",
        f"the kernel's high-water mark could not be reset ({why}); a peak below an earlier one "
        "is not seen",
        "read it as a lower bound",
    )
