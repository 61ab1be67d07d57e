"""A measurement that runs in another process, seen from this one.

`Run` is one state machine for every way of waiting: `Run.wait` blocks, a panel calls
`Run.poll` from the kernel's event loop. No thread is started.
"""

from __future__ import annotations

import contextlib
import math
import pickle
import sys
import time
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import Timeout

from labkit.caveats import ways_to_resolve
from labkit.child import STAGES, Disagreement, Imported, Job, read_state, write_new_state
from labkit.errors import AgreementError, LabkitError, ResolutionError, WorkerError
from labkit.launch import (
    Worker,
    how_it_ended,
    keep,
    new_state,
    remove_state,
    start_worker,
    surroundings,
)
from labkit.machines import machine
from labkit.peaks import Peaks, Place, places_of
from labkit.pickling import dump_variants
from labkit.recorder import Recorder, Settings
from labkit.timing import Finished, Plan, Rounds, Stage
from labkit.trials import Failure, NoiseFloor
from labkit.turns import queue_lock
from labkit.usage import return_free_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from labkit.results import Comparison
    from labkit.turns import Lock
    from labkit.variants import Variant


class Status(StrEnum):
    """Where a run is."""

    NEW = "new"
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


def share_of(settings: Settings) -> tuple[Settings, int]:
    """How a run is measured on this machine: at once with how many others, with which threads.

    Never with more than there are cores for: threads that take turns measure each other.
    """
    usable = machine().usable_threads
    fit = 1 if sys.platform == "win32" else usable // (settings.threads or 1)
    at_once = max(1, min(settings.at_once, fit))
    return replace(settings, at_once=at_once), settings.threads or usable // at_once


def resolution_refused(settings: Settings, floor: NoiseFloor) -> ResolutionError:
    """The error for a resolution that the preflight found far out of reach."""
    asked, reachable = settings.resolution, floor.reachable_resolution
    needed_s = settings.budget_s * (reachable / asked) ** 2
    return ResolutionError(
        f"resolution={asked:g} is out of reach: at this moment {floor}. To go on, "
        f"{ways_to_resolve(reachable, needed_s)}, or try on a quieter machine"
    )


# Runs of this process that hold a worker: somebody who waits for the queue polls them, or a
# run that nobody polls would hold the queue for ever.
_active: list[Run] = []
# What this machine can reach, measured once for all runs of this process.
_peaks: list[Peaks] = []


@contextlib.contextmanager
def turn() -> Iterator[None]:
    """Wait until nobody else measures on this machine, and be the one who does.

    Raises:
        NotADirectoryError, PermissionError: as `labkit.turns.queue_lock`.
    """
    lock = queue_lock()
    _wait_for_turn(lock, math.inf)
    try:
        yield
    finally:
        lock.release()


def _wait_for_turn(lock: Lock, until_s: float) -> bool:
    while True:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            # It may be a run of this process that has the turn, which ends only if it is polled.
            for other in tuple(_active):
                # Its owner meets its errors; here it must only not stand still.
                with contextlib.suppress(Exception):
                    other.poll()
        else:
            return True
        if time.monotonic() >= until_s:
            return False
        time.sleep(0.02)


