"""What results depend on: the processor, the cores that may really be used, memory, versions.

Everything is read from files that the kernel keeps up to date, so a look costs milliseconds and
loads no numerical library. Where a system says nothing (macOS and Windows have no /proc), psutil
and `os` answer, and what nobody can tell is None.
"""

from __future__ import annotations

import math
import os
import platform
import re
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from labkit import cgroups, processors
from labkit.cgroups import ROOT, Load, Throttling, load, throttling, usable_cores
from labkit.optional import is_there
from labkit.processors import FEATURES
from labkit.units import format_bytes

__all__ = [
    "Accelerator",
    "Load",
    "Machine",
    "Throttling",
    "from_plain",
    "load",
    "machine",
    "throttling",
    "usable_cores",
]

# Those that torch's inductor looks for.
_COMPILERS = ("g++", "clang++", "c++", "cl")
_DEVICES = ("gpu", "cuda", "mps", "xpu")
# What a person may set so that libraries leave instructions of the processor unused. Sources:
# oneDNN, "CPU Dispatcher Control"; PyTorch, aten/src/ATen/native/DispatchStub.cpp; Intel oneMKL
# developer guide, "Instruction Set Specific Dispatch"; OpenBLAS, README; NumPy, "Runtime dispatch".
_LIMITS = (
    *("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"),
    *("MKL_ENABLE_INSTRUCTIONS", "OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES"),
)


@dataclass(frozen=True)
class Accelerator:
    """A GPU or its like. kind: "cuda", "mps", "xpu"; memory_bytes: None where it has no own."""

    kind: str
    name: str
    memory_bytes: int | None = None

    def line(self) -> str:
        """For people.

        >>> Accelerator("cuda", "NVIDIA H200", 150 * 10**9).line()
        'NVIDIA H200 (cuda, 140 GiB)'
        """
        size = "" if self.memory_bytes is None else f", {format_bytes(self.memory_bytes)}"
        return f"{self.name} ({self.kind}{size})"


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
        compiler: the C++ compiler that torch.compile would find; None: there is none.
        limits: environment variables that keep libraries from some of these instructions, such
            as {"ONEDNN_MAX_CPU_ISA": "AVX2"}.

    >>> here = machine()
    >>> Machine.from_dict(here.to_dict()) == here
    True
    >>> here.has("vnni") == (here.missing("vnni") is None)
    True
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
    compiler: str | None = None
    limits: dict[str, str] = field(default_factory=dict, hash=False)

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
    def short_of_memory(self) -> bool:
        """Less than 1 GiB may be used: what can be had again is not kept then."""
        return self.usable_memory_bytes < 2**30

    @property
    def fingerprint(self) -> str:
        """Equal for machines of one kind: processor, usable cores, memory, system and limits.

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
            # Without any it is what it was before anybody looked for them.
            *([self.limits] if self.limits else []),
        ]
        import hashlib
        import json

        return hashlib.sha256(json.dumps(kind, sort_keys=True).encode()).hexdigest()[:12]

    def has(self, need: str) -> bool:
        """Whether the machine has what a claim needs.

        Args:
            need: a feature ("vnni", "amx_bf16"), a device ("gpu" for any, "cuda", "mps", "xpu"),
                "2 cores" (usable ones), "2 free cores" (that nobody else held during the run,
                which only a comparison can know), "4 GiB" (usable memory) or "compiler" (of C++).

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
        amount = re.fullmatch(r"(\d+) (free cores?|cores?|GiB)", need)
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
        if need == "compiler":
            if self.compiler:
                return None
            return (
                "This needs a C++ compiler, and none is found here: torch.compile cannot make "
                "code for the processor. On Debian and Ubuntu: apt-get install g++ python3-dev."
            )
        if need == "spark":
            return _missing_of_spark()
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
        if need not in FEATURES:
            allowed = ", ".join([*FEATURES, *_DEVICES, "compiler", "spark"])
            raise ValueError(f"needs={need!r} is not known; say one of {allowed}, 2 cores, 4 GiB")
        if need in self.isa:
            return None
        if self.architecture not in FEATURES[need].family:
            return f"{need} is of other processors; this one is {self.architecture}."
        if not self.isa:
            return f"This system does not say whether its processor has {need}."
        return f"This processor ({self.processor}) has no {need}: {FEATURES[need].absence}."

    def line(self) -> str:
        """One line for people."""
        memory = f"{format_bytes(self.usable_memory_bytes)} memory"
        if self.usable_memory_bytes < self.memory_bytes:
            memory += f" (a limit; {format_bytes(self.memory_bytes)} in the box)"
        cores = f"{self.usable_cores:.3g} of {self.visible_cores} cores usable"
        parts = [f"{self.processor} ({', '.join(self.isa) or self.architecture})", cores, memory]
        if self.accelerators is not None:
            names = [a.line() for a in self.accelerators]
            parts.append(" + ".join(names) or "no accelerator")
        parts += [f"{name}={value}" for name, value in self.limits.items()]
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


