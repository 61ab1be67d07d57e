"""What a container or a shared server grants this process: cores, memory, and what it took away.

Containers and shared servers divide a computer by control groups. `os.cpu_count` and
`os.sched_getaffinity` both miss their quotas.

Sources: Linux kernel documentation, "Control Group v2" (cpu.max, memory.max, cpu.stat) and "CFS
Bandwidth Control" (cpu.cfs_quota_us, throttled_time); man pages cgroups(7), proc_pid_mountinfo(5).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path("/")


@dataclass(frozen=True)
class Throttling:
    """How often and how long the quota stopped this process's groups since they were made.

    Take the difference of two readings.

    Attributes:
        periods: quota periods in which a group was stopped.
        throttled_s: seconds stopped, summed over the cores: may exceed the time that passed.
    """

    periods: int
    throttled_s: float


@dataclass(frozen=True)
class Load:
    """What else the machine does now; None: not readable.

    Attributes:
        load_1min: threads that run, want to, or wait for a disk, averaged over a minute.
        runnable: threads that run or want to at this moment, this one included.
        cpu_pressure: share of the last 10 s in which something waited for a core.
    """

    load_1min: float | None
    runnable: int | None
    cpu_pressure: float | None


def usable_cores(*, root: Path = ROOT, affinity: int | None = None) -> float:
    """Cores that this process may really use: the least of affinity and quotas; may be 0.5.

    Args:
        root: where proc and sys are.
        affinity: logical processors that the scheduler allows; None: ask it.

    >>> 0 < usable_cores(affinity=1) <= 1
    True
    """
    cores = float(_affinity() if affinity is None else affinity)
    return min([cores, *(found for f in _folders("cpu", root) if (found := _quota(f)))])


def _quota(folder: Path) -> float | None:
    """The cores that a group may use on average; None: as many as there are."""
    v1 = [read(folder / f"cpu.cfs_{part}_us") for part in ("quota", "period")]
    for pair in (read(folder / "cpu.max").split(), v1):
        # No quota is written "max" (v2) or -1 (v1).
        if len(pair) == 2 and all(part.isdecimal() and int(part) > 0 for part in pair):
            return int(pair[0]) / int(pair[1])
    return None


def memory_limit_bytes(*, root: Path = ROOT) -> int | None:
    """The least memory limit of this process's groups in bytes; None: there is none."""
    names = ("memory.max", "memory.limit_in_bytes")
    texts = [read(folder / name) for folder in _folders("memory", root) for name in names]
    # v1 writes "no limit" as the largest multiple of a page that fits 63 bits.
    limits = [int(text) for text in texts if text.isdecimal() and int(text) < 2**62]
    return min(limits, default=None)


def throttling(*, root: Path = ROOT) -> Throttling | None:
    """What the quota has cost this process's groups so far; None: there is no record.

    All levels count: a group is also stopped by the quota of the group that it is in, and each
    level records only its own.
    """
    found, periods, seconds = False, 0, 0.0
    for folder in _folders("cpu", root):
        stat = _stat(folder)
        if "nr_throttled" in stat:
            found = True
            periods += stat["nr_throttled"]
            # v2 counts microseconds, v1 nanoseconds.
            seconds += stat.get("throttled_usec", 0) / 1e6
            seconds += stat.get("throttled_time", 0) / 1e9
    return Throttling(periods, seconds) if found else None


def stop_counter(*, root: Path = ROOT) -> Callable[[], int] | None:
    """A function that says in how many periods a quota has stopped this process; None: no quota.

    A call takes some 20 microseconds, for between two samples. What was stopped is counted before
    it goes on: Linux does so when it gives the quota of the next period.
    """
    folders = [folder for folder in _folders("cpu", root) if _quota(folder)]
    return (lambda: sum(_stat(f).get("nr_throttled", 0) for f in folders)) if folders else None


