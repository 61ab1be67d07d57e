"""Clocks: how one block of evaluations is timed on the host and on an accelerator."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from itertools import repeat
from typing import Any, Protocol

Call = Callable[[], Any]


class Sampler(Protocol):
    """Times a block of evaluations."""

    device: str
    clock: str

    def block(self, call: Call, evaluations: int) -> float:
        """Seconds that ``evaluations`` calls took together."""


class HostSampler:
    """`time.perf_counter` around the calls, as `timeit` does it.

    The garbage collector is off inside a block: its turn would fall on whichever variant
    happens to cross its threshold. Callers let it run between blocks.
    """

    device = "cpu"
    clock = "time.perf_counter"

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._now = clock

    def block(self, call: Call, evaluations: int) -> float:
        """Seconds that the calls took together."""
        now = self._now
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            turns = repeat(None, evaluations)
            start = now()
            for _ in turns:
                call()
            return now() - start
        finally:
            if was_enabled:
                gc.enable()


class AcceleratorSampler:
    """The host's clock, with the accelerator drained before and after each block."""

    clock = "time.perf_counter, synchronised"

    def __init__(self, device: str) -> None:
        import torch

        self.device = device
        self._synchronize = torch.accelerator.synchronize
        self._host = HostSampler()

    def block(self, call: Call, evaluations: int) -> float:
        """Seconds that the calls took together, with one synchronisation."""
        last = evaluations - 1

        def synchronised() -> None:
            for _ in range(last):
                call()
            call()
            self._synchronize()

        self._synchronize()
        return self._host.block(synchronised, 1)


class CudaSampler:
    """CUDA events around the block, one synchronisation a sample.

    Events are recorded on the current stream by the device itself, so the host's launch queue
    and the synchronisation are not in the time. The caches hold what the evaluation before
    left there ("warm").

    Source: CUDA C++ Programming Guide, "Elapsed Time" of events.
    """

    clock = "cuda events"

    def __init__(self, device: str) -> None:
        import torch

        self.device = device
        self._torch = torch
        event: Any = torch.cuda.Event
        self._start = event(enable_timing=True)
        self._end = event(enable_timing=True)

    def block(self, call: Call, evaluations: int) -> float:
        """Seconds between the two events."""
        synchronize = self._torch.cuda.synchronize
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            synchronize()
            self._start.record()
            for _ in repeat(None, evaluations):
                call()
            self._end.record()
            synchronize()
        finally:
            if was_enabled:
                gc.enable()
        return float(self._start.elapsed_time(self._end)) / 1e3


def check_device(device: str | None) -> str | None:
    """Refuse a device that is not here, with what is.

    >>> check_device("cpu")
    'cpu'
    >>> check_device("abacus")
    Traceback (most recent call last):
    ...
    ValueError: device='abacus' is not here; this machine has: cpu
    """
    if device is None or device == "cpu":
        return device
    here = ["cpu"]
    import torch

    if torch.accelerator.is_available():
        kind = torch.accelerator.current_accelerator().type  # type: ignore[union-attr]
        here += [kind, *(f"{kind}:{i}" for i in range(torch.accelerator.device_count()))]
    if device not in here:
        raise ValueError(f"device={device!r} is not here; this machine has: {', '.join(here)}")
    return device


def sampler_for(device: str | None) -> Sampler:
    """The clock that fits a device.

    With None, code that runs on the host gets the host's clock; where an accelerator is in
    use, it is drained around each sample, so that forgotten work cannot look fast.
    """
    if device == "cpu":
        return HostSampler()
    if device is None and "torch" not in sys.modules:
        return HostSampler()
    import torch

    if device is None and not torch.accelerator.is_available():
        return HostSampler()

    name = device or str(torch.accelerator.current_accelerator())
    if device is not None and name.startswith("cuda"):
        return CudaSampler(name)
    return AcceleratorSampler(name)
