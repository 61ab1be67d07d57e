"""Functions that run in a process of their own: what they import goes when they are done."""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from labkit import child
from labkit.errors import WorkerError
from labkit.launch import how_it_ended, start_worker
from labkit.machines import machine
from labkit.pickling import dumps

if TYPE_CHECKING:
    from collections.abc import Callable

_P = ParamSpec("_P")
_T = TypeVar("_T")


def apart(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Call a function in a process of its own, as if it were called here.

    This is for work that imports much and leaves little: exporting a model brings 150 MB of
    libraries into the process that does it, for good. In a worker nothing changes, for it ends
    soon; and what cannot be sent to another process is done here.

    Args:
        function: of a module, called with what can be pickled. What it changes in its arguments
            is not changed here.

    Raises:
        WorkerError: the process was ended before it had an answer.

    >>> import math, os
    >>> apart(os.getpid)() == os.getpid()
    False
    >>> apart(math.sqrt)(-1)
    Traceback (most recent call last):
    ValueError: math domain error
    """

    @functools.wraps(function)
    def called(*args: _P.args, **settings: _P.kwargs) -> _T:
        if child.in_worker:
            return function(*args, **settings)
        try:
            # The name of a module stands for this, and not for what it wraps.
            given = dumps((called, args, settings))
        except Exception:
            return function(*args, **settings)
        return _ask(given, getattr(function, "__name__", "it").strip("_"))  # type: ignore[no-any-return]

    return called


def _ask(given: bytes, name: str) -> Any:
    torch = sys.modules.get("torch")
    call = child.Call(
        threads=None if torch is None else torch.get_num_threads(),
        sys_path=tuple(p or str(Path.cwd()) for p in sys.path),
        directory=str(Path.cwd()),
    )
    handle, state_path = tempfile.mkstemp(prefix="labkit-")
    os.close(handle)
    worker = None
    try:
        worker = start_worker(state_path, threads=machine().usable_threads)
        worker.connection.send_bytes(pickle.dumps(call))
        worker.connection.send_bytes(given)
        answer: child.Answer = pickle.loads(worker.connection.recv_bytes())
        # Its memory is wanted for what comes next.
        how_it_ended(worker)
    except (EOFError, ConnectionResetError, BrokenPipeError):
        how = how_it_ended(worker) if worker else "before it began"
        raise WorkerError(
            f"{name} runs in a process of its own, and that ended: {how}. Close other notebooks "
            "(Kernel, Shut Down) if memory is short"
        ) from None
    finally:
        # Also where the reader interrupts it.
        if worker is not None:
            worker.kill()
        for path in (state_path, f"{state_path}.err"):
            with contextlib.suppress(OSError):
                Path(path).unlink()
    if answer.error is not None:
        raise answer.error from WorkerError(f"in a process of its own:\n{answer.details}")
    return answer.value
