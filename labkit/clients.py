"""The same function on many inputs: in this process, or by a client on the machines of a cluster.

What a point costs lies far above what a scheduler costs, so each input is one task. A task says
on which machine it ran; a task whose worker is lost runs again elsewhere, a bounded number of
times.

Sources: the documentation of dask.distributed, "Resilience" and "Worker State Machine"; of Spark,
"Cluster Mode Overview" and `spark.task.maxFailures`; of systemd, machine-id(5).
"""

from __future__ import annotations

import contextlib
import hmac
import math
import os
import pickle
import platform
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from functools import cache
from typing import IO, TYPE_CHECKING, Any

from labkit.cgroups import ROOT
from labkit.errors import WorkerError
from labkit.launch import close_idle_server
from labkit.machines import machine
from labkit.optional import need, quiet
from labkit.pickling import dumps
from labkit.usage import end_before_others

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from pathlib import Path

# Threads of one process share its random state, its thread pools and its runs.
_one_at_a_time = threading.Lock()
# A scheduler that has lost its last worker may get another one; nobody waits for it for ever.
_NO_WORKERS_S = 60.0
_LOOK_S = 1.0
_UNPACKED = "it cannot be unpacked there"


@dataclass(frozen=True)
class Outcome:
    """What became of one input.

    Attributes:
        index: of the input.
        value: what the function returned; None if it did not.
        error: why there is no value.
        machine_id: where it ran, see `machine_id`; empty if that is not known.
    """

    index: int
    value: Any
    error: str = ""
    machine_id: str = ""


class StoppedError(Exception):
    """Nobody waits for this task any more."""


def machine_id(*, root: Path = ROOT) -> str:
    """Which machine this process runs on: stable, and it names neither the host nor its user.

    Two nodes of one model differ, and so does the same computer with other limits (cores,
    memory), since results depend on them. machine-id(5) asks to keep the identity of a system
    to oneself: it only serves as the key of a keyed hash. Where a system has none, the hash is of
    the host's name alone, which somebody who guesses the name could confirm.

    Args:
        root: where etc and var are; tests give their own.

    >>> len(machine_id()), machine_id() == machine_id()
    (8, True)
    """
    return _identity(root, platform.node(), machine(accelerators=False).fingerprint)


@cache
def _identity(root: Path, host: str, fingerprint: str) -> str:
    key = "labkit"
    for path in ("etc/machine-id", "var/lib/dbus/machine-id"):
        with contextlib.suppress(OSError):
            key = (root / path).read_text().strip() or key
            break
    # Machines that were copied from one image may share the first; their hosts' names differ.
    return hmac.digest(key.encode(), f"labkit {host} {fingerprint}".encode(), "sha256").hex()[:8]


def call_on(
    client: Any, function: Callable[[Any], Any], inputs: Sequence[Any]
) -> Generator[Outcome, None, None]:
    """Call a function on each input, and give each outcome when it is there.

    Close the iterator (`contextlib.closing`) to cancel what has not begun.

    Args:
        client: a ``dask.distributed.Client``, a ``pyspark.sql.SparkSession``, or None for one
            after the other in this process.
        function: of one input. It travels with all that it uses, unless that is imported from a
            module: then the other machine needs the module.
        inputs: any number.

    Raises:
        TypeError, ValueError: no client of these, or one that runs tasks in this process.
        UnpicklableError: the function cannot be sent.

    >>> [outcome.value for outcome in call_on(None, abs, [-1, 2])]
    [1, 2]
    """
    kind = check_client(client)
    if kind == "":
        return (_outcome(function, index, each) for index, each in enumerate(inputs))
    work = _Call(dumps(function), tuple(p for p in sys.path if p), machine_id())
    if machine().short_of_memory:
        # Workers of a client may be here, too, and the server's are not needed meanwhile.
        close_idle_server()
    return (_on_dask if kind == "dask" else _on_spark)(client, work, list(inputs))


def check_client(client: Any) -> str:
    """What kind of client it is: "dask", "spark", or "" for None.

    Raises:
        TypeError, ValueError: as `call_on`.
    """
    if client is None:
        return ""
    package = type(client).__module__.partition(".")[0]
    if package == "distributed" and hasattr(client, "map"):
        if client.asynchronous:
            raise ValueError("client= is asynchronous: give Client(..., asynchronous=False)")
        if client.status != "running":
            raise ValueError(f"client= is {client.status}: make a new one, Client(address)")
        if str(client.scheduler.address).startswith("inproc://"):
            raise ValueError(
                "the workers of client= are threads of this process, which disturb each other: "
                "give Client(LocalCluster(processes=True))"
            )
        return "dask"
    if package == "pyspark" and hasattr(client, "sparkContext"):
        return "spark"
    raise TypeError(
        f"client={client!r}: give a dask.distributed.Client, a pyspark.sql.SparkSession, or None "
        "for this process"
    )


