"""How near to the limits of a device labkit's own measurements come, and the field's own timer."""

from __future__ import annotations

import torch

import labkit as lab
from bench.report import Part, Row
from labkit.peaks import Peaks, measure_peaks
from labkit.units import format_rate

_MIB = 2**20


def limits(*, quick: bool = False) -> Part:
    """A large product and a large copy on every device: shares of its peaks, and do_bench."""
    budget_s = 0.5 if quick else 5.0
    rows: list[Row] = []
    for device in lab.devices():
        peaks = measure_peaks(device=device.id, budget_s=2 * budget_s)
        rows += _shares(device.id, peaks, budget_s)
        if device.id.startswith("cuda"):
            rows += _against_do_bench(device.id, budget_s)
    notes = (
        "The peaks are the best of `measure_peaks` in any size; the shares are of labkit's fastest "
        "samples. triton.testing.do_bench runs where there is a CUDA device."
    )
    return Part("Limits of the device", tuple(rows), notes)


def _shares(device: str, peaks: Peaks, budget_s: float) -> list[Row]:
    flops, product = _product(device, 1024 if device == "cpu" else 8192)
    moved, copy = _copy(device, 160 * _MIB if device == "cpu" else 1024 * _MIB)
    rows = []
    for what, amount, work, best, unit in (
        ("a large float32 product", flops, product, peaks.gemm_flops_per_s, "FLOP/s"),
        ("a large copy", moved, copy, peaks.bandwidth_bytes_per_s, "B/s"),
    ):
        rate = amount / lab.measure(work, device=device, budget_s=budget_s).fastest_s
        rows.append(
            Row(
                f"{what} on {device}, share of the best rate",
                "at least 85 %",
                f"{rate / best:.0%} of {format_rate(best, unit)}",
                rate >= 0.85 * best,
            )
        )
    return rows


def _against_do_bench(device: str, budget_s: float) -> list[Row]:
    from triton.testing import do_bench

    rows = []
    for what, (_, work) in (
        ("a product of 8192 rows", _product(device, 8192)),
        ("a copy of 1 GiB", _copy(device, 1024 * _MIB)),
    ):
        mine_s = lab.measure(work, device=device, budget_s=budget_s).median_s
        theirs_s = do_bench(work.call, rep=int(budget_s * 1e3), return_mode="median") / 1e3
        rows.append(
            Row(
                f"{what} on {device}, time over do_bench's",
                "within 2 %",
                f"{mine_s / theirs_s:.3f}x",
                abs(mine_s / theirs_s - 1) <= 0.02,
                {"triton do_bench": "1"},
            )
        )
    return rows


def _product(device: str, size: int) -> tuple[float, lab.Variant]:
    x, y = (torch.rand(size, size, device=device) for _ in range(2))
    out = torch.empty_like(x)
    return 2.0 * size**3, lab.Variant(lambda: torch.mm(x, y, out=out))


def _copy(device: str, working_set_bytes: int) -> tuple[float, lab.Variant]:
    source = torch.ones(working_set_bytes // 8, device=device)
    target = torch.empty_like(source)
    return float(working_set_bytes), lab.Variant(lambda: target.copy_(source))
