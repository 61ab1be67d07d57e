"""Several processes of torch.distributed, driven from one: start them, ask them, end them.

The ranks are started by torchrun's own launcher
(https://docs.pytorch.org/docs/stable/elastic/run.html); a function that runs in them is plain
torch.distributed, and the same function runs on many machines when torchrun starts it there.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import math
import os
import pickle
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self, cast

from labkit.errors import RankError, UnpicklableError
from labkit.launch import surroundings
from labkit.pickling import dumps
from labkit.ranks import Launch

if TYPE_CHECKING:
    from collections.abc import Callable

# Importing torch twice, on a crowded machine.
_START_S = 120.0
# After the first rank has failed: for the others to say what they met.
_LAST_WORDS_S = 1.0
# For the launcher, which ends the others before it says how the first one ended.
_REPORT_S = 10.0
# For ranks that are asked to end: they leave the group, and their libraries clean up.
_END_S = 1.0
_BACKENDS = ("gloo", "nccl")


def run(function: Callable[..., Any], *args: Any, ranks: int = 2, **settings: Any) -> list[Any]:
    """Run a function once in every rank of a new process group, and end the group.

    Args:
        function: called with ``args`` in every rank, where `torch.distributed` is ready.
        *args: sent to all ranks.
        ranks: how many.
        **settings: as `Ranks` takes them.

    Returns:
        What each rank returned, rank 0 first.

    Raises:
        RankError: a rank raised, was killed, or did not answer in time.

    >>> def add_up(start):
    ...     import torch
    ...     from torch import distributed
    ...
    ...     number = torch.tensor([start + distributed.get_rank()])
    ...     distributed.all_reduce(number)
    ...     return int(number)
    >>> run(add_up, 10, ranks=2)
    [21, 21]
    """
    with Ranks(ranks, **settings) as group:
        return group.run(function, *args)


class Ranks:
    """A process group that waits for work: ``with Ranks(2) as ranks: ranks.run(f)``.

    Args:
        number: of ranks.
        threads: of numerical libraries in each rank.
        backend: "gloo" for processors, "nccl" for GPUs, one a rank; None takes "nccl" where there
            are enough GPUs.
        timeout_s: a collective that waits longer raises in the ranks that wait.
        deadline_s: a call that takes longer is ended from outside, whatever it hangs in.
        port: where the ranks meet; None for any free one.

    Raises:
        TypeError, ValueError: bad input, before anything is started.
        RankError: the ranks did not start.

    One that is not closed ends with this process, or when nothing refers to it any more.
    """

    def __init__(
        self,
        number: int,
        *,
        threads: int = 1,
        backend: str | None = None,
        timeout_s: float = 30.0,
        deadline_s: float = 60.0,
        port: int | None = None,
    ) -> None:
        _check_count("number", number)
        _check_count("threads", threads)
        for name, seconds in (("timeout_s", timeout_s), ("deadline_s", deadline_s)):
            if not (math.isfinite(seconds) and seconds > 0):
                raise ValueError(f"{name}={seconds}: give seconds above 0, such as 30")
        self.number = number
        self.threads = threads
        self.backend = _backend(backend, number)
        self.timeout_s = timeout_s
        self.deadline_s = deadline_s
        self._next = 0
        self._broken = ""
        if not hasattr(socket, "AF_UNIX"):
            raise RankError("ranks need Linux or macOS; on Windows, the Linux of WSL has them")
        self._processes = _Processes(self._launch(_check_port(port)))
        self._end = weakref.finalize(self, self._processes.end)
        try:
            self._processes.accept(number, time.monotonic() + _START_S)
            self._gather(_START_S, "ready")
        except BaseException:
            self.close()
            raise

    def _launch(self, port: int) -> Launch:
        sys_path, directory = surroundings()
        return Launch(
            ranks=self.number,
            threads=self.threads,
            backend=self.backend,
            timeout_s=self.timeout_s,
            port=port,
            address="",
            sys_path=sys_path,
            directory=directory,
        )

    @property
    def pids(self) -> list[int]:
        """Process numbers, rank 0 first; empty when they are closed."""
        return list(self._processes.pids)

    def run(
        self, function: Callable[..., Any], *args: Any, deadline_s: float | None = None
    ) -> list[Any]:
        """Call a function in every rank and wait for all.

        Args:
            function: anything that cloudpickle takes, so also one of a notebook cell.
            *args: sent to all ranks.
            deadline_s: for this call alone.

        Returns:
            What each rank returned, rank 0 first.

        Raises:
            UnpicklableError: the function or an argument cannot be sent.
            RankError: a rank raised, was killed, or did not answer in time. All ranks are ended.
        """
        return self._ask("run", _dumps(function, args), 0, deadline_s)

    def prepare(self, make: Callable[..., Callable[..., Any]], *args: Any) -> Callable[..., Any]:
        """Make a function in every rank that stays there, and return one that calls them all.

        This is for what is timed: data and models are sent once, a call is a few bytes.

        Args:
            make: called with ``args`` in every rank; returns the function to keep.
            *args: sent to all ranks.

        Returns:
            A function that calls what was kept, in all ranks at the same time, and returns the
            list of their results. It takes arguments that can be pickled.

        >>> def counter():
        ...     seen = []
        ...     return lambda: seen.append(1) or len(seen)
        >>> with Ranks(2) as ranks:
        ...     count = ranks.prepare(counter)
        ...     count(), count()
        ([1, 1], [2, 2])
        """
        self._next += 1
        kept = self._next
        self._ask("prepare", _dumps(make, args), kept, None)
        return lambda *given: self._ask("call", dumps(given), kept, None)

    def close(self) -> None:
        """End all ranks and their launcher; what is left after a second is killed."""
        self._broken = self._broken or "it was closed"
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = f" ({self._broken})" if self._broken else ""
        return f"Ranks({self.number}, backend={self.backend!r}, threads={self.threads}){state}"

    def _ask(self, kind: str, payload: bytes, kept: int, deadline_s: float | None) -> list[Any]:
        if self._broken:
            raise RankError(f"these ranks have ended: {self._broken}. Make new ones: Ranks(...)")
        try:
            self._processes.tell((kind, payload, kept))
            return self._gather(deadline_s or self.deadline_s, "done")
        except BaseException as error:
            # A RankError has said more already.
            if not isinstance(error, RankError):
                self._broken = type(error).__name__
            self._processes.end(asked=False)
            raise

    def _gather(self, deadline_s: float, expected: str) -> list[Any]:
        """One answer from every rank, or the reason why there is none."""
        processes = self._processes
        answers: dict[int, Any] = {}
        wrong: dict[int, str] = {}
        details = ""
        deadline = time.monotonic() + deadline_s
        late = False
        while len(answers) + len(wrong) < self.number:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                late = True
                break
            for rank, message in processes.receive(left_s, [*answers, *wrong]):
                if message is None:
                    wrong[rank] = "ended"
                elif message[0] == expected:
                    answers[rank] = message[1] if len(message) > 1 else None
                    continue
                else:
                    wrong[rank] = f"raised {message[1]}"
                    details = details or message[2]
                # The first one is the cause; what follows from it comes soon or never.
                deadline = min(deadline, time.monotonic() + _LAST_WORDS_S)
        if not wrong and not late:
            return [answers[rank] for rank in range(self.number)]
        raise self._failure(wrong, deadline_s, expected, answers, details)

    def _failure(
        self,
        wrong: dict[int, str],
        deadline_s: float,
        expected: str,
        answers: dict[int, Any],
        details: str,
    ) -> RankError:
        processes = self._processes
        silent = [rank for rank in range(self.number) if rank not in wrong and rank not in answers]
        places = processes.where(silent)
        report = processes.report(_REPORT_S) if "ended" in wrong.values() else {}
        reasons: dict[int, str] = {}
        for rank, what in wrong.items():
            reasons[rank] = _how_it_ended(report, rank) if what == "ended" else what
        for rank in silent:
            at = places.get(rank, "")
            waited = f"had not answered after {deadline_s:g} s" if not wrong else "was still busy"
            reasons[rank] = f"{waited}{f', at {at}' if at else ''}"
        text = "; ".join(f"rank {rank} {reason}" for rank, reason in reasons.items())
        self._broken = text
        hint = f" {processes.errors()}".rstrip() if expected == "ready" else ""
        processes.end(asked=False)
        return RankError(f"{text}. All {self.number} ranks were ended{hint}", reasons, details)


@dataclass
class _Rank:
    connection: Connection
    pid: int


class _Processes:
    """The launcher and its ranks, as operating system and sockets see them."""

    def __init__(self, job: Launch) -> None:
        self._folder = tempfile.mkdtemp(prefix="labkit-ranks-")
        address = str(Path(self._folder) / "socket")
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(address)
        self._server.listen(job.ranks)
        self._ranks: dict[int, _Rank] = {}
        with (Path(self._folder) / "errors").open("wb") as errors:
            self._launcher = subprocess.Popen(
                [sys.executable, "-c", "from labkit.ranks import launch; launch()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
                # An interrupt of the kernel is answered here; the pipe ends the launcher.
                start_new_session=True,
            )
        _alive.add(self)
        stdin = cast("IO[bytes]", self._launcher.stdin)
        # It may have died already; then it cannot be waited for, which says so.
        with contextlib.suppress(BrokenPipeError):
            stdin.write(pickle.dumps(replace(job, address=address)))
            stdin.flush()

    @property
    def pids(self) -> list[int]:
        return [self._ranks[rank].pid for rank in sorted(self._ranks)]

    def accept(self, number: int, deadline: float) -> None:
        """Wait until every rank has called."""
        while len(self._ranks) < number:
            ready, _, _ = select.select([self._server], [], [], 0.1)
            if ready:
                link, _ = self._server.accept()
                connection = Connection(link.detach())
                rank, pid = connection.recv()
                self._ranks[rank] = _Rank(connection, pid)
            elif self._launcher.poll() is not None or time.monotonic() > deadline:
                report = self.report(0.0)
                why = report.get("error") or self.errors() or "no reason was given"
                self.end()
                raise RankError(f"the ranks did not start: {why}")

    def tell(self, message: tuple[Any, ...]) -> None:
        for rank in self._ranks.values():
            # One that is gone is found when its answer is missing.
            with contextlib.suppress(OSError):
                rank.connection.send(message)

    def receive(self, timeout_s: float, known: list[int]) -> list[tuple[int, Any]]:
        """What ranks that are not ``known`` have said; None from one that is gone."""
        asked = {r.connection: rank for rank, r in self._ranks.items() if rank not in known}
        result: list[tuple[int, Any]] = []
        ready = wait_for(list(asked), timeout_s)
        for connection, rank in asked.items():
            if connection not in ready:
                continue
            try:
                result.append((rank, pickle.loads(connection.recv_bytes())))
            except (EOFError, OSError):
                result.append((rank, None))
        return result

    def where(self, ranks: list[int]) -> dict[int, str]:
        """At which line ranks are that do not answer."""
        for rank in ranks:
            with contextlib.suppress(OSError):
                self._ranks[rank].connection.send(("where",))
        places: dict[int, str] = {}
        deadline = time.monotonic() + _LAST_WORDS_S
        while set(places) < set(ranks) and time.monotonic() < deadline:
            known = [rank for rank in self._ranks if rank in places or rank not in ranks]
            for rank, message in self.receive(0.1, known):
                places[rank] = message[1] if message and message[0] == "at" else ""
        return places

    def report(self, timeout_s: float) -> dict[str, Any]:
        """How the launcher says that its ranks ended; empty if it says nothing."""
        output = self._launcher.stdout
        if output is None or output.closed or not select.select([output], [], [], timeout_s)[0]:
            return {}
        try:
            found = json.loads(output.readline())
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def errors(self) -> str:
        """The end of what was written to standard error."""
        with contextlib.suppress(OSError):
            text = (Path(self._folder) / "errors").read_text(errors="replace").strip()
            return "\n".join(text.splitlines()[-5:])[-1000:]
        return ""

    def end(self, *, asked: bool = True) -> None:
        """End all processes: by force, and if they are not ``asked`` first, at once."""
        if self not in _alive:
            return
        _alive.discard(self)
        if asked:
            self.tell(("end", b"", 0))
        ranks, self._ranks = self._ranks, {}
        deadline = time.monotonic() + (_END_S if asked else 0.0)
        for rank in ranks.values():
            if not _gone(rank.connection, deadline):
                for kill in (os.killpg, os.kill):
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        kill(rank.pid, signal.SIGKILL)
            rank.connection.close()
        # The server that forked the ranks ends with the launcher, and the tracker of Python's
        # semaphores after both: killed, it would leave them in the system.
        self._launcher.kill()
        self._launcher.wait()
        for pipe in (self._launcher.stdin, self._launcher.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._server.close()
        shutil.rmtree(self._folder, ignore_errors=True)


# Processes that this one has started and not ended.
_alive: set[_Processes] = set()


@atexit.register
def _end_all() -> None:
    for processes in list(_alive):
        processes.end()


def _gone(connection: Connection, deadline: float) -> bool:
    """Whether the process at the other end has closed it: its number may be another's by now."""
    try:
        while connection.poll(max(0.0, deadline - time.monotonic())):
            connection.recv_bytes()
    except (EOFError, OSError):
        return True
    return False


