"""What changed from one measurement to another, quantity by quantity."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from labkit import statistics
from labkit.statistics import Verdict
from labkit.tables import result_html
from labkit.units import format_bytes, format_count, format_ratio

if TYPE_CHECKING:
    import pandas as pd

    from labkit.results import Comparison

# What a peak is off by when nothing differs: pages that a library touches for the first time.
_PEAK_NOISE_BYTES = 2**20


@dataclass(frozen=True)
class Change:
    """One quantity of one variant, before and now.

    Attributes:
        subject: experiment, parameters and variant.
        quantity: "time", "peak memory", "FLOPs", "bytes moved", "operators", "failure" or a
            metric in bytes.
        verdict: "slower", "faster", "same", "inconclusive", "more", "less" or "failed".
        worse: whether that counts as a regression.
        before, now: for people.
        times: the speed-up from before to now for a time; how many times as much for the others.
        low, high: the interval of a speed-up.
        detail: what makes the difference, where that is known.
    """

    subject: str
    quantity: str
    verdict: str
    worse: bool
    before: str = ""
    now: str = ""
    times: float = math.nan
    low: float = math.nan
    high: float = math.nan
    detail: str = ""

    def __str__(self) -> str:
        then = f"{self.before} before, {self.now} now" if self.before else self.now
        then += f": {self.detail}" if self.detail else ""
        start = f"{self.subject}: {self.quantity}: "
        if self.quantity != "time" or not 0 < self.low <= self.high < math.inf:
            return f"{start}{self.verdict} ({then})"
        ends = self.low, self.high
        times = self.times
        if self.verdict == Verdict.SLOWER:
            times, ends = 1 / times, (1 / ends[1], 1 / ends[0])
        interval = f"[{format_ratio(ends[0])}, {format_ratio(ends[1])}]"
        if self.verdict in (Verdict.SLOWER, Verdict.FASTER):
            return f"{start}{format_ratio(times)} {self.verdict} {interval} ({then})"
        return f"{start}{self.verdict}, {format_ratio(times)} {interval} ({then})"


@dataclass(frozen=True)
class Regressions:
    """What changed.

    Attributes:
        changes: every quantity that was compared, the same ones included.
        not_compared: what was not, and why.
        notes: what to know when reading it.
    """

    changes: tuple[Change, ...]
    not_compared: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def worse(self) -> tuple[Change, ...]:
        """What became slower or larger, or failed."""
        return tuple(c for c in self.changes if c.worse)

    @property
    def exit_status(self) -> int:
        """For a shell: 1 if anything became worse, else 0."""
        return 1 if self.worse else 0

    def to_frame(self) -> pd.DataFrame:
        """One row a quantity: the attributes of `Change`."""
        import pandas as pd

        return pd.DataFrame([vars(c) for c in self.changes])

    @property
    def lines(self) -> list[str]:
        """What it says in words, what became worse first."""
        same = sum(c.verdict == Verdict.SAME for c in self.changes)
        others = [c for c in self.changes if not c.worse and c.verdict != Verdict.SAME]
        return [
            *(f"WORSE {c}" for c in self.worse),
            *(f"      {c}" for c in others),
            *([f"      {same} of {len(self.changes)} quantities are the same"] if same else []),
            *(f"not compared: {why}" for why in self.not_compared),
            *(f"note: {note}" for note in self.notes),
            f"{len(self.worse) or 'nothing'} of {len(self.changes)} quantities became worse",
        ]

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def _repr_html_(self) -> str:
        head = ["what", "quantity", "verdict", "before", "now"]
        rows = [[c.subject, c.quantity, c.verdict, c.before, c.now] for c in self.changes]
        return result_html(head, rows, self.lines[-1])


def timed(
    subject: str,
    change: tuple[float, float, float],
    resolution: float,
    before: str,
    now: str,
) -> Change:
    """A change of time: worse where it is clear of 1 by the resolution.

    Args:
        subject: what was measured.
        change: the speed-up from before to now: lower end, middle and upper end.
        resolution: a share.
        before: for people.
        now: for people.
    """
    low, times, high = change
    verdict = statistics.decide(low, high, resolution=resolution)
    worse = high < 1 / (1 + resolution)
    if verdict in (Verdict.SLOWER, Verdict.FASTER) and not (worse or low > 1 + resolution):
        # There is something, and it may well be less than what matters.
        verdict = Verdict.INCONCLUSIVE
    return Change(subject, "time", verdict.value, worse, before, now, times, low, high)


def amounts(comparison: Comparison, variant: str) -> dict[str, Any]:
    """What does not vary from run to run."""
    trial, peak = comparison.trials[variant], comparison.memory.get(variant)
    found: dict[str, Any] = {k: v for k, v in trial.metrics.items() if k.endswith("_bytes")}
    flops, moved = trial.cost
    found |= {"FLOPs": flops} if flops else {}
    found |= {"bytes moved": moved} if moved else {}
    found |= {"peak memory": peak.peak_bytes} if peak else {}
    if trial.trace is not None and not trial.trace.skipped:
        uses = trial.trace.operators
        found["operators"] = sum((Counter({u.name: u.calls}) for u in uses), Counter())
    return found


def amount(subject: str, name: str, before: list[Any], now: list[Any]) -> Change:
    """Ranges of an amount over runs that do not overlap."""
    detail = ""
    if name == "operators":
        detail = _operators(before[0], now[0])
        before, now = [sum(c.values()) for c in before], [sum(c.values()) for c in now]
    noise = _PEAK_NOISE_BYTES if name == "peak memory" else 0
    more, less = min(now) - max(before) > noise, min(before) - max(now) > noise
    verdict = "more" if more else "less" if less else Verdict.SAME.value
    write = format_bytes if name.endswith(("_bytes", "memory", "moved")) else format_count
    texts = [write(median(before)), write(median(now))]
    if verdict != Verdict.SAME and texts[0] == texts[1]:
        texts = [f"{median(before):.17g}", f"{median(now):.17g}"]
    times = median(now) / median(before) if median(before) else math.nan
    return Change(subject, name, verdict, more, texts[0], texts[1], times, detail=detail)


def _operators(before: Counter[str], now: Counter[str]) -> str:
    """Which ones differ most."""
    differ = {n: now[n] - before[n] for n in before.keys() | now if now[n] != before[n]}
    most = sorted(differ, key=lambda n: (-abs(differ[n]), n))[:3]
    return ", ".join(f"{differ[n]:+d} {n}" for n in most)
