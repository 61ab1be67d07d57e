"""What may bind a variant: each rule looks for one cause, and says nothing unless the numbers do.

Pure functions of what was measured. A new cause is one more function, named in `CERTAIN` or in
`WEIGHED`.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labkit.statistics import Verdict
from labkit.units import format_bytes, format_rate, format_ratio, format_share, format_time

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from labkit.caveats import Caveat
    from labkit.machines import Machine
    from labkit.peaks import Peaks
    from labkit.results import Comparison, Ratio
    from labkit.traces import OperatorUse, Trace
    from labkit.trials import Trial

# A cause is named when it accounts for at least this share of a variant's time.
_SHARE = 0.5
# Faster than a copy: a program that only reads does not wait for its writes.
_MOST_SHARE = 1.7
# An operator that takes no more than this many times as long as one on a single number is small.
_SMALL = 4
# A rate that is not better than this many times another is no gain.
_GAIN = 1.2


@dataclass(frozen=True)
class Cause:
    """One limit, with what speaks for it.

    Attributes:
        limit: its name.
        evidence: measured facts, in a sentence.
        advice: the next thing to try.
        share: of the variant's time that it accounts for; 1 where it explains all of it.
    """

    limit: str
    evidence: str
    advice: str
    share: float = 1.0

    def __str__(self) -> str:
        return f"{self.limit}: {self.evidence}. Next: {self.advice}."


@dataclass(frozen=True)
class Case:
    """A variant beside its baseline, and what the machine can do."""

    comparison: Comparison
    ratio: Ratio
    trial: Trial
    trace: Trace
    base: Trial
    base_trace: Trace

    @property
    def median_s(self) -> float:
        """Of its samples."""
        return self.trial.median_s

    @property
    def faster(self) -> bool:
        """Whether that is known."""
        return self.ratio.verdict is Verdict.FASTER

    @property
    def slower(self) -> bool:
        """Whether that is known."""
        return self.ratio.verdict is Verdict.SLOWER

    @property
    def on_cpu(self) -> bool:
        """Whether its operators run on the processor."""
        return self.device == "cpu"

    @property
    def device(self) -> str:
        """Where most of the time in operators is spent."""
        return self.trace.device or self.trial.device

    @property
    def machine(self) -> Machine | None:
        """Where it was measured."""
        return self.comparison.machine

    @property
    def cores_were_missing(self) -> Caveat | None:
        """What kept a processor that was wanted away from this run, if anything did."""
        kinds = ("throttled", "busy cores")
        return next((c for c in self.comparison.caveats if c.kind in kinds), None)

    @property
    def idle_share(self) -> float:
        """Of its time, in which it used no processor."""
        return 1 - self.trace.cpu_share if self.on_cpu else 0.0

    @property
    def peaks(self) -> Peaks | None:
        """The rates of this variant's device, for products of its dtype if they are known."""
        team = self.trace.threads if self.on_cpu else None
        here = [p for p in self.comparison.peaks if (p.device, p.threads) == (self.device, team)]
        dtype = self.trace.dtype
        return next((p for p in here if p.dtype == dtype), here[0] if here else None)

    @property
    def flops(self) -> float:
        """0 where nobody knows."""
        return self.trial.cost[0] or 0.0

    @property
    def moved(self) -> float:
        """Bytes; 0 where nobody knows."""
        return self.trial.cost[1] or 0.0

    @property
    def roof_shares(self) -> tuple[float, float]:
        """Its rates as shares of what the device can reach: of moving bytes, of arithmetic."""
        peaks = self.peaks
        if peaks is None or not self.median_s > 0:
            return 0.0, 0.0
        rate = peaks.copy_bytes_per_s(self.trace.working_set_bytes)
        same = peaks.dtype == (self.trace.dtype or peaks.dtype)
        work = self.flops / peaks.gemm_flops_per_s / self.median_s if same else 0.0
        return self.moved / rate / self.median_s, work


# Rules that explain all of the time where they hold.


def _same_work(case: Case) -> Cause | None:
    """The technique changed nothing that torch executes."""
    mine, theirs = _work(case.trace), _work(case.base_trace)
    if case.trial is case.base or case.ratio.verdict is not Verdict.SAME:
        return None
    if not mine or mine != theirs:
        return None
    if case.trace.graphs or case.base_trace.graphs:
        return None
    count = sum(mine.values())
    return Cause(
        "the same work",
        f"it runs the same {count} operator{'s' if count > 1 else ''} as {case.base.name}, on the "
        "same shapes and dtypes",
        "check that the technique was applied: nothing that torch executes has changed",
    )


