"""The worker's side: unpack a job, measure, send events; or call a function, send its result."""

from __future__ import annotations

import contextlib
import gc
import math
import mmap
import os
import pickle
import struct
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from labkit.cgroups import stop_counter, used_by_others_s, waited_s
from labkit.errors import DoesNotApplyError, MissingPackageError, WorkerError
from labkit.timing import (
    Calibrated,
    Event,
    Finished,
    Metrics,
    Plan,
    Stage,
    Traced,
    Waited,
    measure_rounds,
)
from labkit.traces import CompileWatch, Trace
from labkit.trials import Failure
from labkit.usage import end_before_others, return_free_memory
from labkit.variants import Variant, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping

    from labkit.peaks import Peaks, Place

# State that outlives a crash: index of the variant at work (-1: none), its stage, and when it
# began (time.monotonic, seconds; the same clock in every process of a machine).
STATE = struct.Struct("=iid")
STAGES = ("", "load", "setup", "warm-up", "measuring", "memory", "agreement", "tracing")
# A larger event is refused: it would stall the pipe, and no result of ours needs it.
MAX_EVENT_BYTES = 8 * 2**20
# For the rates of one device and dtype: enough to be within some percent of a longer look.
_PEAKS_S = 0.5
# Where a worker had to import these, the next one is likely to: a second or two each time. Not
# what compiles, which would be 100 MB in all of them.
COSTLY = ("onnxruntime", "torchao")
# Whether this process is a worker.
in_worker = False


@dataclass(frozen=True)
class Job:
    """What a worker is given; the variants follow, unless ``kind`` is "peaks".

    They come as a message of their own, cloudpickle of ``(dict of name to Variant, agree)``, so
    that nobody holds models twice.

    Attributes:
        names: of the variants to run, in order.
        kind: "time"; "memory" for the peak of the only variant; "peaks" for what this machine
            can reach.
        trace: whether to look at the operators after the timing.
        places: device, dtype and threads of the rates that "peaks" measures.
    """

    names: tuple[str, ...]
    kind: str
    plan: Plan
    device: str | None
    threads: int | None
    sys_path: tuple[str, ...]
    directory: str
    trace: bool = False
    places: tuple[Place, ...] = ()


@dataclass(frozen=True)
class Call:
    """A function to call; it follows as cloudpickle of ``(function, args, settings)``.

    Attributes:
        threads: of numerical libraries; None: left alone.
    """

    threads: int | None
    sys_path: tuple[str, ...]
    directory: str


@dataclass(frozen=True)
class Answer:
    """What became of a `Call`: ``value``, or what it raised and where."""

    value: Any = None
    error: BaseException | None = None
    details: str = ""


@dataclass(frozen=True)
class Imported:
    """Of what is `COSTLY`, what this worker had to import."""

    modules: tuple[str, ...]


@dataclass(frozen=True)
class Disagreement:
    """The variants do not compute the same thing."""

    variant: str
    message: str


class _Steps:
    """Writes down what runs now, where the parent can read it after this process has died."""

    def __init__(self, path: str, names: tuple[str, ...]) -> None:
        with Path(path).open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), STATE.size)
        self._index = {name: i for i, name in enumerate(names)}

    def __call__(self, name: str | None, stage: str) -> None:
        index = -1 if name is None else self._index[name]
        # One copy: pack_into would write zeros first, and a reader in between would see a time
        # long ago.
        self._memory[: STATE.size] = STATE.pack(index, STAGES.index(stage), time.monotonic())


def write_new_state(file: BinaryIO) -> None:
    """Begin a state file: nothing runs yet."""
    file.write(STATE.pack(-1, 0, time.monotonic()))


def read_state(path: str) -> tuple[int, int, float]:
    """What a worker does now: index of the variant, of its stage, and since when.

    The worker writes while this reads: only what was read twice alike is whole.
    """
    seen = b""
    while True:
        data = Path(path).read_bytes()[: STATE.size]
        if data == seen:
            index, stage, since_s = STATE.unpack(data)
            return int(index), int(stage), float(since_s)
        seen = data