def stop_if_unwanted() -> None:
    """End this task if the client that asked for it has cancelled it.

    Raises:
        StoppedError: it has. Outside of a task of Dask nothing happens.
    """
    if "distributed" not in sys.modules:
        return
    from distributed import get_worker

    try:
        worker = get_worker()
        key = worker.get_current_task()
    except (ValueError, AttributeError):
        return
    task = worker.state.tasks.get(key)
    if task is None or task.state == "cancelled":
        raise StoppedError("cancelled by the client")


@dataclass(frozen=True)
class _Call:
    """The function on its way: a task of Dask or Spark."""

    function: bytes
    paths: tuple[str, ...]
    asked_on: str

    def __call__(self, numbered: tuple[int, Any]) -> Outcome:
        index, given = numbered
        if machine_id() == self.asked_on:
            # Before the notebook that waits for it; another worker tries again.
            end_before_others(950)
        # Modules of the caller are found where they lie at the same place, as on one machine.
        sys.path += [path for path in self.paths if path not in sys.path]
        with _one_at_a_time, _own_environment():
            try:
                function = pickle.loads(self.function)
            except Exception as error:
                why = f"{_UNPACKED}: {type(error).__name__}: {error}; install it on every machine"
                return Outcome(index, None, why, machine_id())
            return _outcome(function, index, given)


def _outcome(function: Callable[[Any], Any], index: int, given: Any) -> Outcome:
    try:
        value = function(given)
    except Exception as error:
        return Outcome(index, None, f"{type(error).__name__}: {error}", machine_id())
    return Outcome(index, value, "", machine_id())


@contextlib.contextmanager
def _own_environment() -> Iterator[None]:
    """Without what Dask's nanny sets: processes that are measured would start with it.

    MALLOC_TRIM_THRESHOLD_ makes every large allocation a system call, which the same code in a
    notebook does not pay.
    """
    added: dict[str, str] = {}
    if "distributed" in sys.modules:
        import dask

        found = dask.config.get("distributed.nanny.pre-spawn-environ", {})
        added = {k: str(v) for k, v in found.items() if os.environ.get(k) == str(v)}
    for name in added:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(added)


def _on_dask(client: Any, work: _Call, inputs: list[Any]) -> Generator[Outcome, None, None]:
    from distributed import KilledWorker

    suspects: list[tuple[int, Any]] = []
    workers = _Workers(client)
    for outcome, error in _finished(client, work, list(enumerate(inputs)), workers):
        # A lost worker casts suspicion on all that it had: what is left over runs alone, so
        # that only what really ends its worker is given up.
        if isinstance(error, KilledWorker):
            suspects.append((outcome.index, inputs[outcome.index]))
        else:
            yield outcome
    for suspect in suspects:
        yield from (outcome for outcome, _ in _finished(client, work, [suspect], workers))


