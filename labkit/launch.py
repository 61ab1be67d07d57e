"""Starting workers: forked from a warm server where the system can, spawned elsewhere."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from labkit.errors import WorkerError
from labkit.forkserver import REPLY
from labkit.usage import return_free_memory

if TYPE_CHECKING:
    from collections.abc import Iterable

# Imported once by the server when the caller has them, so that a worker starts with them. Not
# pandas: notebooks make tables with it, variants seldom, and the server would hold 25 MB for all.
_PRELOAD = (
    *("numpy", "torch", "sklearn", "onnxruntime", "torchao"),
    # What compiling imports: two or three seconds in every worker that does. Where only its first
    # part is there, torch._dynamo, a profiler or an optimizer may have brought it, and 70 MB in
    # every worker would be for nothing.
    "torch._inductor.compile_fx",
)
# Importing torch takes about 2 s on a quiet machine; on a crowded one far longer.
_START_TIMEOUT_S = 120.0


class Worker(Protocol):
    """A running process that measures."""

    connection: Connection
    pid: int

    def exit_code(self) -> int | None:
        """None while it runs; negative: killed by that signal."""

    def kill(self) -> None:
        """End it at once, with everything that it started."""


def how_it_ended(worker: Worker) -> str:
    """In words, once its connection has closed."""
    deadline = time.monotonic() + 2.0
    while (code := worker.exit_code()) is None and time.monotonic() < deadline:
        time.sleep(0.005)
    if code is None:
        return "its connection closed"
    if code >= 0:
        return f"exit code {code}"
    name = {s.value: s.name for s in signal.Signals}.get(-code, str(-code))
    hint = ", which is what a system out of memory sends" if name == "SIGKILL" else ""
    return f"signal {name}{hint}"


class ServerEndedError(Exception):
    """The server was ended from outside, as by a system that is out of memory."""


class ForkServer:
    """The parent's end of `labkit.forkserver`."""

    def __init__(self, preload: tuple[str, ...], threads: int) -> None:
        self._lock = threading.RLock()
        self._ended: dict[int, int] = {}
        self._started: list[int] = []
        self._workers: set[int] = set()
        self._buffer = b""
        ours, theirs = socket.socketpair()
        environment = {**os.environ}
        # Numerical libraries size their thread pools at import, from the cores in the box.
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            environment[name] = str(threads)
        # torch compiles on all cores of the box at once, and each C++ compiler takes half a GB.
        environment.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(max(1, threads // 2)))
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "labkit.forkserver", str(theirs.fileno()), *preload],
                pass_fds=[theirs.fileno()],
                env=environment | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
                stdin=subprocess.DEVNULL,
                # A new session, so that an interrupt of the kernel does not reach it; it ends
                # when the socket closes, whatever happens to the kernel.
                start_new_session=True,
            )
        self._socket = ours
        self._owner = os.getpid()

    @property
    def alive(self) -> bool:
        """Whether this process can ask it for workers."""
        # A forked copy of this process must not talk on its parent's socket.
        return self._owner == os.getpid() and self._process.poll() is None

    def start(self, state_path: str, preload: tuple[str, ...]) -> ForkedWorker:
        """Fork a worker (blocks while the server still imports).

        Args:
            state_path: see `start_worker`.
            preload: modules that it starts with; the server imports what it lacks, and keeps it.

        Raises:
            ServerEndedError: somebody ended the server.
            WorkerError: it does not answer.
        """
        with self._lock:
            ours, theirs = socket.socketpair()
            with theirs:
                try:
                    request = "\0".join((state_path, *preload)).encode()
                    socket.send_fds(self._socket, [request], [theirs.fileno()])
                    deadline = time.monotonic() + _START_TIMEOUT_S
                    while not self._started and time.monotonic() < deadline:
                        self._read(max(0.0, deadline - time.monotonic()))
                except BaseException as error:
                    # Interrupted before the answer came: the next start must not take it for
                    # its own.
                    ours.close()
                    self.close()
                    if isinstance(error, OSError):
                        raise ServerEndedError(str(error)) from None
                    raise
            if not self._started:
                ours.close()
                self.close()
                raise WorkerError(
                    f"the worker's server did not answer in {_START_TIMEOUT_S:g} s; is the machine "
                    "out of memory? isolate=False measures in this process"
                )
            pid = self._started.pop()
            # A number that the system gives out again has a worker that runs.
            self._ended.pop(pid, None)
            self._workers.add(pid)
            return ForkedWorker(self, pid, Connection(ours.detach()))

    def _read(self, timeout_s: float) -> None:
        with self._lock:
            ready, _, _ = select.select([self._socket], [], [], timeout_s)
            if not ready:
                return
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionResetError("its socket is closed")
            self._buffer += data
            while len(self._buffer) >= REPLY.size:
                kind, pid, code = REPLY.unpack_from(self._buffer)
                self._buffer = self._buffer[REPLY.size :]
                if kind == b"s":
                    self._started.append(pid)
                else:
                    self._ended[pid] = code

    def exit_code(self, pid: int) -> int | None:
        """How a worker ended; None while it runs."""
        with self._lock:
            if pid not in self._ended:
                try:
                    self._read(0.0)
                except OSError:
                    return -signal.SIGKILL
            return self._ended.get(pid)

    @property
    def idle(self) -> bool:
        """Whether none of its workers runs."""
        return all(self.exit_code(pid) is not None for pid in self._workers)

    def close(self) -> None:
        """End the server and with it all its workers."""
        self._socket.close()
        if self._owner == os.getpid():
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