def _how_it_ended(report: dict[str, Any], rank: int) -> str:
    found = report.get("failures", {}).get(str(rank))
    if found is None:
        # The launcher ends the others as soon as one is gone.
        return "was ended with it" if report.get("failures") else "ended without a word"
    code = found["exit_code"]
    if code >= 0:
        return f"ended with exit code {code}"
    if found["signal"] == "SIGKILL":
        return "was killed (SIGKILL, which is also what a system out of memory sends)"
    return f"was killed ({found['signal']})"


def _check_count(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: give a whole number, such as 2")
    if value < 1:
        raise ValueError(f"{name}={value}: give at least 1")


def _backend(asked: str | None, number: int) -> str:
    if asked is not None and asked not in _BACKENDS:
        raise ValueError(f"backend={asked!r}: give one of {', '.join(_BACKENDS)}, or None")
    if asked == "gloo":
        return asked
    import torch

    gpus = torch.cuda.device_count()
    if asked == "nccl" and gpus < number:
        raise ValueError(
            f"backend='nccl' needs a GPU for each of {number} ranks, and this machine has {gpus}; "
            "backend='gloo' runs on the processor"
        )
    return "nccl" if gpus >= number else "gloo"


def _check_port(port: object) -> int:
    if port is None:
        return 0
    if not isinstance(port, int) or not 0 < port < 65536:
        raise ValueError(f"port={port!r}: give a number from 1 to 65535, or leave it out")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ValueError(
                f"port={port} cannot be used ({error.strerror}); leave port= out for a free one"
            ) from None
    return port


def _dumps(function: Callable[..., Any], args: tuple[Any, ...]) -> bytes:
    if not callable(function):
        raise TypeError(f"{function!r:.60} cannot be called; give a function")
    try:
        return dumps((function, args))
    except Exception as error:
        name = getattr(function, "__name__", type(function).__name__)
        raise UnpicklableError(
            f"{name!r} cannot be sent to the ranks: {error}. Make what cannot be sent inside the "
            "function, or give it as an argument that can be pickled"
        ) from None
