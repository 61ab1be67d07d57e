"""A process that has the heavy libraries imported and forks a worker in a tenth of a second.

The standard library's forkserver imports the caller's main script again in every process, so
that a plain script needs an ``if __name__ == "__main__"`` guard; this one imports nothing of
the caller's. Its life hangs on the socket to the process that started it: when that closes,
for whatever reason, all workers are killed with everything that they started.

Run as ``python -m labkit.forkserver SOCKET_FD MODULE...``.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import select
import signal
import socket
import struct
import sys

from labkit.optional import quiet
from labkit.usage import end_before_others

# Request: a file descriptor comes along with the path of the state file and the names of modules
# that a worker is to start with, apart by zero bytes.
# Replies: kind ("s" for started, "e" for ended), process id, exit code (negative: signal).
REPLY = struct.Struct("!cqq")
_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    """Ask Linux to kill this process when the one that forked it dies."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def _fork(control: socket.socket, events_fd: int, state_path: str) -> int:
    pid = os.fork()
    if pid:
        os.close(events_fd)
        return pid
    status = 1
    try:
        control.close()
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        _die_with_parent()
        from labkit.child import main

        status = main(events_fd, state_path)
    finally:
        # No clean-up handlers: they belong to the server's copy of the libraries.
        os._exit(status)


def _import(names: list[str], tried: set[str]) -> None:
    """Once here instead of in every worker; what was tried is not tried again."""
    new = [name for name in names if name not in tried]
    if tried and not new:
        return
    tried.update(new)
    for name in new:
        # A library that does not import here will say so in the variant that needs it.
        with contextlib.suppress(Exception), quiet():
            importlib.import_module(name)
    import labkit.child  # noqa: F401

    # A worker's collector would write to every object that it looks at, and so get a copy of
    # its own of every page that it shares with this process.
    gc.collect()
    gc.freeze()


def serve(control_fd: int, preload: list[str]) -> None:
    """Import ``preload``, then fork on request until the socket closes."""
    control = socket.socket(fileno=control_fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_before_others(900)  # its workers go first
    # GNU OpenMP's threads spin for 10 ms when their work is done (300 000 turns). Every sample
    # has to wait for that (see labkit.timing); within 1 ms, a variant that goes on with its own
    # work finds them awake all the same.
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")
    tried: set[str] = set()
    _import(preload, tried)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    os.set_blocking(wake_read, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write)
    children: set[int] = set()
    try:
        while True:
            ready, _, _ = select.select([control.fileno(), wake_read], [], [])
            if wake_read in ready:
                os.read(wake_read, 512)
                for pid in list(children):
                    ended, status = os.waitpid(pid, os.WNOHANG)
                    if ended:
                        children.discard(pid)
                        # What the worker left running (a pool, a data loader) ends with it.
                        _kill_group(pid)
                        code = os.waitstatus_to_exitcode(status)
                        control.sendall(REPLY.pack(b"e", pid, code))
            if control.fileno() in ready:
                message, fds, _, _ = socket.recv_fds(control, 65536, 1)
                if not message:
                    return
                state_path, *wanted = message.decode().split("\0")
                _import(wanted, tried)
                pid = _fork(control, fds[0], state_path)
                children.add(pid)
                control.sendall(REPLY.pack(b"s", pid, 0))
    except (BrokenPipeError, ConnectionResetError):
        return
    finally:
        for pid in children:
            _kill_group(pid)


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2:])
