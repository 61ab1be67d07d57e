"""Rounds: every variant timed once, in an order drawn afresh, until the answer is known.

This module runs in the worker. It knows clocks; it knows nothing of processes, notebooks or
plots. It yields events; whoever drives it sends them on.
"""

from __future__ import annotations

import contextlib
import gc
import math
import random
import time
from dataclasses import dataclass, field
from itertools import repeat
from typing import TYPE_CHECKING, Any

from labkit import statistics
from labkit.relocation import relocated
from labkit.samplers import HostSampler, Sampler
from labkit.trials import Failure, NoiseFloor
from labkit.usage import ProcessorUse, processor_use
from labkit.variants import describe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from labkit.traces import Trace

# Long enough that reading the clock (about 50 ns) is below 0.01 % of a sample, short enough
# that most samples fall between two bursts of whatever else the machine does.
SAMPLE_S = 1e-3
# A preflight needs this many rounds for a usable spread, and this much time to see a burst.
PREFLIGHT_ROUNDS = 16
PREFLIGHT_S = 0.2
# A resolution that would need more than this is refused (the width of an interval falls with
# the square root of the rounds); one that needs less gets a caveat and what there is time for.
HOPELESS_S = 24 * 3600.0
# A new place in memory costs a warm-up: at most this share of the time goes into moving.
_MOVING = 0.1
_PLACES = 64
_WARM_UP = 16
# Threads of a pool spin for a while when their work is done, and so keep a core from whatever
# runs next. Longer than this nobody waits for them.
_SETTLE_S = 0.03
_LOOKS, _SHORT_S = 5, 0.02
# An evaluation shorter than this is run once before its sample, so that its own pool is awake.
_WAKE_S = 5e-3
# A sample that a quota has stopped is thrown away, and taken again at most so often.
_AGAIN = 3
# What takes longer than a period of Linux's quotas cannot be kept clear of their stops.
_PERIOD_S = 0.1
# How often events leave the worker: each one wakes another process on the same machine.
FLUSH_S = 0.2


@dataclass(frozen=True)
class Plan:
    """How to measure; times in seconds."""

    budget_s: float = 5.0
    confidence: float = 0.95
    resolution: float = 0.02
    preflight: bool = True
    first_round: int = 0
    sample_s: float = SAMPLE_S


@dataclass(frozen=True)
class Stage:
    """What the worker is doing now."""

    text: str
    variant: str | None = None


@dataclass(frozen=True)
class Calibrated:
    """How a variant will be sampled."""

    variant: str
    evaluations_per_sample: int
    overhead_s: float
    device: str
    clock: str
    threads: int | None = None


@dataclass(frozen=True)
class Rounds:
    """Samples of some rounds: (round number, {variant: seconds per evaluation})."""

    rounds: tuple[tuple[int, dict[str, float]], ...]
    elapsed_s: float


@dataclass(frozen=True)
class Garbage:
    """What collecting a variant's reference cycles costs, seconds per evaluation."""

    variant: str
    per_evaluation_s: float


@dataclass(frozen=True)
class Paged:
    """What the operating system did for a variant's samples.

    Attributes:
        variant: its name.
        page_faults: per evaluation: pages of memory that it was given for a first touch.
        system_share: of the processor time, spent in the operating system.
    """

    variant: str
    page_faults: float
    system_share: float


@dataclass(frozen=True)
class Waited:
    """How long the threads were ready to run and had no core, over the time of the rounds.

    Attributes:
        share: of the time, all threads added up.
        held_cores: that other programs used meanwhile, on average; None: not known.
    """

    share: float
    held_cores: float | None = None


@dataclass(frozen=True)
class Retaken:
    """How many samples were thrown away and taken again, because a quota had stopped them."""

    samples: int


@dataclass(frozen=True)
class Finished:
    """The end: "answered", "budget", "refused" or "failed"."""

    reason: str
    elapsed_s: float


@dataclass(frozen=True)
class Traced:
    """What one evaluation did inside torch."""

    variant: str
    trace: Trace


@dataclass(frozen=True)
class Metrics:
    """The numbers that a variant brings along."""

    variant: str
    numbers: dict[str, float]


Event = (
    Stage
    | Metrics
    | Calibrated
    | Waited
    | Rounds
    | NoiseFloor
    | Garbage
    | Paged
    | Retaken
    | Failure
    | Traced
    | Finished
)


