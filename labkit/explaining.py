"""Why a variant is not faster than it is: the limit that binds, the evidence, what to try next.

Where no rule of `labkit.causes` speaks, the answer is that the lab cannot tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from labkit.causes import CERTAIN, WEIGHED, Case, Cause, nothing_binds
from labkit.statistics import Verdict

if TYPE_CHECKING:
    from labkit.results import Comparison


@dataclass(frozen=True)
class Explanation:
    """What limits one variant.

    Attributes:
        variant: its name.
        verdict: how fast it is, in words.
        causes: the one that binds, then others that the numbers show, too; empty if none does.
        unknown: why there is no answer; empty if there is one.

    >>> cause = Cause("memory bandwidth", "it moves 24 MB at 11.0 GB/s", "move fewer bytes")
    >>> print(Explanation("sum", "sum is 1.01x faster than add", (cause,)))
    sum is 1.01x faster than add
    what binds sum: memory bandwidth: it moves 24 MB at 11.0 GB/s. Next: move fewer bytes.
    """

    variant: str
    verdict: str
    causes: tuple[Cause, ...] = ()
    unknown: str = ""

    @property
    def limit(self) -> str:
        """The name of the limit that binds; empty if that cannot be told."""
        return self.causes[0].limit if self.causes else ""

    @property
    def sentence(self) -> str:
        """The answer in one line."""
        if self.causes:
            return f"what binds {self.variant}: {self.causes[0]}"
        return f"what binds {self.variant}: cannot tell. {self.unknown}"

    @property
    def lines(self) -> list[str]:
        """The answer, and what else the numbers show."""
        return [self.sentence, *(f"also, {cause}" for cause in self.causes[1:])]

    def __repr__(self) -> str:
        # The same from run to run, so that a notebook's output stays comparable.
        return f"Explanation({self.variant})"

    def __str__(self) -> str:
        return "\n".join([self.verdict, *self.lines])

    def _repr_html_(self) -> str:
        from labkit import tables

        return tables.explanation_as_html(self)


def explain(comparison: Comparison, name: str | None = None) -> Explanation:
    """What limits a variant; see `labkit.results.Comparison.explain`."""
    name = comparison.names[-1] if name is None else name
    ratio = comparison[name]
    if name == comparison.baseline and len(comparison) > 1:
        verdict = f"{name} is the baseline"
    else:
        verdict = str(ratio)
    trial, base = comparison.trials[name], comparison.trials[comparison.baseline]

    def unknown(why: str) -> Explanation:
        return Explanation(name, verdict, (), why)

    if ratio.failure:
        return unknown(f"It has no complete result: {ratio.failure}.")
    if ratio.verdict is Verdict.INCONCLUSIVE and name != comparison.baseline:
        remedies = {c.kind: c.remedy for c in comparison.caveats if c.variant in (None, name)}
        # The most specific one.
        kinds = [k for k in ("resolution", "too few rounds", "stopped", "budget") if k in remedies]
        remedy = remedies[kinds[0]] if kinds else "give a larger budget_s"
        return unknown(f"Whether it is faster is not known yet: {remedy}.")
    trace, base_trace = trial.trace, base.trace
    if trace is None or base_trace is None:
        return unknown("It was not traced: the run was stopped, or trace=False was given.")
    if trace.skipped:
        return unknown(f"It was not traced: {trace.skipped}.")
    case = Case(comparison, ratio, trial, trace, base, base_trace)
    certain = [cause for rule in CERTAIN for cause in [rule(case)] if cause is not None]
    weighed = [cause for rule in WEIGHED for cause in [rule(case)] if cause is not None]
    weighed.sort(key=lambda cause: -cause.share)
    causes = (*certain, *weighed)
    return Explanation(name, verdict, causes) if causes else unknown(nothing_binds(case))
