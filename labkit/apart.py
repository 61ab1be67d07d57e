"""Functions that run in a process of their own: what they import goes when they are done."""

from __future__ import annotations

import functools
import pickle
import sys
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from labkit import child
from labkit.errors import WorkerError
from labkit.launch import how_it_ended, new_state, remove_state, start_worker, surroundings
from labkit.machines import machine
from labkit.pickling import dumps
from labkit.usage import return_free_memory

if TYPE_CHECKING:
    from collections.abc import Callable

_P = ParamSpec("_P")
_T = TypeVar("_T")


def apart(function: Callable[_P, _T], *, warm: bool = True) -> Callable[_P, _T]:
    """Call a function in a process of its own, as if it were called here.

    This is for work that imports much and leaves little: exporting a model brings 150 MB of
    libraries into the process that does it, for good. In a worker nothing changes, for it ends
    soon; and what cannot be sent to another process is done here.

    Args:
        function: of a module, called with what can be pickled. What it changes in its arguments
            is not changed here.
        warm: False if it has no use for torch. Where memory is short, it then gets a process
            without it, and the idle server of workers goes; the next worker starts a new one.

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
            given = [dumps((called, args, settings))]
        except Exception:
            return function(*args, **settings)
        return _ask(given, getattr(function, "__name__", "it"), warm=warm)  # type: ignore[no-any-return]

    return called


def _ask(given: list[bytes], name: str, *, warm: bool) -> Any:
    torch = sys.modules.get("torch")
    call = child.Call(None if torch is None else torch.get_num_threads(), *surroundings())
    # The process needs more than this one can spare: models that are garbage by now, too.
    return_free_memory()
    state_path = new_state()
    worker = None
    try:
        worker = start_worker(
            state_path,
            threads=machine().usable_threads,
            warm=warm or not machine().short_of_memory,
        )
        worker.connection.send_bytes(pickle.dumps(call))
        # Taken out, so that nobody holds it while the answer is worked out.
        worker.connection.send_bytes(given.pop())
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
        remove_state(state_path)
    if answer.error is not None:
        raise answer.error from WorkerError(f"in a process of its own:\n{answer.details}")
    return answer.value