@dataclass
class _Prepared:
    name: str
    index: int
    # The evaluation at several places in memory; a sample is taken at one of them.
    calls: list[Callable[[], Any]]
    evaluations: int = 1
    evaluation_s: float = 0.0
    littered: int = 0
    collector_s: float = 0.0
    samples: int = 0
    used: ProcessorUse = field(default_factory=ProcessorUse)
    log_ratios: list[float] = field(default_factory=list)

    def account(self, used: ProcessorUse, found: int, collector_s: float) -> None:
        """Write down what a sample used, and what the collector found after it."""
        self.used += used
        self.samples += 1
        if found >= self.evaluations:
            self.littered += 1
            self.collector_s += collector_s


def _nothing(name: str | None, stage: str) -> None:
    """Default for ``on_step``: tells nobody."""


def _never() -> int:
    """Default for ``stops``: no quota, or one that cannot be avoided."""
    return 0


def empty_loop_s(evaluations: int = 100_000, blocks: int = 5) -> float:
    """One turn of the measuring loop with nothing in it, in seconds: the harness's overhead.

    >>> 0 < empty_loop_s() < 1e-6
    True
    """
    fastest = math.inf
    for _ in range(blocks):
        turns = repeat(None, evaluations)
        start = time.perf_counter()
        for _ in turns:
            pass
        fastest = min(fastest, time.perf_counter() - start)
    return fastest / evaluations


def calibrate(
    call: Callable[[], Any], sampler: Sampler, *, sample_s: float = SAMPLE_S
) -> tuple[int, float]:
    """How many evaluations a sample needs, from the fastest of several blocks.

    The fastest, because a burst of noise can only make a block look long, and a block that
    looks long gives samples that are too short.

    Returns:
        ``(evaluations per sample, seconds of that block)``.
    """
    evaluations = 1
    while True:
        fastest = math.inf
        for _ in range(3):
            fastest = min(fastest, sampler.block(call, evaluations))
            if fastest > 20 * sample_s:
                break
        if fastest >= sample_s:
            return evaluations, fastest
        growth = 1.1 * sample_s / max(fastest, 1e-9)
        evaluations = max(evaluations + 1, math.ceil(evaluations * min(growth, 10.0)))


def is_busy(wait_s: float = 2e-4) -> bool:
    """Whether threads of this process run although nobody asked them to.

    >>> is_busy(1e-3)
    False
    """
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    time.sleep(wait_s)
    return time.process_time() - cpu_s > 0.3 * (time.perf_counter() - wall_s)


