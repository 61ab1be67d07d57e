"""Peaks of allocations of known size, by labkit and by the tools that people use today."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import labkit as lab
from bench.report import Part, Row

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 2**20
SIZES_MIB = (16, 64, 256, 1024)
PEERS = ("tracemalloc", "memory_profiler", "ru_maxrss")


def python_bytes(mib: int) -> Callable[[], object]:
    """A bytearray, which Python allocates."""

    def run() -> object:
        return bytearray(mib * MIB)

    return run


def native(mib: int) -> Callable[[], object]:
    """A numpy array, written to."""

    def run() -> object:
        import numpy as np

        return np.ones(mib * MIB, dtype=np.uint8)

    return run


def freed(mib: int) -> Callable[[], object]:
    """The same, given back before the end."""

    def run() -> object:
        import numpy as np

        return len(np.ones(mib * MIB, dtype=np.uint8))

    return run


def torch_operators(mib: int) -> Callable[[], object]:
    """A tensor that exists only inside an expression of torch."""

    def run() -> object:
        import torch

        return float(torch.ones(mib * MIB // 4).sum())

    return run


KINDS = {
    "Python": python_bytes,
    "native": native,
    "native, freed before the end": freed,
    "inside torch operators": torch_operators,
}


def measure_with_peers(kind: str, mib: int) -> dict[str, float]:
    """What the peers say, in MiB; in this process, which must be fresh."""
    import resource
    import tracemalloc

    import memory_profiler
    import numpy as np
    import torch

    # Libraries take memory of their own when they are first used.
    np.ones(10).sum()
    torch.ones(10).sum()
    run = KINDS[kind](mib)
    found: dict[str, float] = {}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run()
    found["ru_maxrss"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    tracemalloc.start()
    run()
    found["tracemalloc"] = tracemalloc.get_traced_memory()[1] / MIB
    tracemalloc.stop()
    base = memory_profiler.memory_usage(-1, max_usage=True)
    most = memory_profiler.memory_usage((run, (), {}), interval=0.01, max_usage=True)
    found["memory_profiler"] = most - base
    return found


def memory(*, quick: bool = False) -> Part:
    """Allocations of known size."""
    rows = []
    for kind, make in KINDS.items():
        for mib in SIZES_MIB[: 1 if quick else None]:
            seen = lab.peak_memory(make(mib)).peak_bytes / MIB
            code = (
                "import json; from bench.memory import measure_with_peers; "
                f"print(json.dumps(measure_with_peers({kind!r}, {mib})))"
            )
            done = subprocess.run(
                [sys.executable, "-c", code],
                check=True,
                capture_output=True,
                text=True,
                cwd=Path(__file__).parents[1],
            )
            peers = json.loads(done.stdout)
            rows.append(
                Row(
                    f"{kind}, {mib} MiB",
                    "within 2 % or 4 MiB",
                    f"{seen:.1f} MiB",
                    abs(seen - mib) <= max(0.02 * mib, 4),
                    {name: f"{peers[name]:.1f} MiB" for name in PEERS},
                )
            )
    notes = (
        "Peers: the peak of tracemalloc; the largest value of memory_profiler's `memory_usage` at "
        "`interval=0.01`, less what the process held before; how much `ru_maxrss` grew in a fresh "
        "process. tracemalloc sees what goes through Python's and numpy's allocators, so nothing "
        "of torch; the other two see the process as a whole."
    )
    return Part("Peak memory", tuple(rows), notes)