class Run:
    """One comparison in the worker: start it, poll it, stop it.

    Args:
        variants: checked variants by name; the first is the baseline.
        settings: how to measure.
        agree: says whether two variants' results agree; None checks nothing.
        about: fields of the `Comparison` that are only passed on.
        kind: "time" or "memory" (peak memory alone).
        method: how workers start, "fork" or "spawn"; None takes what this system can.

    Raises:
        UnpicklableError: a variant cannot be sent to the worker.
    """

    def __init__(
        self,
        variants: Mapping[str, Variant],
        settings: Settings,
        *,
        agree: Callable[[Any, Any], Any] | None = None,
        about: Mapping[str, Any] | None = None,
        kind: str = "time",
        method: str | None = None,
    ) -> None:
        self.variants = dict(variants)
        self.settings, self.threads = share_of(settings)
        self.status = Status.NEW
        self.stage = ""
        self.error: LabkitError | None = None
        self._agree = agree
        self._kind = kind
        self._method = method
        self._about = about
        self._dumped = dump_variants(self.variants, agree)
        self._recorder = Recorder(self.variants, self.settings, about=about, threads=self.threads)
        self._jobs: list[tuple[str, tuple[str, ...]]] = []
        self._job: tuple[str, tuple[str, ...]] = ("", ())
        self._worker: Worker | None = None
        self._lock: Lock | None = None
        self._state_path = ""
        self._places: list[Place] = []
        self._measured_s = 0.0
        self._job_elapsed_s = 0.0

    @property
    def done(self) -> bool:
        """Whether nothing more will come."""
        return self.status in (Status.DONE, Status.STOPPED, Status.FAILED)

    @property
    def comparison(self) -> Comparison:
        """The result so far; complete when the run is done."""
        return self._recorder.comparison

    @property
    def progress(self) -> float:
        """Share of the budget that is spent, from 0 to 1."""
        if self.done:
            return 1.0
        return min(1.0, (self._measured_s + self._job_elapsed_s) / self.settings.budget_s)

    @property
    def left_s(self) -> float:
        """Seconds of the budget that are left at most."""
        return max(0.0, self.settings.budget_s * (1 - self.progress))

    def start(self) -> None:
        """Queue for the machine; the worker starts when it is free."""
        if self.status is not Status.NEW:
            raise RuntimeError(f"this run is {self.status}; make a new one to run again")
        names = tuple(self.variants)
        if self._kind == "time":
            # What the machine can reach is measured when the variants' memory is free again.
            self._jobs = [("time", names)]
            # What a machine can reach cannot be seen beside others that use it.
            self._jobs += [("peaks", names)] if self.settings.at_once == 1 else []
        if self._kind == "memory" or self.settings.memory:
            self._jobs += [("memory", (name,)) for name in names]
        # The worker needs what this process has no use for.
        return_free_memory(collect=False)
        self._lock = queue_lock(self.settings.at_once)
        self.status = Status.QUEUED
        self.stage = "waiting: another timed run is using this machine"
        self.poll()

    def poll(self, timeout_s: float = 0.0) -> bool:
        """Take in what has happened, waiting at most ``timeout_s`` for something to happen.

        Returns:
            Whether anything changed.
        """
        try:
            if self.status is Status.QUEUED:
                return self._try_to_begin(timeout_s)
            if self.status is Status.RUNNING and self._worker is not None:
                return self._poll_worker(self._worker, timeout_s)
        except Exception:
            self._close(Status.FAILED, "failed")
            raise
        except BaseException:
            self._close(Status.STOPPED, "stopped")
            raise
        return False

    def wait(self, on_change: Callable[[Run], None] | None = None) -> Comparison:
        """Block until the end and return the result.

        Raises:
            AgreementError, ResolutionError: what was asked for is refused; nothing is lost.
            KeyboardInterrupt: the worker is ended first.
        """
        try:
            if self.status is Status.NEW:
                self.start()
            while not self.done:
                if self.poll(0.1) and on_change is not None:
                    on_change(self)
        except BaseException:
            self.stop()
            raise
        if self.error is not None:
            raise self.error
        return self.comparison

    def stop(self) -> None:
        """End the run at once; what was measured is kept."""
        if self.status is Status.RUNNING and self._worker is not None:
            with contextlib.suppress(Exception):
                self._poll_worker(self._worker, 0.0)
        if not self.done:
            self._close(Status.STOPPED, "stopped")

    def _try_to_begin(self, timeout_s: float) -> bool:
        if self._lock is None:
            return False
        if not _wait_for_turn(self._lock, time.monotonic() + timeout_s):
            return False
        self.status = Status.RUNNING
        _active.append(self)
        # The wait in the queue is not part of the measurement.
        self._recorder = Recorder(
            self.variants, self.settings, about=self._about, threads=self.threads
        )
        self._next_job()
        return True

    def _next_job(self) -> None:
        """Start a worker on what is left to do, or end the run."""
        failures = self._recorder.failures
        baseline = next(iter(self.variants))
        while self._jobs:
            kind, names = self._jobs.pop(0)
            if kind == "peaks":
                if self._find_peaks():
                    self._begin(kind, names)
                    return
                continue
            names = tuple(n for n in names if n not in failures)
            if kind == "time" and (
                baseline not in names or (len(names) < 2 and len(self.variants) > 1)
            ):
                self._recorder.end("failed")
            elif names:
                self._begin(kind, names)
                return
        ended = self._recorder.ended
        self._close(Status.DONE, "answered" if ended == "running" else ended)

    def _find_peaks(self) -> bool:
        """Take the rates that are known already; whether any are left to measure."""
        wanted = places_of(self._recorder.traces)
        known = {peaks.place: peaks for peaks in _peaks}
        for place in wanted:
            if place in known:
                self._recorder.take(known[place])
        self._places = [place for place in wanted if place not in known]
        return bool(self._places)

    def _begin(self, kind: str, names: tuple[str, ...]) -> None:
        # Each interval's share of the error was set by the number of variants at the start; a
        # variant that fails changes nothing for the others.
        share = max(1, len(names) - 1) / max(1, len(self.variants) - 1)
        plan = Plan(
            budget_s=max(0.05, self.settings.budget_s - self._measured_s),
            confidence=1 - (1 - self.settings.confidence) * share,
            resolution=self.settings.resolution,
            preflight=self._recorder.noise_floor is None,
            first_round=self._recorder.next_round,
        )
        job = Job(
            names,
            kind,
            plan,
            self.settings.device,
            self.threads,
            *surroundings(),
            self.settings.trace,
            tuple(self._places),
        )
        self._state_path = new_state()
        with Path(self._state_path).open("wb") as file:
            write_new_state(file)
        self.stage = "starting the worker"
        self._job = (kind, names)
        self._job_elapsed_s = 0.0
        try:
            self._worker = start_worker(
                self._state_path, threads=machine().usable_threads, method=self._method
            )
        except WorkerError as error:
            # Nobody's fault; but what has been measured is kept.
            if self.comparison.rounds == 0:
                raise
            self._blame("killed", str(error))
            return
        # A worker that is gone before it has read its job is found by the next poll.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._worker.connection.send_bytes(pickle.dumps(job))
            if kind == "time":
                self._worker.connection.send_bytes(self._dumped)
            elif kind == "memory":
                # Others' models would only be unpacked to be thrown away.
                alone = {name: self.variants[name] for name in names}
                self._worker.connection.send_bytes(dump_variants(alone, None))

    def _poll_worker(self, worker: Worker, timeout_s: float) -> bool:
        changed = False
        try:
            while worker is self._worker and worker.connection.poll(0.0 if changed else timeout_s):
                changed = True
                self._take(pickle.loads(worker.connection.recv_bytes()))
        except (EOFError, ConnectionResetError, BrokenPipeError):
            self._worker_gone(worker)
            return True
        if worker is self._worker and self._past_deadline(worker):
            self._blame("hung", f"no answer for {self.settings.deadline_s:g} s (deadline_s)")
            changed = True
        return changed

    def _take(self, event: object) -> None:
        self._recorder.take(event)
        match event:
            case Peaks():
                # Those of a busy moment serve this run alone.
                if event not in _peaks and not event.busy:
                    _peaks.append(event)
            case Imported(modules):
                if not machine().short_of_memory:
                    keep(modules)
            case Stage(text, variant):
                self.stage = f"{text}: {variant}" if variant else text
            case Rounds(_, elapsed_s):
                self._job_elapsed_s = elapsed_s
            case Disagreement(variant, message):
                self.error = AgreementError(
                    f"{variant!r} does not agree with {self._job[1][0]!r}: {message}. Nothing was "
                    "timed: repair the variant, or loosen agree="
                )
            case Finished(reason):
                if reason == "refused" and self._recorder.noise_floor is not None:
                    self.error = resolution_refused(self.settings, self._recorder.noise_floor)
                if self._job[0] == "time":
                    self._recorder.end(reason)
                self._end_job()
                if self.error is not None:
                    self._close(Status.FAILED, "failed")
                else:
                    self._next_job()

    def _worker_gone(self, worker: Worker) -> None:
        """The connection closed without a last word: somebody ended the worker."""
        self._blame("killed", f"the process ended: {how_it_ended(worker)}")

    def _past_deadline(self, worker: Worker) -> bool:
        index, _, since = read_state(self._state_path)
        late = index >= 0 and time.monotonic() - since > self.settings.deadline_s
        # What arrived since we looked is a sign of life, and the state is newer than we think.
        return late and not worker.connection.poll(0.0)

    def _blame(self, kind: str, message: str) -> None:
        """The worker is lost: say whose fault it was, and go on without that variant."""
        index, stage, _ = read_state(self._state_path)
        details = ""
        with contextlib.suppress(OSError):
            details = Path(self._state_path + ".err").read_text(errors="replace")[-1000:]
        job_kind, names = self._job
        if job_kind == "peaks":
            # Nothing of the variants was running.
            self._take(Finished("answered", self._job_elapsed_s))
            return
        if index >= 0 and STAGES[stage] == "tracing":
            # All that was to be timed has been timed.
            answered = all(ratio.answered for ratio in self.comparison.ratios.values())
            self._take(Finished("answered" if answered else "budget", self._job_elapsed_s))
            return
        # Between two variants nobody's code runs; the baseline stands for all of them.
        name = names[max(0, index)]
        what = STAGES[stage] if index >= 0 else "starting"
        self._recorder.take(Failure(name, what, kind, message, details))
        self._end_job()
        if job_kind == "time":
            self._jobs.insert(0, (job_kind, names))
        self._next_job()

    def _end_job(self) -> None:
        self._measured_s += self._job_elapsed_s
        self._job_elapsed_s = 0.0
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()
        remove_state(self._state_path)

    def _close(self, status: Status, ended: str) -> None:
        self._end_job()
        self._jobs.clear()
        if self in _active:
            _active.remove(self)
        if self._lock is not None:
            self._lock.release()
        if not self.done:
            self.status = status
            self.stage = ""
            self._recorder.end(ended)