def measure_rounds(
    calls: dict[str, Callable[[], Any]],
    plan: Plan,
    *,
    sampler: Sampler | None = None,
    random_source: random.Random | None = None,
    clock: Callable[[], float] = time.perf_counter,
    on_step: Callable[[str | None, str], None] = _nothing,
    threads: int | None = None,
    collect: Callable[[], int] = gc.collect,
    warmed_up: Callable[[], object] = gc.collect,
    busy: Callable[[], bool] = is_busy,
    processor_use: Callable[[], ProcessorUse] = processor_use,
    stops: Callable[[], int] | None = None,
) -> Iterator[Event]:
    """Time variants in rounds and yield what happens.

    Args:
        calls: evaluations by name; the first is the baseline.
        plan: budget, confidence and resolution.
        sampler: times a block; the host's clock if None.
        random_source: draws the order of each round.
        clock: for the budget, in seconds.
        on_step: told what starts (variant, stage) before it starts, so that somebody outside
            knows whom to blame when this process dies or hangs.
        threads: only to be written down.
        collect: the garbage collector's turn between samples.
        warmed_up: called once between the warm-ups and the first sample. A compilation leaves
            much behind, dead and alive: neither is a sample's.
        busy: whether threads still run that the last evaluation started. Where a variant leaves
            such threads (OpenMP's spin for milliseconds), every sample waits for them to end:
            they belong to another variant.
        processor_use: what this process has used up to now, read around every sample.
        stops: how often a quota has stopped this process up to now, read around every sample;
            None: there is no quota. A stop lasts up to a tenth of a second and meets whoever
            uses up the quota: a median of such samples would tell how long a variant is, not
            how fast. So a sample that was stopped is taken again, if every variant can be
            sampled within a quota; else all are timed with their stops.

    Yields:
        Events; `Finished` is the last one. A variant that raises becomes a `Failure` and the
        others go on; without a baseline or without a variant left there is nothing to go on
        for.
    """
    sampler = HostSampler() if sampler is None else sampler
    draw = random.Random() if random_source is None else random_source
    start = clock()
    overhead_s = empty_loop_s() if isinstance(sampler, HostSampler) else 0.0
    baseline_name = next(iter(calls))
    live: list[_Prepared] = []
    restless = False

    for index, (name, call) in enumerate(calls.items()):
        yield Stage("warming up", name)
        on_step(name, "warm-up")
        try:
            sampler.block(call, 1)
            evaluations, block_s = calibrate(call, sampler, sample_s=plan.sample_s)
            # One look may fall between two turns of the scheduler.
            looks = _LOOKS if block_s / evaluations < _SHORT_S else 1
            restless = restless or any(_leaves_threads(call, sampler, busy) for _ in range(looks))
        except (Exception, SystemExit) as error:
            on_step(None, "")
            yield _failure(name, "warm-up", error)
            continue
        on_step(None, "")
        live.append(_Prepared(name, index, [call], evaluations, block_s / evaluations))
        yield Calibrated(name, evaluations, overhead_s, sampler.device, sampler.clock, threads)

    def enough() -> bool:
        names = [p.name for p in live]
        return baseline_name in names and (len(calls) == 1 or len(names) > 1)

    if not enough():
        yield Finished("failed", clock() - start)
        return

    if stops is None or not all(_within_a_quota(p, sampler, stops) for p in live):
        stops = _never
    retaken = 0
    warmed_up()
    alpha = (1 - plan.confidence) / max(1, len(calls) - 1)
    pending: list[tuple[int, dict[str, float]]] = []
    # The budget is for measuring: set-up and warm-up (a compilation, say) do not eat it.
    began = last_flush = clock()
    round_number, rounds_done = plan.first_round, 0
    next_check = statistics.minimum_rounds(alpha)
    floor_ratios: list[float] = []
    preflight = plan.preflight and len(calls) > 1
    preflight_s = min(PREFLIGHT_S, plan.budget_s / 4)
    reason = "budget"
    moving_s = 0.0
    if preflight:
        yield Stage("preflight: identical code against itself")

    while True:
        # During the preflight the baseline takes part twice in every round: the draw decides
        # which of its two samples counts, and both show what identical code does now.
        turns: list[tuple[_Prepared, bool]] = [(p, True) for p in live]
        if preflight:
            turns.append((live[0], False))
        draw.shuffle(turns)
        times: dict[str, float] = {}
        again: float | None = None
        failed: _Prepared | None = None
        for prepared, counts in turns:
            on_step(prepared.name, "measuring")
            try:
                call = draw.choice(prepared.calls)
                if restless and len(calls) > 1:
                    _settle(call, prepared, sampler, busy)
                left = _AGAIN
                while True:
                    was, before = stops(), processor_use()
                    sample = sampler.block(call, prepared.evaluations)
                    litter = _let_collect(collect)
                    # Not before: these make containers, which could set off the collector.
                    used = processor_use() - before
                    if not left or stops() == was:
                        break
                    left -= 1
                    retaken += 1
            except (Exception, SystemExit) as error:
                on_step(None, "")
                failed = prepared
                yield from _flush(pending, clock() - start)
                yield _failure(prepared.name, "measuring", error)
                break
            prepared.account(used, *litter)
            sample /= prepared.evaluations
            if counts:
                times[prepared.name] = sample
            else:
                again = sample
        on_step(None, "")
        if failed is not None:
            live.remove(failed)
            if not enough():
                reason = "failed"
                break
            continue

        pending.append((round_number, times))
        round_number += 1
        rounds_done += 1
        base_s = max(times[baseline_name], 1e-12)
        for prepared in live[1:]:
            prepared.log_ratios.append(math.log(base_s / max(times[prepared.name], 1e-12)))
        if again is not None:
            floor_ratios.append(math.log(base_s / max(again, 1e-12)))

        now = clock()
        # A single variant has nobody to be compared with: it is timed where it is.
        if len(calls) > 1 and moving_s <= _MOVING * (now - began):
            for prepared in live:
                on_step(prepared.name, "measuring")
                _move(prepared, sampler, draw)
            on_step(None, "")
            after = clock()
            moving_s += after - now
            now = after
        spent = now - began
        if preflight and (
            (spent >= preflight_s and rounds_done >= PREFLIGHT_ROUNDS) or spent >= plan.budget_s / 2
        ):
            preflight = False
            per_round = spent / rounds_done * len(live) / (len(live) + 1)
            left = int((plan.budget_s - spent) / per_round)
            spread = statistics.spread(floor_ratios)
            reachable = statistics.reachable_width(spread, rounds_done + left, alpha=alpha)
            yield NoiseFloor(tuple(floor_ratios), reachable, spent)
            needed_s = plan.budget_s * (reachable / plan.resolution) ** 2
            if rounds_done >= PREFLIGHT_ROUNDS and HOPELESS_S < needed_s < math.inf:
                reason = "refused"
                break
            yield Stage("measuring")
        if now - last_flush >= FLUSH_S:
            last_flush = now
            yield from _flush(pending, now - start)
        if not preflight and len(calls) > 1 and rounds_done >= next_check:
            # Looking costs a sort; the interval is valid however often somebody looks.
            next_check = max(rounds_done + 1, math.ceil(rounds_done * 1.02))
            if all(_may_stop(p, plan, alpha) for p in live[1:]):
                reason = "answered"
                break
        if spent >= plan.budget_s:
            break

    yield from _flush(pending, clock() - start)
    for prepared in live:
        # What is found now and then is the harness's own, or left from a compilation.
        if 2 * prepared.littered > prepared.samples:
            evaluations = prepared.littered * prepared.evaluations
            yield Garbage(prepared.name, prepared.collector_s / evaluations)
        evaluations = max(1, prepared.samples * prepared.evaluations)
        used = prepared.used
        yield Paged(prepared.name, used.page_faults / evaluations, used.system_share)
    if retaken:
        yield Retaken(retaken)
    yield Finished(reason, clock() - start)