class _Workers:
    """Looks whether a cluster has any, for how long it had none, and asks for those it has lost.

    Args:
        client: of the cluster. Until its first worker is there, its own queue may take hours; but
            where there has been one, somebody else may have ended all of them.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._last_look = -math.inf
        self._last_seen = time.monotonic() if self._had_some() else math.inf

    def _had_some(self) -> bool:
        try:
            events = self._client.get_events("all")
        except Exception:
            return False
        return any(about.get("action") == "add-worker" for _, about in events)

    def seen(self) -> None:
        """One of them has answered just now."""
        self._last_seen = time.monotonic()

    def gone(self) -> bool:
        """Whether there has been none for so long that nobody waits for one any more."""
        now = time.monotonic()
        if now > self._last_look + _LOOK_S:
            self._last_look = now
            if _any_worker(self._client):
                self._last_seen = now
            else:
                _start_lost_workers(self._client)
        return now > self._last_seen + _NO_WORKERS_S


def _finished(
    client: Any, work: _Call, numbered: list[tuple[int, Any]], workers: _Workers
) -> Iterator[tuple[Outcome, BaseException | None]]:
    """Each outcome, and what Dask itself had against it."""
    import dask
    from distributed import as_completed

    left = {index for index, _ in numbered}
    if client.status != "running":
        yield from ((_lost(index, client), None) for index in sorted(left))
        return
    # The warning is about data that could be loaded on the workers; this is the function.
    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TB"}):
        futures = client.map(work, numbered, pure=False, key="labkit-point")
    index_of = {future.key: index for future, (index, _) in zip(futures, numbered, strict=True)}
    try:
        arriving: Any = as_completed(  # type: ignore[no-untyped-call]
            futures, with_results=True, raise_errors=False, loop=client.loop
        )
        while left:
            if arriving.has_ready():
                future, result = next(arriving)
                index = index_of[future.key]
                left.discard(index)
                workers.seen()
                if isinstance(result, Outcome):
                    yield result, None
                elif future.status == "error":
                    error = result[1]
                    yield Outcome(index, None, _reason(error)), error
                else:
                    yield _lost(index, client), None
                continue
            if client.status == "closed" or workers.gone():
                break
            # Nothing is waited for in a lock, so that an interrupt works at once.
            time.sleep(0.02)
        yield from ((_lost(index, client), None) for index in sorted(left))
    finally:
        # What is not yet there is not wanted any more; what is there may be forgotten.
        with contextlib.suppress(Exception):
            client.cancel(futures)


def _any_worker(client: Any) -> bool:
    """Whether the scheduler has workers; True where it does not answer, which is another fault."""
    try:
        return bool(client.nthreads())
    except Exception:
        return True


def _start_lost_workers(client: Any) -> None:
    """Have a cluster of this process start again what it should have and does not have.

    15 s after a worker ended (`distributed.deploy.lost-worker-timeout`), Dask's clusters give it up
    for good if it is away just then, be it after a later end.
    """
    with contextlib.suppress(Exception):  # no such cluster, or it is being closed
        client.cluster.scale(len(client.cluster.worker_spec))


def _lost(index: int, client: Any) -> Outcome:
    if client.status == "running":
        why = f"the cluster has had no worker for {_NO_WORKERS_S:g} s"
    elif client.status in ("closed", "closing"):
        why = "the client was closed, or its scheduler ended, before this was finished"
    else:
        why = "the connection to the scheduler was lost before this was finished"
    return Outcome(index, None, f"not finished: {why}")


def _reason(error: BaseException) -> str:
    """What Dask had against a task, without the addresses of its workers."""
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        times = error.allowed_failures + 1
        return f"WorkerError: the worker process ended {times} times while it ran this"
    return f"{type(error).__name__}: {error}"


def _on_spark(session: Any, work: _Call, inputs: list[Any]) -> Generator[Outcome, None, None]:
    context = session.sparkContext
    tasks = context.parallelize(list(enumerate(inputs)), max(1, len(inputs)))
    try:
        found = tasks.map(work).collect()
    except Exception as error:
        failures = context.getConf().get("spark.task.maxFailures", "4, or 1 with master local[N]")
        first = next(iter(str(error).splitlines()), "")
        raise WorkerError(
            f"Spark gave the job up ({first}). A task that ends its worker is tried "
            f"spark.task.maxFailures times (here {failures})"
        ) from error
    yield from found


@contextlib.contextmanager
def local_spark(cores: int = 2) -> Iterator[Any]:
    """A `pyspark.sql.SparkSession` on this machine alone, and nothing of it afterwards.

    It listens on the loopback interface only, has no user interface, and what its Java process
    writes is kept back. A task that ends its worker is tried four times.

    Args:
        cores: worker processes at the same time.

    Raises:
        MissingPackageError: pyspark is not installed.
        WorkerError: Java is missing, a session is there already, or Spark did not start.
    """
    sql, spark = need("pyspark.sql"), need("pyspark")
    if spark.SparkContext._active_spark_context is not None:  # noqa: SLF001  (it has no other name)
        raise WorkerError("a Spark session runs in this process: give it as client=, or stop() it")
    settings = {
        "spark.master": f"local[{cores},4]",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
    }
    session = None
    try:
        with tempfile.TemporaryFile() as log:
            try:
                with _spark_environment(), _standard_error_to(log), quiet():
                    session = sql.SparkSession.builder.config(map=settings).getOrCreate()
            except Exception as error:
                log.seek(0)
                said = log.read().decode(errors="replace").strip().splitlines()
                why = said[-1] if said else error
                raise WorkerError(
                    f"Spark did not start, and needs Java 17 or newer: {why}"
                ) from None
        yield session
    finally:
        if session is not None:
            session.stop()
        _end_java(spark.SparkContext)


@contextlib.contextmanager
def _spark_environment() -> Iterator[None]:
    """Workers are of this Python: the first python3 on the path may be another one."""
    wanted = {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _standard_error_to(file: IO[bytes]) -> Iterator[None]:
    """What is started inside inherits the file as its standard error."""
    before = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def _end_java(context: Any) -> None:
    """A stopped session leaves its Java process running for the next one."""
    gateway, context._gateway, context._jvm = context._gateway, None, None  # noqa: SLF001
    if gateway is None:
        return
    gateway.shutdown()
    # Spark's launcher ends with its standard input.
    gateway.proc.stdin.close()
    try:
        gateway.proc.wait(timeout=10)
    except subprocess.TimeoutExpired:
        gateway.proc.kill()
        gateway.proc.wait()