def _threads(case: Case) -> Cause | None:
    """More threads than cores, or a quota that stops them."""
    machine = case.machine
    throttled = [c for c in case.comparison.caveats if c.kind == "throttled"]
    if machine is None or case.faster or not case.on_cpu:
        return None
    threads = case.trace.threads or case.trial.threads or 0
    if threads <= machine.usable_threads and not throttled:
        return None
    if threads <= machine.usable_threads:
        return Cause("the processor quota", throttled[0].text, throttled[0].remedy)
    return Cause(
        "threads",
        f"{threads} threads share {machine.usable_cores:.3g} cores that may be used: they take "
        "turns",
        f"use {machine.usable_threads} of them: torch.set_num_threads({machine.usable_threads}), "
        f"or threads={machine.usable_threads}",
    )


def _transfer(case: Case) -> Cause | None:
    """Copies between devices."""
    trace = case.trace
    share = min(1.0, trace.transfer_s / max(case.median_s, trace.time_s, 1e-12))
    if share < _SHARE:
        return None
    return Cause(
        "transfer",
        f"{format_share(_two(share))} of its time goes into moving "
        f"{format_bytes(trace.transfer_bytes)} between devices",
        "keep the data on the device between calls, or move it while the device computes "
        "(pinned memory, non_blocking=True)",
        share,
    )


def _instructions(case: Case) -> Cause | None:
    """A number format for which this processor has no fast path."""
    machine, dtype = case.machine, case.trace.dtype
    if not case.on_cpu or machine is None or case.faster or dtype == case.base_trace.dtype:
        return None
    need = {"bfloat16": "bf16", "float16": "fp16"}.get(dtype, "vnni" if "int8" in dtype else "")
    share = _share((use for use in case.trace.operators if use.dtype == dtype), case.trace)
    if not need or share < _SHARE:
        return None
    spent = f"{format_share(_two(share))} of its time is in {dtype} operators"
    other = case.base_trace.dtype or "float32"
    team = case.trace.threads
    rates = {
        p.dtype: p.gemm_flops_per_s
        for p in case.comparison.peaks
        if (p.device, p.threads) == ("cpu", team)
    }
    if dtype in rates and "float32" in rates:
        if rates[dtype] > _GAIN * rates["float32"]:
            return None
        evidence = (
            f"{spent}, and here a {dtype} product reaches "
            f"{format_rate(rates[dtype], 'FLOP/s')}, a float32 product "
            f"{format_rate(rates['float32'], 'FLOP/s')}"
        )
    elif machine.has(need) or not machine.isa:
        return None
    else:
        evidence = f"{spent}, and {(machine.missing(need) or '').rstrip('.')}"
    return Cause(
        "instructions",
        evidence,
        f"stay with {other} on this processor, or use one with {need}",
        share,
    )


def _graph_breaks(case: Case) -> Cause | None:
    """torch.compile had to cut the function into pieces."""
    breaks = case.trace.graph_breaks
    count = sum(breaks.values())
    if not count or case.faster:
        return None
    reason = max(breaks, key=lambda text: breaks[text]).split("\n")[0][:120].rstrip(". ")
    return Cause(
        "graph breaks",
        f"torch.compile cut it into pieces {count} time{'s' if count > 1 else ''}: {reason}",
        "take the breaks out of the hot path; torch.compile(..., fullgraph=True) names the line",
    )


def _extra_work(case: Case) -> Cause | None:
    """A slower variant that does more than the baseline."""
    mine, theirs = case.trace, case.base_trace
    if not case.slower or not theirs.operators or mine.graphs or theirs.graphs:
        return None
    added = [use for use in _only_in(mine, theirs) if use.bytes_moved]
    if _share(_only_in(theirs, mine), theirs) >= _SHARE:
        # Somebody must do what the baseline's operators did: that is no extra.
        instead = _by_time(added)[:1]
        added = [use for use in added if use.name not in instead]
    share = _share(added, mine)
    grown = [
        f"{after / before:.2g} times the {what}"
        for what, before, after in (
            ("operators", theirs.calls, mine.calls),
            ("bytes", theirs.bytes_moved, mine.bytes_moved),
            ("FLOPs", theirs.flops, mine.flops),
        )
        if before and after > 1.3 * before
    ]
    if share < _SHARE / 2 or not grown:
        return None
    return Cause(
        "extra work",
        f"it does {' and '.join(grown)} of {case.base.name}; {_largest(added, mine)} are new",
        "let a compiler fuse the new operators, or use a kernel that does without them",
        share,
    )