def _stat(folder: Path) -> dict[str, int]:
    """What a group has used, and how often it was stopped."""
    found = re.findall(r"^(\w+) (\d+)$", read(folder / "cpu.stat"), re.MULTILINE)
    return {name: int(value) for name, value in found}


def load(*, root: Path = ROOT) -> Load:
    """What else the machine does now; costs well under a ms.

    >>> load().load_1min is None or load().load_1min >= 0
    True
    """
    average = re.match(r"([\d.]+) \S+ \S+ (\d+)/", read(root / "proc/loadavg"))
    pressure = re.search(r"some avg10=([\d.]+)", read(root / "proc/pressure/cpu"))
    return Load(
        load_1min=float(average[1]) if average else None,
        runnable=int(average[2]) if average else None,
        cpu_pressure=float(pressure[1]) / 100 if pressure else None,
    )


def waited_s(*, every_thread: bool = False, root: Path = ROOT) -> float | None:
    """For how long this process's main thread was ready to run and had no core; None: unknown.

    Args:
        every_thread: all threads that live now, added up.
        root: where proc is; tests give their own.

    Source: Linux, Documentation/scheduler/sched-stats.rst.
    """
    files = [root / "proc/self/schedstat"]
    if every_thread:
        files = list(root.glob("proc/self/task/*/schedstat"))
    # A thread may end between the listing and the reading.
    waits = [int(fields[1]) for fields in (read(f).split() for f in files) if len(fields) == 3]
    return sum(waits) / 1e9 if waits else None


def used_by_others_s(*, root: Path = ROOT) -> float | None:
    """Processor time that everything but this process and its offspring has used; None: unknown.

    All cores of the box together, since it was started: take the difference of two readings.
    What a hypervisor gave to other guests counts, too.

    Args:
        root: where proc is; tests give their own.

    Source: man page proc(5), /proc/stat and /proc/pid/stat.
    """
    total = read(root / "proc/stat").partition("\n")[0].split()
    if total[:1] != ["cpu"] or len(total) < 9:
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, total[1:9])
    own = 0
    for name in ("self", *_descendants(root)):
        # A name in brackets may hold blanks. A process may end between the listing and this.
        fields = read(root / "proc" / name / "stat").rpartition(")")[2].split()
        own += sum(map(int, fields[11:15]))
    return (user + nice + system + irq + softirq + steal - own) / os.sysconf("SC_CLK_TCK")


def _descendants(root: Path, name: str = "self") -> list[str]:
    """The processes that this one started, and those that they started, by number."""
    found = " ".join(read(f) for f in root.glob(f"proc/{name}/task/*/children")).split()
    return found + [grandchild for child in found for grandchild in _descendants(root, child)]


def read(path: Path) -> str:
    """What a file says; nothing where it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _folders(controller: str, root: Path) -> Iterator[Path]:
    """Folders of this process's groups, v1 and v2, from its own up to where they are mounted."""
    paths: dict[str, str] = {}
    for line in read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        paths |= dict.fromkeys(controllers.split(","), path)  # v2 names no controllers: ""
    for line in read(root / "proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        kind, *_, options = right.split(" ")
        key = {"cgroup2": "", "cgroup": controller}.get(kind)
        if key is None or key not in paths or (key and key not in options.split(",")):
            continue
        mount_root, mount_point = left.split(" ")[3:5]
        own = PurePosixPath(paths[key])
        # Without a cgroup namespace the path is the host's, and the mount shows a part of it.
        inside = own.relative_to(mount_root).parts if own.is_relative_to(mount_root) else ()
        inside = () if ".." in inside else inside
        for depth in range(len(inside), -1, -1):
            yield (root / mount_point.lstrip("/")).joinpath(*inside[:depth])


def _affinity() -> int:
    """Logical processors on which the scheduler may put this process."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    import psutil

    process = psutil.Process()
    if hasattr(process, "cpu_affinity"):  # Windows; macOS has no affinity
        return len(process.cpu_affinity())
    return os.cpu_count() or 1
