"""Which recorded facts of machines go with the differences of their speed-ups.

No model is fitted: thirty machines are few, and they differ in many things at once. A fact counts
where it divides the machines into two groups whose intervals do not overlap. How often chance
alone would do that is counted, not estimated: there are ``C(n, k)`` ways to deal ``n`` speed-ups
to groups of ``k`` and ``n - k`` machines, and two of them are in order (the exact permutation test
of Fisher, "The Design of Experiments", 1935). The chances of all divisions that were looked at are
added up (Bonferroni).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labkit.units import format_ratio, format_share

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from labkit.board_views import Row

# Any machine differs from all others in something.
_SMALLEST_GROUP = 2
_RARE = 0.05
_FACTS_AT_MOST = 4
_SPLITS_AT_MOST = 3


@dataclass(frozen=True)
class Split:
    """A division of the machines that goes with their speed-ups.

    Attributes:
        facts: all that the first group shares and the others lack; they cannot be told apart.
        group, others: the machines, those with the fact first.
        looked_at: how many divisions by facts there were.
        chance: probability that at least one of them looks like this by chance, at most.
    """

    facts: tuple[str, ...]
    group: tuple[Row, ...]
    others: tuple[Row, ...]
    looked_at: int
    chance: float

    @property
    def sentences(self) -> list[str]:
        """For people."""
        first = self.facts[0]
        with_it, without_it = (
            f"{'both' if len(rows) == 2 else f'all {len(rows)}'} {{}}: {_range(rows)}"
            for rows in (self.group, self.others)
        )
        line = f"{with_it.format(f'machines with {first}')}; {without_it.format('without')}."
        lines = [line[0].upper() + line[1:]]
        if len(self.facts) > 1:
            more = len(self.facts) - 1 - _FACTS_AT_MOST
            same = [*self.facts[1 : 1 + _FACTS_AT_MOST], *([f"{more} more"] if more > 0 else [])]
            lines.append(
                f"The same machines have {'; '.join(same)}: these records cannot tell which of "
                "the facts matters."
            )
        share = format_share(float(f"{self.chance:.1g}"))
        looked = f"{self.looked_at} {'division' if self.looked_at == 1 else 'divisions'}"
        lines.append(
            f"With {len(self.group) + len(self.others)} machines and {looked} looked at, chance "
            + (
                "alone may do this."
                if self.chance >= 1
                else f"alone would do this in at most {share} of all cases."
                if self.chance <= _RARE
                else f"alone would do this in up to {share} of all cases: it may be chance."
            )
        )
        return lines


def splits_of(rows: Sequence[Row]) -> tuple[Split, ...]:
    """The divisions by a fact whose two groups have intervals that do not overlap.

    Args:
        rows: one for each machine, each with an interval.

    Returns:
        The best told first; none where there are fewer than two machines on each side.
    """
    divisions: dict[frozenset[int], list[str]] = {}
    everybody = frozenset(range(len(rows)))
    for with_it, without_it, members in _facts(rows):
        if min(len(members), len(rows) - len(members)) < _SMALLEST_GROUP:
            continue
        # A fact and its opposite are one division.
        if everybody - members in divisions:
            divisions[everybody - members].append(without_it)
        else:
            divisions.setdefault(members, []).append(with_it)
    chance = min(1.0, sum(2 / math.comb(len(rows), len(side)) for side in divisions))
    found = []
    for side, facts in divisions.items():
        group = tuple(rows[i] for i in sorted(side))
        others = tuple(rows[i] for i in sorted(everybody - side))
        gap = _gap(group, others)
        if gap > 1:
            found.append((gap, Split(tuple(facts), group, others, len(divisions), chance)))
    found.sort(key=lambda pair: -pair[0])
    return tuple(split for _, split in found[:_SPLITS_AT_MOST])


def _gap(one: Sequence[Row], other: Sequence[Row]) -> float:
    """The factor between the intervals of two groups; below 1 where they overlap."""
    (low, high), (other_low, other_high) = _ends(one), _ends(other)
    return max(low / other_high, other_low / high)


def _ends(rows: Sequence[Row]) -> tuple[float, float]:
    return min(r.run.ratio.low for r in rows), max(r.run.ratio.high for r in rows)


def _range(rows: Sequence[Row]) -> str:
    low, high = _ends(rows)
    return f"between {format_ratio(low)} and {format_ratio(high)}"


def _facts(rows: Sequence[Row]) -> Iterator[tuple[str, str, frozenset[int]]]:
    """What may divide the machines: the fact in words, its opposite, and who has it."""
    machines = [row.seat.machine for row in rows]
    here = [m for m in machines if m is not None]
    if len(here) < len(machines):
        return

    def having(holds: Callable[[int], bool]) -> frozenset[int]:
        return frozenset(i for i in range(len(rows)) if holds(i))

    def by_size(name: str, values: Sequence[Any], show: Callable[[Any], str]) -> Iterator[Any]:
        if None in values:  # not known of all
            return
        for least in sorted(set(values))[1:]:
            members = having(lambda i, least=least: values[i] >= least)  # type: ignore[misc]
            yield f"at least {show(least)} {name}", f"less than {show(least)} {name}", members

    def by_kind(name: str, values: Sequence[Any]) -> Iterator[Any]:
        if None in values:
            return
        for kind in sorted(set(values)):
            members = having(lambda i, kind=kind: values[i] == kind)  # type: ignore[misc]
            yield f"{name} {kind}", f"another {name} than {kind}", members

    def by_flag(name: str, values: Sequence[Any]) -> Iterator[Any]:
        if None not in values:
            yield name, f"no {name}", having(lambda i: bool(values[i]))

    if all(m.isa for m in here):  # an empty one says nothing
        for word in dict.fromkeys(word for m in here for word in m.isa):
            yield from by_flag(word, [word in m.isa for m in here])
    for name in sorted({name for m in here for name in m.limits}):
        yield from by_flag(f"limit {name}", [name in m.limits for m in here])
        for value in sorted({m.limits[name] for m in here if name in m.limits}):
            yield from by_flag(f"{name}={value}", [m.limits.get(name) == value for m in here])
    yield from by_size("usable cores", [m.usable_cores for m in here], "{:.3g}".format)
    yield from by_size("cores in the box", [m.visible_cores for m in here], str)
    yield from by_size("threads", [row.run.threads for row in rows], str)
    gibibytes = [round(m.usable_memory_bytes / 2**30) for m in here]
    yield from by_size("GiB of memory", gibibytes, str)
    for level in ("L2", "L3"):
        sizes = [m.cache_bytes.get(level) for m in here]
        kibibytes = [None if size is None else size // 1024 for size in sizes]
        yield from by_size(f"KiB of {level} cache", kibibytes, str)
    looked = [None if m.accelerators is None else bool(m.accelerators) for m in here]
    yield from by_flag("accelerator", looked)
    yield from by_kind("processor", [m.processor for m in here])
    yield from by_kind("torch", [m.versions.get("torch") for m in here])
    yield from by_kind("Python", [".".join(m.python.split(".")[:2]) for m in here])
    yield from by_kind("system", [m.system.split(" ")[0] for m in here])
    yield from by_kind("governor", [m.governor for m in here])
    yield from by_flag("turbo", [m.turbo for m in here])
    yield from by_flag("virtual machine", [m.virtual_machine for m in here])
    yield from by_flag("container", [m.container for m in here])
    for kind in dict.fromkeys(kind for row in rows for kind in row.run.caveats):
        yield from by_flag(f"caveat {kind!r}", [kind in row.run.caveats for row in rows])
