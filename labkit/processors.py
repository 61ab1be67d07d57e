"""The processor: its name, the instructions that results depend on, its caches."""

from __future__ import annotations

import platform
import re
from typing import TYPE_CHECKING, NamedTuple

from labkit.cgroups import ROOT, read

if TYPE_CHECKING:
    from pathlib import Path


class Feature(NamedTuple):
    """Instructions that results depend on.

    Attributes:
        names: what systems call it: Linux flags of x86 and ARM, macOS sysctl.
        family: the architectures that may have it.
        absence: what it means when it is missing.
    """

    names: frozenset[str]
    family: tuple[str, ...]
    absence: str


_X86, _ARM = ("x86_64",), ("aarch64",)


def _feature(names: str, family: tuple[str, ...], absence: str) -> Feature:
    return Feature(frozenset(names.split()), family, absence)


_SLOW_INT8 = "an int8 product takes several steps instead of one, and need not beat float32"
_VECTOR_UNITS = "its matrix products run on the vector units"
_CONVERTED = "numbers are converted to float32 and back around the work"

# Source of the names: Linux arch/x86/include/asm/cpufeatures.h, arch/arm64/kernel/cpuinfo.c;
# Apple, "Determining instruction set characteristics".
FEATURES: dict[str, Feature] = {
    "avx2": _feature("avx2 avx2_0", _X86, "vectors are 128 bits wide, half of AVX2"),
    "avx512f": _feature("avx512f", _X86, "vectors are 256 bits wide at most"),
    "vnni": _feature("avx512_vnni avx_vnni avx512vnni", _X86, _SLOW_INT8),
    "bf16": _feature("avx512_bf16 bf16", _X86 + _ARM, _CONVERTED),
    "fp16": _feature("avx512_fp16 asimdhp fp16", _X86 + _ARM, _CONVERTED),
    "amx_int8": _feature("amx_int8", _X86, _VECTOR_UNITS),
    "amx_bf16": _feature("amx_bf16", _X86, _VECTOR_UNITS),
    "neon": _feature("asimd neon advsimd", _ARM, "there are no vectors"),
    "dotprod": _feature("asimddp dotprod", _ARM, _SLOW_INT8),
    "i8mm": _feature("i8mm", _ARM, "int8 matrix products run as dot products"),
    "sve": _feature("sve", _ARM, "vectors are those of NEON, 128 bits wide"),
    "sve2": _feature("sve2", _ARM, "vectors are those of NEON or of the first SVE"),
    "sme": _feature("sme", _ARM, _VECTOR_UNITS),
}

# cpuinfo of ARM has numbers only. Source: util-linux, sys-utils/lscpu-arm.c.
_ARM_PARTS = {
    ("0x41", "0xd08"): "Cortex-A72",
    ("0x41", "0xd0b"): "Cortex-A76",
    ("0x41", "0xd0c"): "Neoverse-N1",
    ("0x41", "0xd40"): "Neoverse-V1",
    ("0x41", "0xd49"): "Neoverse-N2",
    ("0x41", "0xd4f"): "Neoverse-V2",
}


def processor(root: Path = ROOT) -> tuple[str, frozenset[str]]:
    """Its name, and the features that the system reports, as it spells them in lower case."""
    about = _cpuinfo(root / "proc/cpuinfo")
    flags = frozenset((about.get("flags") or about.get("Features") or "").lower().split())
    if name := about.get("model name"):
        return name, flags
    if part := about.get("CPU part"):
        maker = about.get("CPU implementer", "?")
        return _ARM_PARTS.get((maker, part), f"ARM (implementer {maker}, part {part})"), flags
    if root == ROOT and platform.system() == "Darwin":
        return _apple_processor()
    return platform.processor() or platform.machine() or "unknown processor", flags


def isa(flags: frozenset[str]) -> tuple[str, ...]:
    """The features that matter here, of those that a system reports.

    >>> isa(frozenset({"fpu", "avx2", "avx_vnni"}))
    ('avx2', 'vnni')
    """
    return tuple(word for word, feature in FEATURES.items() if feature.names & flags)


def architecture() -> str:
    """The instruction set, however the system spells it: "x86_64", "aarch64"."""
    name = platform.machine()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name.lower(), name)


def cache_bytes(root: Path = ROOT) -> dict[str, int]:
    """Sizes in bytes of the data caches that the first core sees: "L1d", "L2", "L3"."""
    found = {}
    for folder in sorted((root / "sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = (read(folder / name) for name in ("level", "type", "size"))
        number = re.fullmatch(r"(\d+)K", size)
        if number and kind in ("Data", "Unified"):
            found["L1d" if level == "1" else f"L{level}"] = int(number[1]) * 1024
    return found


def last_level_bytes(threads: int, root: Path = ROOT) -> int | None:
    """What the last level of cache can hold of the work of so many threads; None: not readable.

    Args:
        threads: on different cores. Those of some processors share several such caches, of which
            each thread reaches one.
        root: where sys is.

    Source: https://docs.kernel.org/admin-guide/abi-testing.html, ``/sys/devices/system/cpu/cpuX/
    cache/``.
    """
    sizes = cache_bytes(root)
    if not sizes:
        return None
    level = max(sizes)
    cores = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cache/index*/level")
    shared = {
        read(path.with_name("shared_cpu_list"))
        for path in cores
        if read(path) == level.removeprefix("L")
    }
    return sizes[level] * max(1, min(len(shared), threads))


def governor(root: Path = ROOT) -> str | None:
    """How the clock frequency is chosen, such as "powersave"; None: not readable."""
    return read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or None


def turbo(root: Path = ROOT) -> bool | None:
    """Whether the clock may exceed its base frequency; None: not readable."""
    cpu = root / "sys/devices/system/cpu"
    if no_turbo := read(cpu / "intel_pstate/no_turbo"):
        return no_turbo == "0"
    boost = read(cpu / "cpufreq/boost")
    return boost == "1" if boost else None


def _cpuinfo(path: Path) -> dict[str, str]:
    """The entries of the first processor: on a large box the kernel takes long to write all."""
    about: dict[str, str] = {}
    try:
        with path.open(errors="replace") as lines:
            for line in lines:
                key, colon, value = line.partition(":")
                if not colon:
                    break
                about[key.strip()] = value.strip()
    except OSError:
        pass
    return about


def _apple_processor() -> tuple[str, frozenset[str]]:
    import subprocess

    command = ["/usr/sbin/sysctl", "machdep.cpu", "hw.optional"]
    text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return parse_sysctl(text)


def parse_sysctl(text: str) -> tuple[str, frozenset[str]]:
    """Name and features from what ``sysctl machdep.cpu hw.optional`` prints on macOS.

    >>> name, flags = parse_sysctl('''machdep.cpu.brand_string: Apple M2
    ... hw.optional.AdvSIMD: 1
    ... hw.optional.arm.FEAT_I8MM: 1
    ... hw.optional.arm.FEAT_SME: 0''')
    >>> name, isa(flags)
    ('Apple M2', ('neon', 'i8mm'))
    """
    about = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    flags = {
        key.rpartition(".")[2].removeprefix("FEAT_").lower()
        for key, value in about.items()
        if value == "1"
    }
    flags.update(about.get("machdep.cpu.leaf7_features", "").lower().split())
    name = about.get("machdep.cpu.brand_string") or platform.processor() or "unknown processor"
    return name, frozenset(flags)
