"""Taking one evaluation apart: what torch ran, how often, for how long, on how many bytes.

This happens after the timing and outside of it. Nothing here is used for a verdict; it is the
evidence for `labkit.explaining`.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from labkit import flops
from labkit.eager import without_compiler
from labkit.traces import OperatorUse, Trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# Written without being read.
_FILLS = ("copy_", "fill_", "zero_", "normal_", "uniform_", "random_", "bernoulli_")
_COPIES = ("copy_", "_to_copy")
# These read as much of their table as they return.
_GATHERS = ("aten.embedding", "aten.index", "aten.gather", "aten.index_select")
# An evaluation that takes longer is traced once; the best of a few is nearer to the truth.
_SHORT_S = 0.2
_REPEATS = 3
# Processor time is compared with wall time over at least this long.
_SHARE_S = 5e-3


@dataclass
class _Use:
    calls: int = 0
    time_s: float = 0.0
    bytes_moved: int = 0


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operator that runs below it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.uses: dict[tuple[str, str, str, str], _Use] = {}
        self.storages: dict[int, int] = {}
        self.transfer_bytes = 0
        self.transfer_s = 0.0
        self.threads = 0
        self._drain = _drain()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self._drain()
        start = time.perf_counter()
        result = func(*args, **kwargs)
        self._drain()
        elapsed_s = time.perf_counter() - start
        self._note(func, args, kwargs, result, elapsed_s)
        return result

    def _note(self, func: Any, args: Any, kwargs: Any, result: Any, elapsed_s: float) -> None:
        taken, given = _tensors((args, kwargs)), _tensors(result)
        name = str(getattr(func, "overloadpacket", func))
        key = (
            name,
            _dtype_of(taken or given),
            str((taken or given)[0].device) if taken or given else "",
            ", ".join("x".join(map(str, t.shape)) or "1" for t in taken),
        )
        use = self.uses.setdefault(key, _Use())
        use.calls += 1
        use.time_s += elapsed_s
        use.bytes_moved += _traffic(func, name, taken, given)
        self.threads = max(self.threads, torch.get_num_threads())
        for tensor in (*taken, *given):
            for pointer, size in _storages(tensor):
                self.storages[pointer] = max(size, self.storages.get(pointer, 0))
        copied = name.endswith(_COPIES) and taken and given
        if copied and given[0].device != taken[-1].device:
            self.transfer_bytes += _size(given[0])
            self.transfer_s += elapsed_s


def _drain() -> Callable[[], None]:
    """Waits for the accelerator, where there is one."""
    if torch.accelerator.is_available():
        synchronize: Callable[[], None] = torch.accelerator.synchronize
        return synchronize
    return lambda: None


def _tensors(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def _dtype_of(tensors: Iterable[torch.Tensor]) -> str:
    """Of the first tensor of floats; else of the first small integers: those of a quantizer."""
    names = [str(t.dtype).removeprefix("torch.") for t in tensors]
    for wanted in ("float", "bfloat", "qint", "quint", "int8", "uint8"):
        for name in names:
            if name.startswith(wanted):
                return name
    return ""


def _parts(tensor: torch.Tensor) -> list[torch.Tensor]:
    """A tensor, or the plain tensors that a subclass (a quantized weight, say) is made of."""
    if hasattr(tensor, "__tensor_flatten__"):
        names, _ = tensor.__tensor_flatten__()
        return [part for name in names for part in _parts(getattr(tensor, name))]
    if tensor.layout is not torch.strided:
        return []
    return [tensor]


def _size(tensor: torch.Tensor) -> int:
    """Bytes of memory that a tensor stands for; an expanded one repeats what it has."""
    return sum(
        min(part.numel() * part.element_size(), part.untyped_storage().nbytes())
        for part in _parts(tensor)
    )


def _storages(tensor: torch.Tensor) -> list[tuple[int, int]]:
    return [(p.untyped_storage().data_ptr(), p.untyped_storage().nbytes()) for p in _parts(tensor)]


def _traffic(func: Any, name: str, taken: list[torch.Tensor], given: list[torch.Tensor]) -> int:
    """Bytes that an operator reads and writes."""
    schema = getattr(func, "_schema", None)
    if getattr(func, "is_view", False):
        return 0
    written = sum(_size(t) for t in given)
    if name in _GATHERS:
        return 2 * written
    read = sum(_size(t) for t in taken)
    if name.endswith(_FILLS) and taken:
        read -= _size(taken[0])
    elif schema is not None:
        outs = {a.name for a in schema.arguments if a.is_out}
        if outs and given:
            read -= written
    return read + written


def trace_call(call: Callable[[], Any], *, evaluations: int = 1) -> Trace:
    """Run one evaluation a few times more and note what it does.

    Args:
        call: the evaluation; it has run before.
        evaluations: how many of them make a sample.

    Returns:
        A `Trace`; without operators if the evaluation does not use torch.
    """
    start = time.perf_counter()
    operators = _run_below(call)
    # Times below the mode include its own work: at most a stop sign for what is long.
    elapsed_s = time.perf_counter() - start
    if not operators.uses:
        return Trace(cpu_share=_cpu_share(call, evaluations, elapsed_s))
    runs = [operators]
    if elapsed_s < _SHORT_S:
        runs += [_run_below(call) for _ in range(_REPEATS - 1)]
    best = min(runs, key=lambda run: sum(use.time_s for use in run.uses.values()))
    places = [device for _, _, device, _ in best.uses if device]
    dispatch_s, below_s = _dispatch_s(max(set(places), key=places.count) if places else "cpu")
    # Being looked at costs time, too: on small operators more than they take.
    extra_s = max(0.0, below_s - dispatch_s)
    uses = tuple(
        OperatorUse(*key, u.calls, max(0.0, u.time_s - extra_s * u.calls), u.bytes_moved)
        for key, u in best.uses.items()
    )
    return Trace(
        operators=uses,
        flops=flops.count(call),
        working_set_bytes=sum(best.storages.values()),
        transfer_bytes=best.transfer_bytes,
        transfer_s=best.transfer_s,
        threads=best.threads,
        dispatch_s=dispatch_s,
        cpu_share=_cpu_share(call, evaluations, elapsed_s),
    )


def _run_below(call: Callable[[], Any]) -> _Operators:
    without_compiler(_Operators.__torch_dispatch__)
    operators = _Operators()
    with operators:
        call()
    return operators


def _cpu_share(call: Callable[[], Any], evaluations: int, elapsed_s: float) -> float:
    """Processor time over wall time, at the moment of least disturbance."""
    best = 0.0
    for _ in range(_REPEATS if elapsed_s < _SHORT_S else 1):
        wall, busy, turns = 0.0, 0.0, 0
        while turns == 0 or (wall < _SHARE_S and turns < 1000):
            began_s, began_busy_s = time.perf_counter(), time.process_time()
            for _ in range(evaluations):
                call()
            busy += time.process_time() - began_busy_s
            wall += time.perf_counter() - began_s
            turns += 1
        best = max(best, busy / wall)
    return best


def _dispatch_s(device: str) -> tuple[float, float]:
    """What an operator on one number takes, alone and inside of `_Operators`, in seconds.

    Almost all of it is getting there.
    """
    one = torch.zeros(1, device=device)
    drain = _drain()
    alone_s = below_s = math.inf
    calls = 200
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(calls):
            torch.add(one, one)
        drain()
        alone_s = min(alone_s, time.perf_counter() - start)
        operators = _run_below(lambda: [torch.add(one, one) for _ in range(calls)])
        below_s = min(below_s, sum(use.time_s for use in operators.uses.values()))
    return alone_s / calls, below_s / calls
