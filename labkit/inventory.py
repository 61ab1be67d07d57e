"""The devices that torch can use here, and the same work on each of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from labkit.machines import machine
from labkit.peaks import Peaks, measure_peaks
from labkit.units import format_bytes, format_rate
from labkit.variants import Variant

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd


@dataclass(frozen=True)
class Device:
    """One device.

    Attributes:
        id: what torch calls it: "cpu", "cuda:0", "mps", "xpu:0".
        name: of the hardware.
        memory_bytes: that may be used; None where it has none of its own.
        peaks: what it reached, one for each dtype that was measured.
    """

    id: str
    name: str
    memory_bytes: int | None = None
    peaks: tuple[Peaks, ...] = ()

    @property
    def bandwidth_bytes_per_s(self) -> float | None:
        """The best that was seen; None if it was not measured."""
        return max((p.bandwidth_bytes_per_s for p in self.peaks), default=None)


class Devices(tuple[Device, ...]):
    """All devices that are here, the processor first."""

    __slots__ = ()

    def _table(self) -> tuple[list[str], list[list[str]]]:
        dtypes = list(dict.fromkeys(p.dtype for d in self for p in d.peaks))
        head = ["device", "name", "memory"] + ["copy"] * bool(dtypes)
        head += [f"{dtype} product" for dtype in dtypes]
        rows = []
        for device in self:
            row = [device.id, device.name, format_bytes(device.memory_bytes)]
            rates = {p.dtype: p for p in device.peaks}
            if dtypes:
                row.append(format_rate(device.bandwidth_bytes_per_s, "B/s"))
            for dtype in dtypes:
                rate = rates[dtype].gemm_flops_per_s if dtype in rates else None
                row.append(format_rate(rate, "FLOP/s"))
            rows.append(row)
        return head, rows

    def to_frame(self) -> pd.DataFrame:
        """One row a device; rates in bytes and operations per second."""
        import pandas as pd

        return pd.DataFrame(
            {
                "device": d.id,
                "name": d.name,
                "memory_bytes": d.memory_bytes,
                "copy_bytes_per_s": d.bandwidth_bytes_per_s,
                **{f"{p.dtype}_flops_per_s": p.gemm_flops_per_s for p in d.peaks},
            }
            for d in self
        )

    def __repr__(self) -> str:
        # The same from run to run, so that a notebook's output stays comparable.
        return "Devices"

    def __str__(self) -> str:
        from labkit import tables

        return tables.text_table(*self._table())

    def _repr_html_(self) -> str:
        from labkit import tables

        caption = "Devices that torch can use here"
        if any(p.busy for d in self for p in d.peaks):
            caption += " (other programs wanted the cores, too: the rates may be too low)"
        return tables.result_html(*self._table(), caption)


def devices(*, measure: Sequence[str] = (), budget_s: float = 1.0) -> Devices:
    """The processor and every accelerator that torch finds (``torch.accelerator``).

    Args:
        measure: dtypes whose products are measured on each device, with the bandwidth of its
            memory, such as ``["float32", "bfloat16"]``; none by default.
        budget_s: seconds for each device and dtype.

    Raises:
        ValueError: a dtype that `labkit.measure_peaks` does not know.

    >>> here = devices()
    >>> here[0].id
    'cpu'
    """
    found = machine(accelerators=True)
    listed = [Device("cpu", found.processor, found.usable_memory_bytes)]
    listed += [
        Device(f"{a.kind}:{i}", a.name, a.memory_bytes)
        for i, a in enumerate(found.accelerators or ())
    ]
    return Devices(
        Device(
            d.id,
            d.name,
            d.memory_bytes,
            tuple(measure_peaks(device=d.id, dtype=t, budget_s=budget_s) for t in measure),
        )
        for d in listed
    )


def on_each_device(make: Callable[[str], Callable[[], Any]], **known: Any) -> dict[str, Variant]:
    """The same work as one variant for each device, for an experiment or `labkit.compare`.

    The processor comes twice, with one thread and with all that it may use: also on a machine
    without an accelerator there are two ways to run the work, a narrow and a wide one. With one
    usable core the second takes two threads, which cannot help, and shows what that costs.

    Args:
        make: called in the worker with "cpu", "cuda:0", ...; makes the data there and returns
            the evaluation.
        **known: of `labkit.Variant`: ``flops``, ``bytes_moved``, ``metrics``.

    Returns:
        "cpu, 1 thread" (the baseline), "cpu, all threads", and each accelerator by its id.

    >>> list(on_each_device(lambda device: lambda: None))[:2]
    ['cpu, 1 thread', 'cpu, all threads']
    """
    wide = max(2, machine().usable_threads)
    variants = {
        "cpu, 1 thread": Variant(_run, setup=lambda: _on_threads(make("cpu"), 1), **known),
        "cpu, all threads": Variant(_run, setup=lambda: _on_threads(make("cpu"), wide), **known),
    }
    for device in devices()[1:]:
        variants[device.id] = Variant(_run, setup=partial(make, device.id), **known)
    return variants


def _run(call: Callable[[], Any]) -> Any:
    return call()


def _on_threads(call: Callable[[], Any], threads: int) -> Callable[[], Any]:
    import torch

    def narrowed() -> Any:
        # Asked first: setting them costs more than asking.
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        return call()

    return narrowed
