"""What became slower, faster, larger or smaller between two records, or between two functions.

Times of different runs are never compared: another moment is another machine, nearly. What is
compared is each run's own ratio to its own baseline, and that is unpaired, too. An interval holds
for its run; between runs the place in memory, the clock and the neighbours differ. Measured here
on four comparisons of unchanged code, 12 runs each on a shared machine: the intervals of two runs
were disjoint for 16 pairs of 100, and further apart than 10 % for 0.7. Those of two runs and two
others were disjoint for 0.6 of 100, and further apart than 5 % for 0.01. So the range of a side
covers the intervals of all its runs, and a change is a gap between two ranges, wider than a
resolution that depends on the number of runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from labkit import statistics
from labkit.changes import Change, Regressions, amount, amounts, timed
from labkit.records import parameters_text, read_folder, read_record
from labkit.results import Comparison
from labkit.sweeps import Sweep
from labkit.units import format_ratio, format_share, format_time

if TYPE_CHECKING:
    from labkit.machines import Machine
    from labkit.trials import Trial
    from labkit.variants import Variant

# See the figures above.
_ONE_RUN, _SEVERAL_RUNS = 0.1, 0.05
_NOT_TIMED = (
    "times of different runs are not compared, only each run's ratio to its own baseline; for "
    "times, measure both in one job: labkit compare-revisions, or lab.compare_functions"
)
_SINGLE = (
    "where a side has one run, nobody can see what differs between runs, and differences of speed "
    f"below {format_share(_ONE_RUN)} are not counted; keep two runs or more of each side"
)

Given = Comparison | Sweep | str | Path
_Key = tuple[str, str, str, str]


def compare_functions(
    base: Callable[[], Any] | Variant,
    head: Callable[[], Any] | Variant,
    *,
    memory: bool = True,
    **settings: Any,
) -> Regressions:
    """Measure two functions in one job, round by round, and say what became worse.

    Args:
        base: as it was.
        head: as it is now.
        memory: also compare peak memory.
        **settings: of `labkit.compare`.

    Raises:
        ValueError: ``base`` fails, so that there is nothing to compare with; and as
            `labkit.compare`.

    >>> def before():
    ...     return sum(range(2_000))
    >>> def now():
    ...     return sum(range(9_000))
    >>> compare_functions(before, now, memory=False, budget_s=1).exit_status
    1
    """
    from labkit.api import compare

    return paired(compare({"base": base, "head": head}, memory=memory, **settings))


def paired(comparison: Comparison, subject: str = "") -> Regressions:
    """What became worse from the first to the second variant of one comparison.

    Raises:
        ValueError: the first failed.
    """
    base, head = comparison.names[:2]
    subject = subject or head
    failed = comparison.failures
    if base in failed:
        raise ValueError(f"{subject}: nothing to compare with: {failed[base]}")
    if head in failed:
        change = Change(subject, "failure", "failed", worse=True, now=failed[head].reason)
        return Regressions((change,))
    ratio = comparison[head]
    times = [format_time(comparison.trials[name].median_s) for name in (base, head)]
    speedup = (ratio.low, ratio.speedup, ratio.high)
    found = timed(subject, speedup, comparison.resolution, *times)
    before, now = amounts(comparison, base), amounts(comparison, head)
    changes = [amount(subject, n, [before[n]], [now[n]]) for n in sorted(before.keys() & now)]
    return Regressions(
        (found, *changes), notes=tuple(f"{subject}: {c}" for c in comparison.caveats)
    )


def compare_records(
    base: Given | Iterable[Given], head: Given | Iterable[Given], *, resolution: float | None = None
) -> Regressions:
    """What became worse between kept results of one machine.

    Speed is compared as each run's ratio to its own baseline: see the head of this module. Bytes,
    FLOPs and operators are compared as they are: any more of them counts (of peak memory, more
    than 1 MiB).

    Args:
        base: a record, a folder of records, a `Comparison` or `Sweep`, or several of these.
        head: the same, as it is now.
        resolution: differences of speed below this share do not matter; None: 10 % where a side
            has one run, 5 % where both have more.

    Returns:
        The variants that both sides measured, on machines of one kind.

    Raises:
        FileNotFoundError, OSError, ValueError: a record cannot be read; nothing is comparable,
            such as where the machines differ.

    >>> from labkit.trials import Trial
    >>> from labkit.machines import machine
    >>> def run(times_s):
    ...     trials = {n: Trial(n, (t,) * 40, tuple(range(40))) for n, t in times_s.items()}
    ...     return Comparison(trials, machine=machine(), title="product")
    >>> found = compare_records(run({"a": 2.0, "b": 1.0}), run({"a": 4.0, "b": 3.0}))
    >>> print(found.worse[0])
    product: b: time: 1.50x slower [1.50x, 1.50x] (2.00x as fast as a before, 1.33x now)
    """
    if resolution is not None and not 0 < resolution <= 1:
        raise ValueError(f"resolution={resolution}: give a share above 0, such as 0.05")
    before, now = _Side("BASE", base), _Side("HEAD", head)
    common = [key for key in before.runs if key in now.runs]
    changes, refused = [], [*before.skipped, *now.skipped]
    for key in common:
        kinds = (before.runs[key].keys() & now.runs[key].keys()) - {""}
        refused += _other_machines(key, before.runs[key], now.runs[key]) if not kinds else []
    pairs = [
        (key, before.runs[key][kind], now.runs[key][kind])
        for key in common
        for kind in before.runs[key]
        if kind and kind in now.runs[key]
    ]
    intervals = sum(len(one) + len(other) for _, one, other in pairs)
    for key, one, other in pairs:
        changes += _unpaired(key, one, other, intervals, resolution)
    for side, other_side in ((before, now), (now, before)):
        gone = [_subject(key) for key in side.runs if key not in other_side.runs]
        refused += [f"{name}: only in {side.name}" for name in gone]
    if not changes:
        reasons = "; ".join(dict.fromkeys(refused)) or "there are no records"
        raise ValueError(f"nothing to compare: {reasons}")
    single = any(min(len(one), len(other)) == 1 for _, one, other in pairs)
    notes = [_NOT_TIMED, *([_SINGLE] if single and resolution is None else [])]
    notes += [*_other_versions(before, now), *before.caveats, *now.caveats]
    return Regressions(tuple(changes), tuple(dict.fromkeys(refused)), tuple(notes))


class _Side:
    """The runs of one side, by what was measured and on which kind of machine."""

    def __init__(self, name: str, given: Given | Iterable[Given]) -> None:
        self.name = name
        self.skipped: list[str] = []
        self.comparisons: list[Comparison] = []
        several = isinstance(given, Iterable) and not isinstance(given, str | Comparison | Sweep)
        for each in given if several else [given]:  # type: ignore[union-attr]
            self._take(each)
        self.runs: dict[_Key, dict[str, list[Comparison]]] = {}
        for comparison in self.comparisons:
            for variant in comparison.names:
                at = parameters_text(comparison.parameters)
                key = (comparison.title, at, variant, comparison.baseline)
                kind = _kind(comparison.machine, comparison.trials[variant])
                self.runs.setdefault(key, {}).setdefault(kind, []).append(comparison)

    @property
    def caveats(self) -> list[str]:
        """What weakens its runs, by kind."""
        kinds = dict.fromkeys(c.kind for each in self.comparisons for c in each.caveats)
        return [f"caveats of {self.name}: {', '.join(kinds)}"] if kinds else []

    def _take(self, given: Any) -> None:
        if isinstance(given, Comparison):
            self.comparisons.append(given)
        elif isinstance(given, Sweep):
            self.comparisons += given.comparisons
        elif Path(given).is_dir():
            records, skipped = read_folder(given)
            self.comparisons += [c for record in records for c in record.comparisons]
            self.skipped += [f"{name} of {self.name}: {why}" for name, why in skipped.items()]
        else:
            try:
                self.comparisons += read_record(given).comparisons
            except ValueError as error:
                raise ValueError(f"{given}: {error}") from None


def _kind(here: Machine | None, trial: Trial) -> str:
    """What must be equal for two runs to be compared; empty where nobody knows."""
    if here is None:
        return ""
    gpus = [] if trial.device == "cpu" else [a.name for a in here.accelerators or ()]
    return ", ".join([here.fingerprint, *gpus, f"{trial.device}, threads: {trial.threads}"])


def _subject(key: _Key) -> str:
    title, parameters, variant, _ = key
    experiment = f"{title} ({parameters})" if parameters else title
    return f"{experiment}: {variant}" if experiment else variant


def _other_machines(
    key: _Key, before: Mapping[str, list[Comparison]], now: Mapping[str, list[Comparison]]
) -> list[str]:
    places = [
        " and ".join(
            f"{kind} ({runs[0].machine.line()})" if runs[0].machine else "an unknown machine"
            for kind, runs in side.items()
        )
        for side in (before, now)
    ]
    why = (
        f"{_subject(key)}: BASE is of {places[0]}, HEAD of {places[1]}: different machines are "
        "never compared as one; measure both on one of them"
    )
    return [why]


def _other_versions(before: _Side, now: _Side) -> list[str]:
    sides = [
        {n: v for c in side.comparisons if c.machine for n, v in c.machine.versions.items()}
        for side in (before, now)
    ]
    return [
        f"{name} was {sides[0][name]} and is {sides[1][name]}"
        for name in sides[0]
        if sides[0][name] != sides[1].get(name, sides[0][name])
    ]


def _unpaired(
    key: _Key,
    before: list[Comparison],
    now: list[Comparison],
    intervals: int,
    resolution: float | None,
) -> list[Change]:
    subject, variant, baseline = _subject(key), key[2], key[3]
    broken = [
        [c.failures[variant] for c in side if variant in c.failures] for side in (before, now)
    ]
    if broken[1]:
        # What failed before as well is no news.
        word = "same" if broken[0] else "failed"
        return [Change(subject, "failure", word, worse=not broken[0], now=broken[1][0].reason)]
    if resolution is None:
        resolution = _ONE_RUN if min(len(before), len(now)) == 1 else _SEVERAL_RUNS
    changes = []
    if variant != baseline:
        ranges = [_range(side, variant, intervals) for side in (before, now)]
        (old_low, old, old_high), (low, mid, high) = ranges
        change = (low / old_high, mid / old, high / old_low) if old_low else (0.0, 1.0, math.inf)
        text = f"{format_ratio(old)} as fast as {baseline}"
        changes.append(timed(subject, change, resolution, text, format_ratio(mid)))
    counted = [[amounts(c, variant) for c in side] for side in (before, now)]
    for name in sorted(counted[0][0]):
        sides = [[a[name] for a in side if name in a] for side in counted]
        if all(sides):
            changes.append(amount(subject, name, *sides))
    return changes


def _range(runs: list[Comparison], variant: str, intervals: int) -> tuple[float, float, float]:
    """From the lowest to the highest interval of several runs; all of a report hold together."""
    found = []
    for run in runs:
        log_ratios = run[variant].log_ratios
        alpha = (1 - run.confidence) / intervals
        found.append((*statistics.interval(log_ratios, alpha=alpha), run[variant].speedup))
    low, high = min(f[0] for f in found), max(f[1] for f in found)
    return math.exp(low), median(f[2] for f in found), math.exp(high)