def main(events_fd: int, state_path: str) -> int:
    """Entry of a forked worker: its output goes to a file, read if it crashes."""
    output = os.open(state_path + ".err", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    return work(Connection(events_fd), state_path)


def work(connection: Connection, state_path: str) -> int:
    """Receive one job, send its events, or one call and its answer; returns an exit code."""
    global in_worker  # noqa: PLW0603  (a process becomes a worker once)
    in_worker = True
    end_before_others(1000)
    order: Job | Call = pickle.loads(connection.recv_bytes())
    # Modules are looked for where the caller looks.
    sys.path[:] = list(order.sys_path)
    os.chdir(order.directory)
    if order.threads is not None:
        # Also read by numerical libraries that are imported later.
        set_threads(order.threads)
    if isinstance(order, Call):
        return _answer(connection)
    job = order
    before = set(sys.modules)
    steps = _Steps(state_path, job.names)

    def send(event: object) -> None:
        data = pickle.dumps(event)
        if len(data) > MAX_EVENT_BYTES:
            data = pickle.dumps(
                Failure(
                    getattr(event, "variant", None) or job.names[0],
                    "measuring",
                    "raised",
                    f"a result of {len(data)} bytes is too large to send (at most "
                    f"{MAX_EVENT_BYTES}); keep results inside the variant",
                )
            )
        connection.send_bytes(data)

    try:
        for event in _run(job, connection.recv_bytes, steps):
            if isinstance(event, Finished):
                new = tuple(n for n in COSTLY if n in sys.modules and n not in before)
                send(Imported(new))
            send(event)
    except BrokenPipeError:
        return 0
    connection.close()
    return 0


def _answer(connection: Connection) -> int:
    from labkit.pickling import dumps

    try:
        function, args, settings = pickle.loads(connection.recv_bytes())
        # Unpacking a model takes two further times its size.
        return_free_memory(collect=False)
        data = dumps(Answer(function(*args, **settings)))
    except (Exception, SystemExit) as error:
        message, details = describe(error)
        try:
            data = pickle.dumps(Answer(error=error, details=details))
            # Some errors can be written and not read.
            pickle.loads(data)
        except Exception:
            data = pickle.dumps(Answer(error=WorkerError(message), details=details))
    with contextlib.suppress(BrokenPipeError):
        connection.send_bytes(data)
    connection.close()
    return 0


def _run(job: Job, receive: Callable[[], bytes], steps: _Steps) -> Any:
    if job.kind == "peaks":
        steps(job.names[0], "tracing")
        yield from measured_peaks(job.places)
        yield Finished("answered", math.nan)
        return
    steps(job.names[0], "load")
    yield Stage("loading")
    try:
        variants, agree = pickle.loads(receive())
    except Exception as error:
        message, details = describe(error)
        steps(None, "")
        for name in job.names:
            hint = "make what it uses inside setup= (labkit.Variant(call, setup=...))"
            text = f"cannot be unpacked in the worker: {message}; {hint}"
            yield Failure(name, "load", "raised", text, details)
        yield Finished("failed", 0.0)
        return
    steps(None, "")
    variants = {name: variants[name] for name in job.names}
    watch = CompileWatch()

    def on_step(name: str | None, stage: str) -> None:
        steps(name, stage)
        watch(name, stage)

    calls = yield from prepare(variants, on_step, metrics=job.kind == "time")
    if job.threads is not None:
        # Once more, for the libraries that the set-up imported.
        set_threads(job.threads)
    if job.kind == "memory":
        yield from _memory(calls, job, steps)
        return
    if agree is not None and job.names[0] in calls:
        yield Stage("checking that the variants agree")
        problem = disagreement(calls, agree, on_step)
        if problem is not None:
            yield problem
            yield Finished("failed", 0.0)
            return
    if job.names[0] not in calls:
        yield Finished("failed", 0.0)
        return
    from labkit.samplers import sampler_for

    sampler = sampler_for(job.device)
    rounds = measure_rounds(
        calls,
        job.plan,
        sampler=sampler,
        on_step=on_step,
        threads=job.threads,
        warmed_up=_freeze,
        stops=stop_counter(),
    )
    yield from with_traces(rounds, calls, watch, steps, trace=job.trace)


def _freeze() -> None:
    """What exists now stays; the collector's turn between samples then costs microseconds."""
    gc.collect()
    gc.freeze()


def prepare(
    variants: dict[str, Variant],
    on_step: Callable[[str | None, str], None],
    *,
    metrics: bool = True,
) -> Generator[Stage | Metrics | Failure, None, dict[str, Callable[[], Any]]]:
    """Run every set-up; a variant whose set-up raises is left out.

    Args:
        variants: by name.
        on_step: as in `labkit.timing.measure_rounds`.
        metrics: whether to work out the numbers that variants bring along.

    Returns:
        Evaluations by name, after events of what happened.
    """
    calls: dict[str, Callable[[], Any]] = {}
    for name, variant in variants.items():
        numbers: dict[str, float] = {}
        yield Stage("setting up", name)
        on_step(name, "setup")
        try:
            calls[name] = variant.prepare(numbers.update if metrics else None)
        except (DoesNotApplyError, MissingPackageError) as error:
            on_step(None, "")
            yield Failure(name, "setup", "does not apply", str(error))
            continue
        except (Exception, SystemExit) as error:
            message, details = describe(error)
            on_step(None, "")
            yield Failure(name, "setup", "raised", message, details)
            continue
        on_step(None, "")
        if numbers:
            yield Metrics(name, numbers)
    return calls


def disagreement(
    calls: dict[str, Callable[[], Any]],
    agree: Callable[[Any, Any], Any],
    on_step: Callable[[str | None, str], None],
) -> Disagreement | None:
    """The first variant whose result does not agree with the baseline's, if there is one.

    ``agree(baseline's result, variant's result)`` says no by returning False or by raising;
    None counts as yes, as `torch.testing.assert_close` returns it.
    """
    names = list(calls)
    on_step(names[0], "agreement")
    try:
        expected = calls[names[0]]()
    except (Exception, SystemExit):
        # The warm-up will meet it again and report it as a failure of this variant.
        on_step(None, "")
        return None
    for name in names[1:]:
        on_step(name, "agreement")
        try:
            result = calls[name]()
        except (Exception, SystemExit):  # noqa: S112  (as above)
            continue
        try:
            answer = agree(expected, result)
            message = "agree returned False"
            said_no = answer is not None and not bool(answer)
        except (Exception, SystemExit) as error:
            said_no, message = True, describe(error)[0]
        if said_no:
            on_step(None, "")
            return Disagreement(name, message)
    on_step(None, "")
    return None


def with_traces(
    events: Iterable[Event],
    calls: Mapping[str, Callable[[], Any]],
    watch: CompileWatch,
    on_step: Callable[[str | None, str], None] = lambda *_: None,
    *,
    trace: bool = True,
) -> Iterator[Event]:
    """The events of a measurement, and before the last one what the variants do inside torch.

    Args:
        events: of `labkit.timing.measure_rounds`.
        calls: evaluations by name.
        watch: what torch.compile did for them.
        on_step: as in `labkit.timing.measure_rounds`.
        trace: False passes the events on as they are.
    """
    evaluations: dict[str, int] = {}
    began_s, waited_before_s = time.monotonic(), waited_s(every_thread=True) or 0.0
    others_before_s = used_by_others_s()
    for event in events:
        if isinstance(event, Calibrated):
            evaluations[event.variant] = event.evaluations_per_sample
        elif isinstance(event, Failure):
            evaluations.pop(event.variant, None)
        elif isinstance(event, Finished):
            waited = (waited_s(every_thread=True) or 0.0) - waited_before_s
            took_s = max(1e-9, time.monotonic() - began_s)
            others_s = used_by_others_s()
            held = None
            if others_s is not None and others_before_s is not None:
                held = max(0.0, others_s - others_before_s) / took_s
            yield Waited(max(0.0, waited / took_s), held)
        if isinstance(event, Finished) and event.reason in ("answered", "budget") and trace:
            whole = {name: (calls[name], number) for name, number in evaluations.items()}
            yield from _traces(whole, watch, on_step)
        yield event


def _traces(
    calls: dict[str, tuple[Callable[[], Any], int]],
    watch: CompileWatch,
    on_step: Callable[[str | None, str], None],
) -> Iterator[Stage | Traced]:
    """Nothing that goes wrong here takes anything from what was measured before."""
    if "torch" not in sys.modules:
        return
    from labkit.tracing import trace_call

    for name, (call, evaluations) in calls.items():
        yield Stage("looking at the operators", name)
        on_step(name, "tracing")
        try:
            trace = watch.add_to(trace_call(call, evaluations=evaluations), name)
        except (Exception, SystemExit) as error:
            trace = Trace(skipped=describe(error)[0])
        on_step(None, "")
        yield Traced(name, trace)


def measured_peaks(places: Iterable[Place]) -> Iterator[Stage | Peaks]:
    """What this machine can reach at each place; a rate that cannot be had is left out."""
    from labkit.peaks import measure_peaks

    for device, dtype, threads in places:
        yield Stage(f"measuring what this machine can reach ({device}, {dtype})")
        with contextlib.suppress(Exception):
            yield measure_peaks(threads=threads, budget_s=_PEAKS_S, device=device, dtype=dtype)


def set_threads(threads: int) -> None:
    """Give numerical libraries this many threads, loaded or not."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    if "numpy" in sys.modules or "torch" in sys.modules:
        import threadpoolctl

        threadpoolctl.threadpool_limits(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def _memory(calls: dict[str, Callable[[], Any]], job: Job, steps: _Steps) -> Any:
    from labkit.memory import measure_peak

    for name, call in calls.items():
        yield Stage("measuring memory", name)
        steps(name, "memory")
        try:
            peak = measure_peak(call, device=job.device)
        except (Exception, SystemExit) as error:
            message, details = describe(error)
            yield Failure(name, "memory", "raised", message, details)
        else:
            yield name, peak
        steps(None, "")
    yield Finished("answered", math.nan)


_ = Event  # the union that `_run` yields, beside Disagreement and (name, PeakMemory)
