"""The verbs: measure, compare, peak_memory."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

from labkit.cgroups import stop_counter
from labkit.child import disagreement, measured_peaks, with_traces
from labkit.errors import AgreementError, WorkerError
from labkit.peaks import places_of
from labkit.recorder import Recorder, Settings
from labkit.samplers import check_device, sampler_for
from labkit.timing import Finished, Metrics, Plan, measure_rounds
from labkit.traces import CompileWatch
from labkit.variants import Variant, as_variants
from labkit.worker import Run, resolution_refused, turn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from labkit.results import Comparison
    from labkit.trials import PeakMemory, Trial


def measure(
    fn: Callable[[], Any] | Variant,
    *,
    device: str | None = None,
    budget_s: float = 1.0,
    isolate: bool = False,
) -> Trial:
    """Time one function.

    Args:
        fn: does the work once, without arguments.
        device: where the work runs: None (the host, with any accelerator drained), "cpu",
            "cuda", ...
        budget_s: seconds to spend on samples; set-up and warm-up come on top.
        isolate: measure in a worker process instead of this one.

    Returns:
        A `Trial` with one sample a round: ``.median_s``, ``.fastest_s``, ``.times_s``.

    Raises:
        TypeError, ValueError: bad input, before anything is measured.
        WorkerError: with ``isolate``, the function raised, was killed or hung. In this process
            its own exception is raised.

    >>> trial = measure(lambda: sum(range(100)), budget_s=0.05)
    >>> 1e-8 < trial.fastest_s <= trial.median_s < 1e-3
    True
    """
    variants = as_variants({_name(fn): fn})
    settings = _settings(budget_s=budget_s, device=device, trace=False)
    comparison = Run(variants, settings).wait() if isolate else _here(variants, settings, None)
    failure = comparison.failures.get(comparison.baseline)
    if failure is not None:
        raise WorkerError(f"{failure}\n{failure.details}".rstrip())
    return comparison.trials[comparison.baseline]


def compare(
    variants: Mapping[str, Callable[[], Any] | Variant],
    *,
    budget_s: float = 5.0,
    confidence: float = 0.95,
    resolution: float = 0.02,
    agree: Callable[[Any, Any], Any] | None = None,
    memory: bool = False,
    isolate: bool = True,
    device: str | None = None,
    threads: int | None = None,
    deadline_s: float = 60.0,
    trace: bool = True,
) -> Comparison:
    """Time variants against the first of them, until the answer is known.

    Args:
        variants: functions without arguments (or `Variant`) by name; the first is the
            baseline. At least two.
        budget_s: seconds to spend on samples at most; set-up and warm-up come on top.
        confidence: probability that all intervals hold, however often somebody looks.
        resolution: differences below this share do not matter: 0.02 is 2 %.
        agree: called with the baseline's result and a variant's, before anything is timed;
            returns False or raises if they do not agree (`torch.testing.assert_close` fits).
        memory: also measure the peak memory of each variant, alone in a fresh process.
        isolate: run in a worker process. In this process (False) a variant that crashes takes
            it along, and what else happens here disturbs the measurement.
        device: as in `measure`.
        threads: for numerical libraries in the worker; None: the cores that may really be used.
        deadline_s: a set-up or a sample that takes longer counts as hung.
        trace: after the timing, run each variant a few times more to see what torch did, for
            `Comparison.explain`; with False that is left out.

    Returns:
        A `Comparison`. A variant that raises, is killed or hangs is a row that says why.

    Raises:
        TypeError, ValueError: bad input, before anything is measured.
        AgreementError: the variants do not compute the same thing.
        ResolutionError: the preflight shows that the resolution is far out of reach.
        UnpicklableError: a variant cannot be sent to the worker.

    >>> words = [str(i) for i in range(2000)]
    >>> def join():
    ...     return "".join(words)
    >>> def add():
    ...     text = ""
    ...     for word in words:
    ...         text = text + word
    ...     return text
    >>> comparison = compare({"join": join, "add": add}, agree=str.__eq__, budget_s=2)
    >>> comparison["add"].verdict.value
    'slower'
    """
    checked = as_variants(variants)
    if len(checked) < 2:
        raise ValueError(
            f"variants has {len(checked)} entries: {list(checked)}; a comparison needs at least "
            "two (measure() times one)"
        )
    if agree is not None and not callable(agree):
        raise TypeError(f"agree={agree!r}: give a function of two results, or None")
    settings = _settings(
        budget_s=budget_s,
        confidence=confidence,
        resolution=resolution,
        memory=memory,
        device=device,
        threads=threads,
        deadline_s=deadline_s,
        trace=trace,
    )
    if isolate:
        return Run(checked, settings, agree=agree).wait()
    if memory:
        raise ValueError("memory=True needs a fresh process for each variant: isolate=True")
    if threads is not None:
        raise ValueError(
            f"threads={threads}: the threads of this process are already set; use isolate=True"
        )
    return _here(checked, settings, agree)


def peak_memory(fn: Callable[[], Any] | Variant, *, device: str | None = None) -> PeakMemory:
    """The largest amount of memory that one evaluation needs, native allocations included.

    It runs alone in a fresh process, twice: what libraries load at first use is not counted.

    Args:
        fn: does the work once, without arguments.
        device: None and "cpu" measure the host's memory, "cuda" the accelerator's.

    Raises:
        WorkerError: the function raised, was killed or hung.

    >>> peak = peak_memory(lambda: bytearray(64 * 2**20))
    >>> 60 < peak.peak_bytes / 2**20 < 68
    True
    """
    name = _name(fn)
    comparison = Run(as_variants({name: fn}), _settings(device=device), kind="memory").wait()
    if name in comparison.failures:
        failure = comparison.failures[name]
        raise WorkerError(f"{failure}\n{failure.details}".rstrip())
    return comparison.memory[name]


def _name(fn: object) -> str:
    call = fn.call if isinstance(fn, Variant) else fn
    return getattr(call, "__name__", None) or type(call).__name__


def _settings(**given: Any) -> Settings:
    settings = Settings(**given)
    check_device(settings.device)
    return settings


def _here(
    variants: dict[str, Variant], settings: Settings, agree: Callable[[Any, Any], Any] | None
) -> Comparison:
    """Measure in this process: the same rounds, no worker."""
    # The caller's own exceptions are raised where the caller can debug them.
    metrics: dict[str, dict[str, float]] = {name: {} for name in variants}
    calls = {name: variant.prepare(metrics[name].update) for name, variant in variants.items()}
    if agree is not None:
        problem = disagreement(calls, agree, lambda *_: None)
        if problem is not None:
            raise AgreementError(
                f"{problem.variant!r} does not agree with {next(iter(calls))!r}: "
                f"{problem.message}. Nothing was timed: repair the variant, or loosen agree="
            )
    plan = Plan(settings.budget_s, settings.confidence, settings.resolution)
    sampler = sampler_for(settings.device)
    with turn():
        recorder = Recorder(variants, settings)
        for name, numbers in metrics.items():
            recorder.take(Metrics(name, numbers))
        # A full collection walks everything in this process; one of the youngest does not.
        rounds = measure_rounds(
            calls, plan, sampler=sampler, collect=lambda: gc.collect(0), stops=stop_counter()
        )
        for event in with_traces(rounds, calls, CompileWatch(), trace=settings.trace):
            recorder.take(event)
            if isinstance(event, Finished):
                recorder.end(event.reason)
        for peaks in measured_peaks(places_of(recorder.traces)):
            recorder.take(peaks)
    if recorder.ended == "refused" and recorder.noise_floor is not None:
        raise resolution_refused(settings, recorder.noise_floor)
    return recorder.comparison
