"""Peak memory of one evaluation, native allocations included."""

from __future__ import annotations

import ctypes
import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit import caveats
from labkit.trials import PeakMemory
from labkit.usage import return_free_memory

if TYPE_CHECKING:
    from collections.abc import Callable

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
# glibc's number for the size from which a block gets its own mapping (malloc.h).
_M_MMAP_THRESHOLD = -3


def _status_bytes(field: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{_STATUS} has no {field}")


def _fix_allocator() -> None:
    """Keep glibc from raising its mapping threshold with use.

    By default the first freed large block raises it (up to 32 MiB): later blocks come from
    the heap, stay there when freed, and hide the peak of the next evaluation.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, 128 * 1024)


def measure_peak(call: Callable[[], Any], *, device: str | None = None) -> PeakMemory:
    """The most memory that one evaluation holds, above what was there before.

    The evaluation runs twice: the first one loads what libraries load at first use, and is not
    counted. On the host the number is the kernel's high-water mark of resident memory, reset
    before the second evaluation (proc(5), clear_refs). On an accelerator it is the peak of
    torch's caching allocator.

    This changes the process's allocator; run it in a process of its own
    (`labkit.peak_memory` does).

    Args:
        call: the evaluation.
        device: None and "cpu" measure the host's memory, "cuda" the accelerator's.
    """
    if device is not None and device != "cpu":
        return _measure_accelerator(call, device)
    _fix_allocator()
    call()
    # So that the next evaluation asks the system for it again.
    return_free_memory()
    try:
        # The reset sets the mark to the present size, so both are read after it.
        _CLEAR_REFS.write_text("5")
        before = _status_bytes("VmRSS")
        method = "VmHWM, reset before the evaluation"
    except OSError as error:
        return _measure_since_start(call, str(error))
    call()
    peak = _status_bytes("VmHWM")
    return PeakMemory(max(0, peak - before), before, "cpu", method)


def _measure_since_start(call: Callable[[], Any], why: str) -> PeakMemory:
    """Where the mark cannot be reset: what the evaluation added to the peak since the start."""
    before, method = _peak_since_start()
    call()
    peak, _ = _peak_since_start()
    return PeakMemory(max(0, peak - before), before, "cpu", method, (caveats.memory_unreset(why),))


def _peak_since_start() -> tuple[int, str]:
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset), "peak working set since the start"
    import resource

    # Kilobytes on Linux, bytes on macOS (getrusage(2) of each).
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "ru_maxrss since the start"


def _measure_accelerator(call: Callable[[], Any], device: str) -> PeakMemory:
    import torch

    accelerator = torch.accelerator
    call()
    accelerator.synchronize()
    gc.collect()
    accelerator.reset_peak_memory_stats()
    before = accelerator.memory_allocated()
    call()
    accelerator.synchronize()
    peak = accelerator.max_memory_allocated()
    return PeakMemory(max(0, peak - before), before, device, "torch's caching allocator")
