"""The other side of `labkit.parallel`: torchrun's launcher, and the ranks that it starts.

`launch` runs in a process of its own, with a pickled `Launch` on its standard input, which then
stays open for as long as the ranks may live.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import multiprocessing
import os
import pickle
import queue
import re
import signal
import socket
import sys
import sysconfig
import threading
import traceback
import uuid
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from labkit.usage import end_before_others
from labkit.variants import describe

# How long ranks may take to find each other. They are on one machine, and began together.
_RENDEZVOUS_S = 60
_OURS = (str(Path(__file__).parent), sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"))


@dataclass(frozen=True)
class Launch:
    """What the launcher is told.

    Attributes:
        ranks: how many.
        threads: of numerical libraries in each.
        backend: of `torch.distributed`.
        timeout_s: after which a collective gives up.
        port: where the ranks meet; 0 for any free one.
        address: of the socket at which the parent listens.
        sys_path: for imports.
        directory: to work in.
    """

    ranks: int
    threads: int
    backend: str
    timeout_s: float
    port: int
    address: str
    sys_path: tuple[str, ...]
    directory: str


def launch() -> None:
    """Start the ranks as torchrun does, and say on standard output how they ended."""
    job: Launch = pickle.load(sys.stdin.buffer)
    # With all ranks: before the notebook that waits for them.
    end_before_others(950)
    # The parent's end of this pipe closes when it ends, however that happens.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Read by numerical libraries when they are imported.
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(job.threads)
    # All ranks are here: whatever this machine is called elsewhere does not matter.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    method = _start_method(job.backend)
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=job.ranks,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint=f"127.0.0.1:{job.port}",
        rdzv_configs={"timeout": _RENDEZVOUS_S, "is_host": True},
        local_addr="127.0.0.1",
        # A rank that is started again would not have what the others have.
        max_restarts=0,
        start_method=method,
        shutdown_timeout=1,
    )
    failures: dict[int, dict[str, Any]] = {}
    error = ""
    try:
        # What it is given, and what the ranks return, goes through its own pipes: keep both small.
        elastic_launch(config, serve)(job)
    except ChildFailedError as failed:
        for rank, failure in failed.failures.items():
            failures[rank] = {"exit_code": failure.exitcode, "signal": failure.signal_name()}
    except Exception as raised:
        error = describe(raised)[0]
    print(json.dumps({"failures": failures, "error": error}), flush=True)


def _start_method(backend: str) -> str:
    """How the ranks become processes of their own."""
    if backend == "gloo" and sys.platform == "linux":
        # Copies of this process: torch is imported once. Nothing has been computed here, so there
        # are no threads of numerical libraries that a copy would miss.
        return "fork"
    # CUDA and the frameworks of macOS want a process that never used them. It imports torch for
    # all ranks, while this one imports it for the launcher.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch.distributed", "labkit.ranks"])
    from multiprocessing.forkserver import ensure_running

    ensure_running()
    return "forkserver"


def _end_with_parent() -> None:
    # Not through sys.stdin: its lock would be held when the interpreter ends.
    while os.read(0, 1):
        pass
    # Alone: the server of the ranks follows, and the tracker of semaphores cleans up behind them.
    os.kill(os.getpid(), signal.SIGKILL)


def serve(job: Launch) -> None:
    """One rank: join the others, then do what the parent says until its connection closes."""
    # What this rank starts (a data loader) can then be ended with it.
    os.setsid()
    # The launcher's own answer to a signal is not a rank's.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    sys.path[:] = list(job.sys_path)
    os.chdir(job.directory)
    rank = int(os.environ["RANK"])
    link = socket.socket(socket.AF_UNIX)
    link.connect(job.address)
    connection = Connection(link.detach())
    connection.send((rank, os.getpid()))
    try:
        import torch
        from torch import distributed

        from labkit.child import set_threads

        set_threads(job.threads)
        if job.backend == "nccl":
            torch.cuda.set_device(rank)
        distributed.init_process_group(job.backend, timeout=dt.timedelta(seconds=job.timeout_s))
    except Exception as error:
        connection.send(("raised", *_described(error)))
        os._exit(1)
    _Server(connection).serve()
    # Others may be gone already; nothing is left to say to them.
    with contextlib.suppress(Exception):
        distributed.destroy_process_group()


class _Server:
    """Does one thing at a time; says where it is even while it hangs in one."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._todo: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self._kept: dict[int, Any] = {}
        self._main = threading.get_ident()

    def serve(self) -> None:
        threading.Thread(target=self._listen, daemon=True).start()
        self._send(("ready",))
        while (message := self._todo.get())[0] != "end":
            kind, payload, keep = message
            try:
                value = self._do(kind, payload, keep)
                try:
                    reply = pickle.dumps(("done", value))
                except Exception as error:
                    raise TypeError(
                        f"what it returned, a {type(value).__name__}, cannot be sent back: "
                        f"{error}. Return numbers or tensors"
                    ) from None
            except (Exception, SystemExit) as error:
                reply = pickle.dumps(("raised", *_described(error)))
            with self._lock:
                self._connection.send_bytes(reply)

    def _do(self, kind: str, payload: bytes, keep: int) -> Any:
        if kind == "call":
            return self._kept[keep](*pickle.loads(payload))
        function, given = pickle.loads(payload)
        value = function(*given)
        if kind == "run":
            return value
        if not callable(value):
            raise TypeError(
                f"prepare() needs a function that returns a function, not {value!r:.60}"
            )
        self._kept[keep] = value
        return None

    def _listen(self) -> None:
        # A rank that waits in a collective for somebody who is gone can only be ended from here.
        while True:
            try:
                message = self._connection.recv()
            except (EOFError, OSError):
                os._exit(1)
            if message[0] == "where":
                self._send(("at", _where(sys._current_frames().get(self._main))))  # noqa: SLF001
            else:
                self._todo.put(message)

    def _send(self, message: tuple[Any, ...]) -> None:
        with self._lock, contextlib.suppress(OSError):
            self._connection.send(message)


def _described(error: BaseException) -> tuple[str, str]:
    """One line that says what and at which line of the caller's code, and a short traceback."""
    _, details = describe(error)
    text = (str(error).splitlines() or [""])[0]
    # gloo begins with the file and line of its own source, and ends with advice.
    text = re.sub(r"^\[\S+\.cc:\d+\] ", "", text).partition(" This is typically")[0]
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(_OURS)
    ]
    at = f" (line {own[-1].lineno}, in {own[-1].name})" if own else ""
    return f"{type(error).__name__}: {text[:500]}{at}", details


def _where(frame: Any) -> str:
    """The innermost call, and the line of the caller's own code that led to it."""
    if frame is None:
        return ""
    innermost = frame.f_code.co_name
    while frame is not None and frame.f_code.co_filename.startswith(_OURS):
        frame = frame.f_back
    if frame is None:
        return f"in {innermost}"
    line = f"line {frame.f_lineno}, in {frame.f_code.co_name}"
    return line if innermost == frame.f_code.co_name else f"{line} (in {innermost})"
