"""The devices that are here, and the same work on each."""

from __future__ import annotations

from dataclasses import replace

import pytest

import labkit as lab
from labkit.inventory import Device, Devices
from labkit.peaks import CopyRate, GemmRate, Peaks


def rates(device, dtype, speed):
    return Peaks((CopyRate(2**28, 10e9),), (GemmRate(64, speed),), device=device, dtype=dtype)


BOTH = Devices(
    [
        Device("cpu", "A processor", 2**34, (rates("cpu", "float32", 1e11),)),
        Device("cuda:0", "A GPU", 2**36, (rates("cuda:0", "float32", 5e13),)),
    ]
)


def test_the_processor_comes_first_with_its_name_and_memory():
    here = lab.devices()
    assert here[0].id == "cpu"
    assert here[0].name == lab.machine().processor
    assert here[0].memory_bytes == lab.machine().usable_memory_bytes
    assert here[0].peaks == ()


def test_rates_are_measured_for_each_dtype_that_is_asked_for():
    processor = lab.devices(measure=["float32", "bfloat16"], budget_s=0.1)[0]
    assert [p.dtype for p in processor.peaks] == ["float32", "bfloat16"]
    assert processor.bandwidth_bytes_per_s > 0


def test_an_unknown_dtype_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"dtype='int3'.*bfloat16"):
        lab.devices(measure=["int3"])


def test_tf32_is_refused_where_no_device_has_it():
    with pytest.raises(ValueError, match="tf32"):
        lab.measure_peaks(dtype="tf32", device="cpu", budget_s=0.1)


def test_the_table_has_a_row_for_each_device_and_a_column_for_each_rate():
    head, *rows = str(BOTH).splitlines()
    assert "float32 product" in head
    assert "100 GFLOP/s" in rows[0]
    assert "50 TFLOP/s" in rows[1]
    assert list(BOTH.to_frame()["device"]) == ["cpu", "cuda:0"]
    assert 'class="labkit-result"' in BOTH._repr_html_()
    assert repr(BOTH) == "Devices"


def test_the_table_says_when_the_machine_was_busy():
    busy = replace(rates("cpu", "float32", 1e11), waiting_share=0.5)
    html = Devices([Device("cpu", "A processor", 2**34, (busy,))])._repr_html_()
    assert "may be too low" in html
    assert "may be too low" not in BOTH._repr_html_()


def test_the_processor_runs_the_work_narrow_and_wide():
    import torch

    def make(device):
        x = torch.ones(4, device=device)
        return lambda: (x, torch.get_num_threads())

    variants = lab.on_each_device(make, flops=4, bytes_moved=16)
    narrow, wide = variants["cpu, 1 thread"], variants["cpu, all threads"]
    before = torch.get_num_threads()
    try:
        assert narrow.prepare()()[1] == 1
        assert wide.prepare()()[1] == max(2, lab.machine().usable_threads)
    finally:
        torch.set_num_threads(before)
    assert narrow.flops == wide.flops == 4


def test_it_can_be_measured_as_it_is():
    import torch

    def make(device):
        x = torch.ones(100, device=device)
        return lambda: x + 1

    done = lab.compare(lab.on_each_device(make), agree=torch.equal, budget_s=1, resolution=0.3)
    assert not done.failures