def _leaves_threads(call: Callable[[], Any], sampler: Sampler, busy: Callable[[], bool]) -> bool:
    sampler.block(call, 1)
    return busy()


def _settle(
    call: Callable[[], Any], prepared: _Prepared, sampler: Sampler, busy: Callable[[], bool]
) -> None:
    """Wait for the threads of another variant to end, then wake those of this one."""
    until = time.perf_counter() + _SETTLE_S
    while busy() and time.perf_counter() < until:
        pass
    if prepared.evaluation_s < _WAKE_S:
        sampler.block(call, 1)


def _within_a_quota(prepared: _Prepared, sampler: Sampler, stops: Callable[[], int]) -> bool:
    """Whether a sample can end before the quota of a period is used up."""
    if prepared.evaluations * prepared.evaluation_s > _PERIOD_S:
        return False
    # What fails here fails in a sample as well, where it is reported.
    with contextlib.suppress(Exception):
        for _ in range(1 + _AGAIN):
            was = stops()
            sampler.block(prepared.calls[0], prepared.evaluations)
            if stops() == was:
                return True
    return False


def _move(prepared: _Prepared, sampler: Sampler, draw: random.Random) -> None:
    """Add the evaluation at a new place in memory, warmed up; many places replace an old one."""
    call = relocated(prepared.calls[0])
    if call is prepared.calls[0]:
        return
    # What fails here fails in a sample as well, where it is reported.
    with contextlib.suppress(Exception):
        # Python specializes code after some runs of it.
        sampler.block(call, min(prepared.evaluations, _WARM_UP))
    if len(prepared.calls) < _PLACES:
        prepared.calls.append(call)
    else:
        prepared.calls[draw.randrange(1, _PLACES)] = call


def _may_stop(prepared: _Prepared, plan: Plan, alpha: float) -> bool:
    low, high = statistics.interval(prepared.log_ratios, alpha=alpha)
    return statistics.may_stop(math.exp(low), math.exp(high), resolution=plan.resolution)


def _let_collect(collect: Callable[[], int]) -> tuple[int, float]:
    """Let the collector have its turn between samples: what it found, and the seconds."""
    start = time.perf_counter()
    found = collect()
    return found, time.perf_counter() - start


def _flush(pending: list[tuple[int, dict[str, float]]], elapsed_s: float) -> Iterator[Event]:
    if pending:
        yield Rounds(tuple(pending), elapsed_s)
        pending.clear()


def _failure(name: str, stage: str, error: BaseException) -> Failure:
    message, details = describe(error)
    return Failure(name, stage, "raised", message, details)