def machine(*, accelerators: bool | None = None, root: Path = ROOT) -> Machine:
    """The machine that this process runs on. Takes a few ms; what cannot change is kept.

    Args:
        accelerators: True: look for them, which imports torch (seconds) and starts its driver;
            False: do not; None: look if torch is imported already.
        root: where proc, sys and run are; tests give their own.

    >>> machine().usable_threads >= 1
    True
    """
    look = "torch" in sys.modules if accelerators is None else accelerators
    memory_bytes, swap_bytes = _memory(root)
    limit = cgroups.memory_limit_bytes(root=root)
    return Machine(
        **_static(root),
        usable_cores=usable_cores(root=root),
        memory_bytes=memory_bytes,
        memory_limit_bytes=limit if limit is not None and limit < memory_bytes else None,
        swap_bytes=swap_bytes,
        accelerators=_accelerators() if look else None,
        governor=processors.governor(root),
        turbo=processors.turbo(root),
        limits={name: os.environ[name] for name in _LIMITS if os.environ.get(name, "").strip()},
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


def _memory(root: Path) -> tuple[int, int]:
    """Memory and swap in the box, bytes."""
    text = cgroups.read(root / "proc/meminfo")
    found = dict(re.findall(r"^(MemTotal|SwapTotal):\s+(\d+) kB", text, re.MULTILINE))
    if "MemTotal" in found:
        return int(found["MemTotal"]) * 1024, int(found.get("SwapTotal", 0)) * 1024
    import psutil

    return psutil.virtual_memory().total, psutil.swap_memory().total


@cache
def _static(root: Path) -> Mapping[str, Any]:
    """What cannot change while the process runs."""
    name, flags = processors.processor(root)
    groups = cgroups.read(root / "proc/self/cgroup")
    marks = (root / ".dockerenv", root / "run/.containerenv")
    return {
        "processor": name,
        "architecture": processors.architecture(),
        "isa": processors.isa(flags),
        "visible_cores": os.cpu_count() or 1,
        "cache_bytes": processors.cache_bytes(root),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": _versions("torch", "numpy", "labkit"),
        # Only x86 has this flag.
        "virtual_machine": "hypervisor" in flags if "fpu" in flags else None,
        "container": any(mark.exists() for mark in marks)
        or bool(re.search("docker|kubepods|lxc|containerd", groups)),
        "compiler": _compiler(),
    }


def _missing_of_spark() -> str | None:
    if not is_there("pyspark"):
        return "This needs pyspark, which is not installed here: pip install 'labkit[spark]'."
    java = os.environ.get("JAVA_HOME", "")
    if shutil.which("java") or (java and shutil.which("java", path=f"{java}/bin")):
        return None
    return "This needs Java for Spark, and none is found here: install Java 17 or newer."


def _compiler() -> str | None:
    """Of C++, with the headers of Python beside it; its name."""
    found = next((c for c in (os.environ.get("CXX"), *_COMPILERS) if c and shutil.which(c)), None)
    headers = sysconfig.get_path("include")
    return found if headers and (Path(headers) / "Python.h").exists() else None


def _versions(*names: str) -> dict[str, str]:
    """Versions of those that are installed, without importing them."""
    from importlib import metadata

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
