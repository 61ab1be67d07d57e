"""What results depend on: the processor, the cores that may really be used, memory, versions.

Everything is read from files that the kernel keeps up to date, so a look costs milliseconds and
loads no numerical library. Where a system says nothing (macOS and Windows have no /proc), psutil
and `os` answer, and what nobody can tell is None.

Sources: Linux kernel documentation, "Control Group v2" (cpu.max, memory.max, cpu.stat) and "CFS
Bandwidth Control" (cpu.cfs_quota_us, throttled_time); man pages cgroups(7), proc_pid_mountinfo(5).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from functools import cache
from importlib import metadata
from pathlib import Path, PurePosixPath
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from labkit.units import format_bytes

ROOT = Path("/")

# Each feature that results depend on: the names that systems give it (Linux flags of x86 and ARM,
# macOS sysctl), and what its absence means.
_FEATURES: dict[str, tuple[set[str], str]] = {
    "avx2": ({"avx2", "avx2_0"}, "vectors are 128 bits wide, half of what AVX2 has"),
    "avx512f": ({"avx512f"}, "vectors are 256 bits wide at most"),
    "vnni": (
        {"avx512_vnni", "avx_vnni", "avx512vnni"},
        "an int8 product takes several instructions instead of one, and need not be faster than "
        "float32",
    ),
    "bf16": ({"avx512_bf16", "bf16"}, "bfloat16 is converted to float32 and back around the work"),
    "fp16": ({"avx512_fp16", "asimdhp", "fp16"}, "float16 is converted to float32 and back"),
    "amx_int8": ({"amx_int8"}, "int8 matrix products run on the vector units"),
    "amx_bf16": ({"amx_bf16"}, "bfloat16 matrix products run on the vector units"),
    "neon": ({"asimd", "neon", "advsimd"}, "it is no ARM processor with vectors"),
    "dotprod": ({"asimddp", "dotprod"}, "int8 products go through 16 bits, and need not be faster"),
    "i8mm": ({"i8mm"}, "int8 matrix products run one row at a time"),
    "sve": ({"sve"}, "vectors are 128 bits wide"),
    "sve2": ({"sve2"}, "vectors are those of NEON or of the first SVE"),
    "sme": ({"sme"}, "matrix products run on the vector units"),
}
_DEVICES = ("gpu", "cuda", "mps", "xpu")
# cpuinfo of ARM gives numbers only. Source: util-linux, sys-utils/lscpu-arm.c.
_ARM_PARTS = {
    "0xd08": "Cortex-A72",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd40": "Neoverse-V1",
    "0xd49": "Neoverse-N2",
    "0xd4f": "Neoverse-V2",
}


@dataclass(frozen=True)
class Accelerator:
    """A GPU or its like. kind: "cuda", "mps", "xpu"; memory_bytes: None where it has no own."""

    kind: str
    name: str
    memory_bytes: int | None = None


@dataclass(frozen=True, repr=False)
class Machine:
    """The facts about a computer that results depend on. No host name, no user name.

    Attributes:
        processor: its name.
        architecture: "x86_64", "aarch64".
        isa: instructions that matter here and that the processor has; empty if it does not say.
        visible_cores: logical processors in the box.
        usable_cores: how many of them may really be used: the least of affinity and cgroup
            quotas. May be below 1.
        memory_bytes: memory in the box.
        memory_limit_bytes: what the cgroup allows, where that is less.
        swap_bytes: swap space.
        cache_bytes: sizes of "L1d", "L2", "L3" as one core sees them, where readable.
        accelerators: None: nobody looked (see `machine`).
        system: operating system and kernel.
        python: version.
        versions: of the installed libraries that are measured, and of labkit.
        governor: how the clock frequency is chosen; None: not readable.
        turbo: whether the processor may exceed its base frequency; None: not readable.
        virtual_machine: whether a hypervisor shows itself; None: cannot tell.
        container: whether it looks like one.

    >>> here = machine()
    >>> Machine.from_dict(here.to_dict()) == here
    True
    >>> here.has("1 core"), here.missing("1 GiB")
    (True, None)
    """

    processor: str
    architecture: str
    isa: tuple[str, ...]
    visible_cores: int
    usable_cores: float
    memory_bytes: int
    memory_limit_bytes: int | None
    swap_bytes: int
    cache_bytes: dict[str, int] = field(hash=False)
    accelerators: tuple[Accelerator, ...] | None
    system: str
    python: str
    versions: dict[str, str] = field(hash=False)
    governor: str | None = None
    turbo: bool | None = None
    virtual_machine: bool | None = None
    container: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.usable_cores < math.inf:
            raise ValueError(f"usable_cores is {self.usable_cores}; it should be above 0")

    @property
    def usable_threads(self) -> int:
        """Threads that fit into the usable cores, at least 1: for ``torch.set_num_threads``.

        Rounded down: a thread more than the quota pays for is stopped in every period.
        """
        return max(1, int(self.usable_cores + 1e-9))

    @property
    def usable_memory_bytes(self) -> int:
        """Memory in the box, or the limit where that is less."""
        return min(self.memory_bytes, self.memory_limit_bytes or self.memory_bytes)

    @property
    def fingerprint(self) -> str:
        """Equal for machines of one kind: processor, usable cores, memory and system.

        Versions and accelerators are left out: the first change on the same machine, the second
        are not always looked for.
        """
        kind = [
            self.processor,
            self.architecture,
            self.isa,
            self.visible_cores,
            round(self.usable_cores, 1),
            round(self.usable_memory_bytes / 2**30),
            self.system.split(" ")[0],
        ]
        return hashlib.sha256(json.dumps(kind).encode()).hexdigest()[:12]

    def has(self, need: str) -> bool:
        """Whether the machine has what a claim needs.

        Args:
            need: a feature ("vnni", "amx_bf16"), a device ("gpu" for any, "cuda", "mps", "xpu"),
                "2 cores" (usable ones) or "4 GiB" (usable memory).

        Raises:
            ValueError: a need that nobody knows, with what there is.
        """
        return self.missing(need) is None

    def missing(self, need: str) -> str | None:
        """What is missing and what that means, in a sentence; None if the need is met.

        Args:
            need: see `has`.

        Raises:
            ValueError: a need that nobody knows, with what there is.
        """
        amount = re.fullmatch(r"(\d+) (cores?|GiB)", need)
        if amount and amount[2] == "GiB":
            if self.usable_memory_bytes >= int(amount[1]) * 2**30:
                return None
            return (
                f"This needs {need} of memory, and {format_bytes(self.usable_memory_bytes)} may be "
                "used here: it would swap or be killed."
            )
        if amount:
            if self.usable_cores >= int(amount[1]) - 1e-9:
                return None
            return (
                f"This needs {need}, and {self.usable_cores:.3g} may be used here: threads would "
                "take turns, so no gain from sharing the work can show."
            )
        if need in _DEVICES:
            kinds = {a.kind for a in self.accelerators or ()}
            if need in kinds or (need == "gpu" and kinds):
                return None
            if self.accelerators is None:
                return (
                    f"Nobody looked for a {need} device: import torch first, or call "
                    "lab.machine(accelerators=True)."
                )
            return (
                f"This needs a {need} device, and torch finds "
                f"{', '.join(sorted(kinds)) or 'no accelerator'} here: the work would run on the "
                "processor, where other limits hold."
            )
        if need not in _FEATURES:
            allowed = ", ".join([*_FEATURES, *_DEVICES])
            raise ValueError(f"needs={need!r} is not known; say one of {allowed}, 2 cores, 4 GiB")
        if need in self.isa:
            return None
        if not self.isa:
            return f"This system does not say whether its processor has {need}."
        return f"This processor ({self.processor}) has no {need}: {_FEATURES[need][1]}."

    def line(self) -> str:
        """One line for people."""
        memory = f"{format_bytes(self.usable_memory_bytes)} memory"
        if self.usable_memory_bytes < self.memory_bytes:
            memory += f" (a limit; {format_bytes(self.memory_bytes)} in the box)"
        cores = f"{self.usable_cores:.3g} of {self.visible_cores} cores usable"
        parts = [f"{self.processor} ({', '.join(self.isa) or self.architecture})", cores, memory]
        if self.accelerators is not None:
            names = (
                f"{a.name} ({a.kind}{f', {format_bytes(a.memory_bytes)}' if a.memory_bytes else ''})"
                for a in self.accelerators
            )
            parts.append(" + ".join(names) or "no accelerator")
        versions = [f"Python {self.python}"]
        versions += [f"torch {self.versions['torch']}"] if "torch" in self.versions else []
        return f"{', '.join(parts)}; {', '.join(versions)}"

    def __str__(self) -> str:
        return self.line()

    def __repr__(self) -> str:
        return f"<Machine {self.line()}>"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; the fingerprint and the threads are added for readers."""
        derived = {"usable_threads": self.usable_threads, "fingerprint": self.fingerprint}
        return asdict(self) | derived

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Machine:
        """Read what `to_dict` wrote. Keys that this version does not know are ignored.

        Raises:
            ValueError: a value is missing or not of its type.
        """
        return from_plain(cls, data, "machine")  # type: ignore[no-any-return]


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
        load_1min: processes that run or want to, averaged over a minute.
        runnable: threads that run or want to at this moment, this one included.
        cpu_pressure: share of the last 10 s in which something waited for a core.
    """

    load_1min: float | None
    runnable: int | None
    cpu_pressure: float | None


def machine(*, accelerators: bool | None = None, root: Path = ROOT) -> Machine:
    """The machine that this process runs on. Takes a few ms; what cannot change is kept.

    Args:
        accelerators: True: look for them, which imports torch (seconds) and starts its driver;
            False: do not; None: look if torch is imported already.
        root: where proc, sys and run are; tests give their own.

    >>> machine().usable_threads >= 1
    True
    """
    static = dict(_static(root))
    look = "torch" in sys.modules if accelerators is None else accelerators
    memory = _memory(root)
    return Machine(
        **static,
        usable_cores=usable_cores(root=root),
        memory_bytes=memory[0],
        swap_bytes=memory[1],
        memory_limit_bytes=_memory_limit(root, memory[0]),
        accelerators=_accelerators() if look else None,
        governor=_read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or None,
        turbo=_turbo(root),
    )


def usable_cores(*, root: Path = ROOT, affinity: int | None = None) -> float:
    """Cores that this process may really use: the least of affinity and cgroup quotas.

    `os.cpu_count` and `os.sched_getaffinity` both miss a quota, which is how containers and
    shared servers divide their cores.

    Args:
        root: where proc and sys are.
        affinity: logical processors that the scheduler allows; None: ask.

    >>> 0 < usable_cores(affinity=1) <= 1
    True
    """
    quotas = []
    for folder in _cgroup_folders("cpu", root):
        v1 = [_read(folder / f"cpu.cfs_{part}_us") for part in ("quota", "period")]
        for pair in (_read(folder / "cpu.max").split(), v1):
            # No quota is "max" or -1.
            if len(pair) == 2 and all(part.isdecimal() and int(part) > 0 for part in pair):
                quotas.append(int(pair[0]) / int(pair[1]))
    return float(min([affinity or _affinity(), *quotas]))


def throttling(*, root: Path = ROOT) -> Throttling | None:
    """What the cgroup quota has cost this process's groups so far; None: no such record.

    All levels count: a group is also stopped by the quota of the group that it is in, and each
    level records only its own.
    """
    found, periods, seconds = False, 0, 0.0
    for folder in _cgroup_folders("cpu", root):
        lines = (line.split() for line in _read(folder / "cpu.stat").splitlines())
        stat = {pair[0]: int(pair[1]) for pair in lines if len(pair) == 2 and pair[1].isdecimal()}
        if "nr_throttled" in stat:
            found = True
            periods += stat["nr_throttled"]
            # v2 counts microseconds, v1 nanoseconds.
            seconds += stat.get("throttled_usec", 0) / 1e6 + stat.get("throttled_time", 0) / 1e9
    return Throttling(periods, seconds) if found else None


def load(*, root: Path = ROOT) -> Load:
    """What else the machine does now; costs well under a ms.

    >>> load().load_1min is None or load().load_1min >= 0
    True
    """
    average = re.match(r"([\d.]+) \S+ \S+ (\d+)/", _read(root / "proc/loadavg"))
    pressure = re.search(r"some avg10=([\d.]+)", _read(root / "proc/pressure/cpu"))
    return Load(
        load_1min=float(average[1]) if average else None,
        runnable=int(average[2]) if average else None,
        cpu_pressure=float(pressure[1]) / 100 if pressure else None,
    )


def from_plain(hint: Any, value: Any, where: str) -> Any:
    """Build a value of a type, a dataclass above all, from what JSON gives back.

    Raises:
        ValueError: with the place and the value, where the type does not fit.

    >>> from_plain(Accelerator, {"kind": "cuda", "name": 7}, "gpu")
    Traceback (most recent call last):
    ...
    ValueError: gpu.name is 7; it should be str
    """
    args = get_args(hint)
    if isinstance(hint, UnionType):
        inner = next(a for a in args if a is not NoneType)
        return None if value is None else from_plain(inner, value, where)
    if get_origin(hint) is tuple and isinstance(value, list | tuple):
        return tuple(from_plain(args[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if isinstance(value, Mapping):
        if get_origin(hint) is dict:
            return {str(k): from_plain(args[1], v, f"{where}[{k!r}]") for k, v in value.items()}
        if is_dataclass(hint) and isinstance(hint, type):
            hints = get_type_hints(hint)
            needed = [f.name for f in fields(hint) if f.default is MISSING and f.name not in value]
            if needed:
                raise ValueError(f"{where} has no {', '.join(needed)}")
            known = [f.name for f in fields(hint) if f.name in value]
            return hint(**{k: from_plain(hints[k], value[k], f"{where}.{k}") for k in known})
    if hint is float and type(value) in (int, float):
        return float(value)
    # Exactly this type: True is no int here.
    if type(value) is hint:
        return value
    raise ValueError(f"{where} is {value!r}; it should be {getattr(hint, '__name__', hint)}")


def _read(path: Path) -> str:
    """What a file says; nothing where it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _cgroup_folders(controller: str, root: Path) -> Iterator[Path]:
    """Folders of this process's cgroups, v1 and v2, from its own up to where they are mounted."""
    paths = {}
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        paths |= dict.fromkeys(controllers.split(","), path)  # v2 has no controllers: ""
    for line in _read(root / "proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        kind, *_, options = right.split()
        key = {"cgroup2": "", "cgroup": controller}.get(kind)
        if key is None or key not in paths or (key and key not in options.split(",")):
            continue
        mount_root, mount_point = left.split()[3:5]
        top = root / mount_point.lstrip("/")
        path = PurePosixPath(paths[key])
        # Without a cgroup namespace the path is the host's, and the mount shows a part of it.
        inside = path.relative_to(mount_root) if path.is_relative_to(mount_root) else None
        parts = inside.parts if inside and ".." not in inside.parts else ()
        for depth in range(len(parts), -1, -1):
            yield top.joinpath(*parts[:depth])


def _affinity() -> int:
    """Logical processors on which the scheduler may put this process."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    import psutil

    process = psutil.Process()
    if hasattr(process, "cpu_affinity"):  # Windows; macOS knows no affinity
        return len(process.cpu_affinity())
    return os.cpu_count() or 1


def _memory(root: Path) -> tuple[int, int]:
    """Memory and swap in the box, bytes."""
    found = dict(
        re.findall(r"^(MemTotal|SwapTotal):\s+(\d+) kB", _read(root / "proc/meminfo"), re.M)
    )
    if "MemTotal" in found:
        return int(found["MemTotal"]) * 1024, int(found.get("SwapTotal", 0)) * 1024
    import psutil

    return psutil.virtual_memory().total, psutil.swap_memory().total


def _memory_limit(root: Path, memory_bytes: int) -> int | None:
    """The cgroup's memory limit in bytes; None where it is no less than the memory."""
    files = ("memory.max", "memory.limit_in_bytes")
    texts = [_read(f / name) for f in _cgroup_folders("memory", root) for name in files]
    limits = [int(text) for text in texts if text.isdecimal()]
    return min((limit for limit in limits if limit < memory_bytes), default=None)


def _turbo(root: Path) -> bool | None:
    cpu = root / "sys/devices/system/cpu"
    no_turbo, boost = _read(cpu / "intel_pstate/no_turbo"), _read(cpu / "cpufreq/boost")
    return no_turbo == "0" if no_turbo else boost == "1" if boost else None


@cache
def _static(root: Path) -> Mapping[str, Any]:
    """What cannot change while the process runs."""
    name, flags = _processor(root)
    return {
        "processor": name,
        "architecture": {"amd64": "x86_64", "arm64": "aarch64"}.get(
            platform.machine().lower(), platform.machine()
        ),
        "isa": tuple(word for word, (names, _) in _FEATURES.items() if names & flags),
        "visible_cores": os.cpu_count() or 1,
        "cache_bytes": _caches(root),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": _versions("torch", "numpy", "labkit"),
        # Only x86 has the flag.
        "virtual_machine": "hypervisor" in flags if "fpu" in flags else None,
        "container": (root / ".dockerenv").exists()
        or (root / "run/.containerenv").exists()
        or bool(re.search("docker|kubepods|lxc|containerd", _read(root / "proc/self/cgroup"))),
    }


def _processor(root: Path) -> tuple[str, set[str]]:
    """Its name, and the names of its features as the system gives them, in lower case."""
    about: dict[str, str] = {}
    try:
        # Only the first processor: on a large box the kernel takes long to write all of them.
        with (root / "proc/cpuinfo").open(errors="replace") as lines:
            for line in iter(lines.readline, "\n"):
                key, colon, value = line.partition(":")
                if not colon:
                    break
                about[key.strip()] = value.strip()
    except OSError:
        pass
    flags = set((about.get("flags") or about.get("Features") or "").lower().split())
    if name := about.get("model name"):
        return name, flags
    if part := about.get("CPU part"):
        maker = about.get("CPU implementer", "?")
        return _ARM_PARTS.get(part, f"ARM (implementer {maker}, part {part})"), flags
    if root == ROOT and sys.platform == "darwin":
        return _apple_processor()
    return platform.processor() or platform.machine() or "unknown processor", flags


def _apple_processor() -> tuple[str, set[str]]:
    command = ["/usr/sbin/sysctl", "machdep.cpu", "hw.optional"]
    try:
        text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except OSError:
        return platform.processor(), set()
    pairs = [line.partition(": ")[::2] for line in text.splitlines()]
    flags = {re.split(r"\.(?:FEAT_)?", key)[-1].lower() for key, value in pairs if value == "1"}
    about = dict(pairs)
    flags |= set(about.get("machdep.cpu.leaf7_features", "").lower().split())
    return about.get("machdep.cpu.brand_string", platform.processor()), flags


def _caches(root: Path) -> dict[str, int]:
    """Sizes in bytes of the data caches that the first core sees."""
    found = {}
    for folder in sorted((root / "sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = (_read(folder / name) for name in ("level", "type", "size"))
        number = re.fullmatch(r"(\d+)([KM])", size)
        if number and kind in ("Data", "Unified"):
            found["L1d" if level == "1" else f"L{level}"] = (
                int(number[1])
                * {
                    "K": 2**10,
                    "M": 2**20,
                }[number[2]]
            )
    return found


def _versions(*names: str) -> dict[str, str]:
    """Versions of those that are installed, without importing them."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def _accelerators() -> tuple[Accelerator, ...]:
    """What torch finds; empty also where torch is not installed."""
    try:
        import torch
    except ImportError:
        return ()
    if not torch.accelerator.is_available():
        return ()
    kind = torch.accelerator.current_accelerator().type  # type: ignore[union-attr]
    found = []
    for index in range(torch.accelerator.device_count()):
        try:
            about = torch.get_device_module(kind).get_device_properties(index)
        except (AttributeError, RuntimeError):  # mps has no properties; a driver may refuse
            about = None
        memory_bytes = getattr(about, "total_memory", None)
        found.append(Accelerator(kind, getattr(about, "name", kind), memory_bytes))
    return tuple(found)