# Rules that account for a share of the time: the largest binds.


def _waiting(case: Case) -> Cause | None:
    """Neither torch nor Python is at work, although there is a core for them."""
    share = case.idle_share
    if share < _SHARE or case.cores_were_missing:
        return None
    return Cause(
        "waiting",
        f"the processor is idle for {format_share(_two(share))} of its time",
        "look for input, output, locks or sleeps; fetch the data ahead of time",
        share,
    )


def _dispatch(case: Case) -> Cause | None:
    """Many small operators, each of which must be started."""
    if not _are_small(case):
        return None
    trace = case.trace
    way_out = "torch.compile" if case.on_cpu else "torch.compile or CUDA graphs"
    return Cause(
        "dispatch overhead" if case.on_cpu else "launch overhead",
        f"it starts {trace.calls} operator{'s' if trace.calls > 1 else ''} and takes "
        f"{format_time(case.median_s / trace.calls)} for each; an operator on one number takes "
        f"{format_time(trace.dispatch_s)}",
        f"fewer and larger operators: a larger batch, or {way_out}",
        1 - max(case.roof_shares),
    )


def _are_small(case: Case) -> bool:
    """Whether operators are over almost as soon as they have been started."""
    trace = case.trace
    # A compiled function starts fewer operators than are seen.
    if not trace.calls or trace.graphs or max(case.roof_shares) >= _SHARE:
        return False
    return case.median_s / trace.calls <= _SMALL * trace.dispatch_s


def _outside(case: Case) -> Cause | None:
    """Python between the operators, or a library that torch does not see."""
    share = _outside_share(case)
    if share < _SHARE or _spins(case):
        return None
    return Cause(
        "outside torch",
        f"{format_share(_two(share))} of its time is outside of torch's {case.trace.calls} "
        "operators, in Python or in another library",
        "profile it (cProfile, line_profiler: notebook 01); what is Python, move into fewer, "
        "larger operators",
        share,
    )


def _spins(case: Case) -> bool:
    """Whether a thread may have been busy waiting for another one, which had no core."""
    return case.cores_were_missing is not None and case.trace.threads > 1


def _outside_share(case: Case) -> float:
    """Of its time, in which a core was busy and no operator ran; 0 where that cannot be known."""
    trace = case.trace
    if not case.on_cpu or trace.graphs or not trace.operators or _are_small(case):
        return 0.0
    return min(1.0, trace.cpu_share) - trace.time_s / max(case.median_s, 1e-12)


def _untouched(case: Case) -> Cause | None:
    """Amdahl's law: what the technique leaves alone.

    Source: Amdahl, "Validity of the single processor approach to achieving large scale computing
    capabilities", AFIPS 1967.
    """
    mine, theirs = case.trace, case.base_trace
    if not mine.operators or not theirs.operators or mine.graphs or theirs.graphs:
        return None
    kept = set(_work(mine)) & set(_work(theirs))
    if not kept or kept >= set(_work(theirs)) or case.slower:
        return None
    uses = [use for use in theirs.operators if use.key in kept]
    share = _share(uses, theirs)
    # What was reached must not contradict what is said.
    if share < _SHARE or case.ratio.low > 1.1 / share:
        return None
    return Cause(
        "untouched operators",
        f"{format_share(_two(share))} of {case.base.name}'s time is in operators that it leaves "
        f"as they are ({_largest(uses, theirs)}): with all the rest for nothing it would "
        f"be {format_ratio(1 / share)} as fast",
        "turn to those operators first",
        share,
    )


