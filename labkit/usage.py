"""What this process has used of the machine, as the operating system counts it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from dataclasses import dataclass
from pathlib import Path

if sys.platform != "win32":
    import resource


@dataclass(frozen=True)
class ProcessorUse:
    """Since the process began, or between two looks: ``later - earlier``.

    Attributes:
        page_faults: pages of memory that were given out at a first touch, without a disk.
        user_s: seconds of the process's own code, all threads together.
        system_s: seconds of the operating system for it.

    >>> used = ProcessorUse(300, 2.0, 1.0) - ProcessorUse(100, 1.0, 1.0)
    >>> used
    ProcessorUse(page_faults=200, user_s=1.0, system_s=0.0)
    >>> ProcessorUse(0, 3.0, 1.0).system_share
    0.25
    """

    page_faults: int = 0
    user_s: float = 0.0
    system_s: float = 0.0

    def __add__(self, other: ProcessorUse) -> ProcessorUse:
        return ProcessorUse(
            self.page_faults + other.page_faults,
            self.user_s + other.user_s,
            self.system_s + other.system_s,
        )

    def __sub__(self, other: ProcessorUse) -> ProcessorUse:
        return self + ProcessorUse(-other.page_faults, -other.user_s, -other.system_s)

    @property
    def system_share(self) -> float:
        """The operating system's share of the seconds; 0 where none were counted."""
        both_s = self.user_s + self.system_s
        return self.system_s / both_s if both_s > 0 else 0.0


def processor_use() -> ProcessorUse:
    """What this process has used up to now; zeros where the system does not count.

    Source: getrusage(2).

    >>> before = processor_use()
    >>> _ = sum(range(5_000_000))
    >>> used = processor_use() - before
    >>> used.user_s + used.system_s > 0
    True
    """
    if sys.platform == "win32":
        return ProcessorUse()
    used = resource.getrusage(resource.RUSAGE_SELF)
    return ProcessorUse(used.ru_minflt, used.ru_utime, used.ru_stime)


def end_before_others(score: int) -> None:
    """Where memory runs out, let the system end this process before those with a lower score.

    Linux would end the largest, and that is the reader's kernel. A worker that is ended becomes a
    row that says so, and a new server is started. Other systems are left alone.

    Args:
        score: from 0, as all processes, to 1000, before any of them; it cannot be lowered again.

    Source: proc_pid_oom_score_adj(5).
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(str(score), encoding="ascii")


def return_free_memory(*, collect: bool = True) -> None:
    """Give memory that this process has freed back to the system.

    glibc keeps what was freed for the next time, and after a training or the export of a model
    that is many MB which no other process can have. Other allocators are left alone. Costs some
    milliseconds, and the first touch of each page that is needed again: never between samples.

    Args:
        collect: look for garbage first; some tenths of a second with much imported.

    Source: malloc_trim(3).

    >>> return_free_memory()
    """
    if collect:
        gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