class ForkedWorker:
    """A worker forked by a `ForkServer`."""

    def __init__(self, server: ForkServer, pid: int, connection: Connection) -> None:
        self._server = server
        self.pid = pid
        self.connection = connection

    def exit_code(self) -> int | None:
        """None while it runs; negative: killed by that signal."""
        return self._server.exit_code(self.pid)

    def kill(self) -> None:
        """End it at once, with everything that it started."""
        # The server reports the end of every worker; a number that it has reported may
        # belong to somebody else by now.
        if self.exit_code() is None:
            for end in (os.killpg, os.kill):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    end(self.pid, signal.SIGKILL)
        self.connection.close()


class SpawnedWorker:
    """A worker started afresh, where processes cannot be forked (Windows)."""

    def __init__(self, state_path: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection: Any
        self.connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_spawned_main, args=(theirs, state_path), daemon=True
        )
        self._process.start()
        theirs.close()
        self.pid = self._process.pid or 0

    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.exitcode

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.join()
        self.connection.close()


def _spawned_main(connection: Connection, state_path: str) -> None:
    from labkit.child import work

    parent = multiprocessing.parent_process()

    def end_with_parent() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    # Blocked for as long as the parent lives: it costs the measurement nothing.
    threading.Thread(target=end_with_parent, daemon=True).start()
    work(connection, state_path)


_server: ForkServer | None = None
_server_lock = threading.Lock()
# What workers have imported, and the next ones are likely to need.
_kept: set[str] = set()


def keep(modules: Iterable[str]) -> None:
    """Let the next workers start with these modules, also if this process has no use for them."""
    _kept.update(modules)


def surroundings() -> tuple[tuple[str, ...], str]:
    """Where this process looks for modules, and its directory: a worker is told both."""
    directory = str(Path.cwd())
    # "" means the current directory.
    return tuple(p or directory for p in sys.path), directory


def new_state() -> str:
    """An empty file of which a worker is told the path."""
    handle, path = tempfile.mkstemp(prefix="labkit-")
    os.close(handle)
    return path


def remove_state(path: str) -> None:
    """Remove it, and what its worker wrote beside it."""
    for file in (path, f"{path}.err"):
        with contextlib.suppress(OSError):
            Path(file).unlink()


def start_worker(
    state_path: str, *, threads: int, method: str | None = None, warm: bool = True
) -> Worker:
    """Start a worker process.

    Args:
        state_path: a file that the worker maps to say what it does now.
        threads: what numerical libraries get when they are imported.
        method: "fork" or "spawn"; None takes what this system can.
        warm: start with the libraries that this process has. False: with none, and if no other
            worker runs, the server does not hold them meanwhile.

    Raises:
        WorkerError: the server did not start, or was ended twice.
    """
    # What this process has freed is memory that the worker may need.
    return_free_memory(collect=False)
    if method is None:
        method = "fork" if hasattr(os, "fork") and hasattr(socket, "send_fds") else "spawn"
    if method == "spawn":
        return SpawnedWorker(state_path)
    for _ in range(2):
        # One that was ended held nothing that would be lost, and its memory is free now.
        with contextlib.suppress(ServerEndedError):
            if not warm:
                close_idle_server()
            wanted = tuple(n for n in _PRELOAD if warm and (n in sys.modules or n in _kept))
            return _warm_server(wanted, threads).start(state_path, wanted)
    raise WorkerError(
        "the server of the workers was ended twice before it had a worker: that is what a system "
        "out of memory does. Close other notebooks (Kernel, Shut Down), or measure in this process "
        "with isolate=False"
    )


def _warm_server(preload: tuple[str, ...], threads: int) -> ForkServer:
    global _server  # noqa: PLW0603  (one warm server a process is the point)
    with _server_lock:
        if _server is not None and not _server.alive:
            _server.close()
            _server = None
        if _server is None:
            _server = ForkServer(preload, threads)
        return _server


def close_idle_server() -> None:
    """Give the memory of the server back, if no worker of it runs; the next one starts a new."""
    with _server_lock:
        if _server is not None and _server.alive and _server.idle:
            _server.close()


@atexit.register
def _close_server() -> None:
    if _server is not None and _server.alive:
        _server.close()