def _roof(case: Case) -> Cause | None:
    """The machine's own limits: bytes and operations against the rates that it reached.

    Source: Williams, Waterman and Patterson, "Roofline", Communications of the ACM 52(4), 2009.
    """
    trace, seconds, peaks = case.trace, case.median_s, case.peaks
    move_share, work_share = case.roof_shares
    if peaks is None or max(move_share, work_share) < _SHARE:
        return None
    busy = ", measured while other programs wanted the cores, too" if peaks.busy else ""
    if work_share >= move_share:
        if work_share > _MOST_SHARE:
            return None
        return Cause(
            "arithmetic",
            f"it computes at {format_rate(case.flops / seconds, 'FLOP/s')}, "
            f"{format_share(_two(work_share))} of the best {peaks.dtype} product here "
            f"({format_rate(peaks.gemm_flops_per_s, 'FLOP/s')}){busy}",
            "fewer operations (a smaller or pruned model), or a number format that this device "
            "computes faster",
            min(1.0, work_share),
        )
    if move_share > _MOST_SHARE:
        return None
    rate = peaks.copy_bytes_per_s(trace.working_set_bytes)
    in_cache = rate > _GAIN * peaks.bandwidth_bytes_per_s
    size = format_bytes(trace.working_set_bytes)
    return Cause(
        "cache bandwidth" if in_cache else "memory bandwidth",
        f"it moves {format_bytes(case.moved)} at {format_rate(case.moved / seconds, 'B/s')}, "
        f"{format_share(_two(move_share))} of what a copy reaches here with "
        f"{size} ({format_rate(rate, 'B/s')}){busy}",
        "move fewer bytes: fuse operators, write in place, use a smaller number format"
        + ("" if in_cache else ", or work in pieces that fit into a cache"),
        min(1.0, move_share),
    )


CERTAIN = (_same_work, _threads, _transfer, _instructions, _graph_breaks, _extra_work)
WEIGHED = (_waiting, _dispatch, _outside, _untouched, _roof)


def nothing_binds(case: Case) -> str:
    """Why no rule spoke."""
    trace, missing = case.trace, case.cores_were_missing
    if missing and case.idle_share >= _SHARE:
        return (
            f"It used no processor for {format_share(_two(case.idle_share))} of its time, and "
            f"whether it waited or was held up is not known: {missing.text}. Next: "
            f"{missing.remedy}."
        )
    if missing and _spins(case) and _outside_share(case) >= _SHARE:
        return (
            f"{format_share(_two(_outside_share(case)))} of its time was outside of torch's "
            f"{trace.calls} operators, and whether other code ran or one thread waited for another "
            f"is not known: {missing.text}. Next: {missing.remedy}."
        )
    if not trace.operators:
        return (
            "It runs no operator of torch, so there is nothing to hold against the limits of the "
            "machine: profile it (cProfile, line_profiler: notebook 01)."
        )
    if trace.graphs:
        return (
            "It runs compiled code, whose operators cannot be timed one by one; no other limit "
            "that the lab measures accounts for half of its time."
        )
    if case.peaks is None:
        return "What this device can reach was not measured."
    spent, gone = _largest(trace.operators, trace), _only_in(case.base_trace, trace)
    if case.slower and _share(gone, case.base_trace) >= _SHARE:
        spent += f", where {case.base.name} has {_largest(gone, case.base_trace)}"
    return (
        f"No limit that the lab measures accounts for half of its time; it goes into {spent}: "
        "look there."
    )


def _only_in(trace: Trace, other: Trace) -> list[OperatorUse]:
    """What the other does without."""
    known = {use.key for use in other.operators}
    return [use for use in trace.operators if use.key not in known]


def _share(uses: Iterable[OperatorUse], trace: Trace) -> float:
    """Of the time of all operators of a trace."""
    return sum(use.time_s for use in uses) / max(trace.time_s, 1e-12)


def _work(trace: Trace) -> Counter[tuple[str, str, str, str]]:
    """What is executed, views left out: they move nothing."""
    work: Counter[tuple[str, str, str, str]] = Counter()
    for use in trace.operators:
        if use.bytes_moved:
            work[use.key] += use.calls
    return work


def _by_time(uses: Iterable[OperatorUse]) -> list[str]:
    """The names of operators, those that take most of the time first."""
    times: dict[str, float] = {}
    for use in uses:
        times[use.name] = times.get(use.name, 0.0) + use.time_s
    return sorted(times, key=lambda name: -times[name])


def _largest(uses: Collection[OperatorUse], trace: Trace, most: int = 3) -> str:
    """The operators that take most of the time of a trace, with their shares."""
    shares = {
        name: _share((use for use in uses if use.name == name), trace)
        for name in _by_time(uses)[:most]
    }
    return ", ".join(f"{name} ({format_share(_two(share))})" for name, share in shares.items())


def _two(share: float) -> float:
    """Two digits: more would claim more than one trace can know."""
    return float(f"{share:.2g}") if math.isfinite(share) else share
