"""Peak memory: native and Python allocations, freed or not."""

import os
import sys
from pathlib import Path

import pytest

import labkit as lab

MIB = 2**20


def python_objects(n):
    # One bytes object of 1000 bytes takes 1040 of pymalloc-free heap and 8 in the list.
    return [bytes(1000) for _ in range(n // 1056)]


@pytest.mark.parametrize("mib", [16, 64, 256])
def test_known_allocations_are_seen(mib):
    import torch

    n = mib * MIB

    def native():
        return torch.ones(n // 4)

    def freed():
        block = bytearray(n)
        del block
        return 1

    def inside_an_operator():
        return float(torch.ones(1).expand(n // 4).contiguous().sum())

    for call in (lambda: bytearray(n), native, freed, inside_an_operator):
        peak = lab.peak_memory(call).peak_bytes
        assert abs(peak - n) <= max(0.02 * n, 4 * MIB)


def test_many_small_python_objects_are_seen():
    n = 64 * MIB
    peak = lab.peak_memory(lambda: python_objects(n)).peak_bytes
    assert abs(peak - n) <= max(0.02 * n, 4 * MIB)


def test_what_is_there_before_does_not_count():
    variant = lab.Variant(len, setup=lambda: bytearray(64 * MIB))
    peak = lab.peak_memory(variant)
    assert peak.peak_bytes < 2 * MIB
    assert peak.before_bytes > 64 * MIB


def test_a_function_that_raises_is_reported():
    def breaks():
        raise MemoryError("too much")

    with pytest.raises(lab.WorkerError, match="MemoryError: too much"):
        lab.peak_memory(breaks)


@pytest.mark.skipif(sys.platform != "linux", reason="the score is Linux's")
def test_where_memory_runs_out_the_worker_ends_first_then_its_server_and_the_kernel_last():
    def scores():
        places = {"worker": os.getpid(), "server": os.getppid()}
        return {
            name: int(Path(f"/proc/{pid}/oom_score_adj").read_text())
            for name, pid in places.items()
        }

    variant = lab.Variant(lambda: None, metrics=scores)
    found = lab.compare({"one": variant, "two": variant}, budget_s=0.05).trials["one"].metrics
    own = int(Path("/proc/self/oom_score_adj").read_text())
    assert own < found["server"] < found["worker"]
