"""What this machine can reach: its memory bandwidth, its arithmetic, and the roof they make.

Source of the model: Williams, Waterman and Patterson, "Roofline: an insightful visual performance
model for multicore architectures", Communications of the ACM 52(4), 2009.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import cycle, repeat
from typing import TYPE_CHECKING, Any

from labkit.cgroups import ROOT, waited_s
from labkit.machines import from_plain, machine
from labkit.processors import last_level_bytes
from labkit.units import format_rate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import torch
    from matplotlib.figure import Figure

    from labkit.results import Comparison
    from labkit.traces import Trace

# What rates belong to: device, dtype, threads (None on an accelerator).
Place = tuple[str, str, int | None]

MIB = 2**20
# Both buffers of a copy together, and the one that the bandwidth of memory is taken from: so many
# times the last-level cache, or the most where nobody says how large that is. The most is beyond
# most of them, and small enough for a container of 1 GB.
_COPY_BYTES = (MIB // 4, MIB, 4 * MIB, 16 * MIB, 64 * MIB)
_BEYOND_CACHE = 3
_MOST_COPY_BYTES = 160 * MIB
# From this share on a reader should know that other programs wanted the cores, too.
_BUSY = 0.1
DTYPES = ("float32", "bfloat16", "float16", "float64", "tf32")
_GEMM_SIZES = (256, 512, 1024, 2048)
# Accelerators have larger caches, and need more work to fill them.
_ACCELERATOR_COPY_BYTES = (4 * MIB, 16 * MIB, 64 * MIB, 256 * MIB, 1024 * MIB)
_ACCELERATOR_GEMM_SIZES = (512, 1024, 2048, 4096, 8192)
# A block must be long against the clock and a synchronisation, and short against a time slice of
# the scheduler (4 ms on many kernels), so that some blocks run without an interruption.
_BLOCK_S = 2e-3


@dataclass(frozen=True)
class CopyRate:
    """How fast a copy runs when both buffers together have ``working_set_bytes``.

    ``threads`` gave this rate; None on an accelerator.
    """

    working_set_bytes: int
    bytes_per_s: float
    threads: int | None = None


@dataclass(frozen=True)
class GemmRate:
    """How fast a product of two square matrices of ``size`` rows runs.

    ``threads`` gave this rate; None on an accelerator.
    """

    size: int
    flops_per_s: float
    threads: int | None = None


@dataclass(frozen=True, repr=False)
class Peaks:
    """The fastest that was seen, by working set and by matrix size, on ``device``.

    Attributes:
        copies: by growing working set. Bytes are those read plus those written, as STREAM counts
            them (McCalpin 1995); what the hardware reads to write is not counted. Small ones
            include about a microsecond of torch's own for each call.
        gemms: by growing matrix; 2 n³ operations each.
        threads: that torch was given at most; None on an accelerator.
        device: such as "cpu", "cuda:0".
        dtype: of the product.
        sustained_share: what a quota leaves of these rates in a long run: 0.5 where two threads
            share the quota of one core. The rates are of short moments.
        waiting_share: of the time of the measurement in which other programs held the core that it
            wanted. The more, the lower the rates may be.

    >>> peaks = Peaks((CopyRate(2**28, 20e9),), (GemmRate(1024, 100e9),), threads=1, device="cpu")
    >>> peaks.line()
    '20 GB/s copy, 100 GFLOP/s float32 product, 5 FLOP/B to reach both (cpu, 1 thread)'
    >>> peaks.roofline(0.5), peaks.bound(flops=1e9, bytes_moved=1e9)
    (10000000000.0, ('memory', 0.05))
    """

    copies: tuple[CopyRate, ...]
    gemms: tuple[GemmRate, ...]
    threads: int | None = None
    device: str = "cpu"
    dtype: str = "float32"
    sustained_share: float = 1.0
    waiting_share: float = 0.0

    def __post_init__(self) -> None:
        rates = [c.bytes_per_s for c in self.copies] + [g.flops_per_s for g in self.gemms]
        if not self.copies or not self.gemms or not all(rate > 0 for rate in rates):
            raise ValueError(f"peaks need a copy and a product, with rates above 0; got {rates}")

    @property
    def place(self) -> Place:
        """What the rates belong to."""
        return self.device, self.dtype, self.threads

    @property
    def bandwidth_bytes_per_s(self) -> float:
        """Of memory: a copy with the largest working set, bytes read plus bytes written."""
        return self.copies[-1].bytes_per_s

    @property
    def gemm_flops_per_s(self) -> float:
        """Of the best matrix size."""
        return self.best_gemm.flops_per_s

    @property
    def best_gemm(self) -> GemmRate:
        """The matrix size with the highest rate."""
        return max(self.gemms, key=lambda gemm: gemm.flops_per_s)

    @property
    def ridge_flops_per_byte(self) -> float:
        """The intensity from which on arithmetic is the limit, not memory."""
        return self.gemm_flops_per_s / self.bandwidth_bytes_per_s

    def copy_bytes_per_s(self, working_set_bytes: float) -> float:
        """The best rate of a copy with at least this working set: of a cache if it fits into one.

        >>> peaks = Peaks((CopyRate(2**20, 80e9), CopyRate(2**28, 20e9)), (GemmRate(64, 1e9),))
        >>> peaks.copy_bytes_per_s(2**19), peaks.copy_bytes_per_s(2**30)
        (80000000000.0, 20000000000.0)
        """
        larger = [c.bytes_per_s for c in self.copies if c.working_set_bytes >= working_set_bytes]
        return max(larger, default=self.bandwidth_bytes_per_s)

    def roofline(self, intensity_flops_per_byte: float) -> float:
        """The rate in FLOP/s that work of this intensity can reach at most."""
        return min(self.gemm_flops_per_s, intensity_flops_per_byte * self.bandwidth_bytes_per_s)

    def bound(self, flops: float, bytes_moved: float) -> tuple[str, float]:
        """What limits some work, "memory" or "compute", and its least time in seconds.

        Args:
            flops: floating-point operations.
            bytes_moved: bytes read from memory plus bytes written.

        Work that stays in a cache may move its bytes faster: see ``copies``.
        """
        memory_s = bytes_moved / self.bandwidth_bytes_per_s
        compute_s = flops / self.gemm_flops_per_s
        return ("memory", memory_s) if memory_s > compute_s else ("compute", compute_s)

    @property
    def busy(self) -> bool:
        """Whether the machine was so busy that the rates may be too low."""
        return self.waiting_share > _BUSY

    def line(self) -> str:
        """One line for people."""
        where = self.device
        if self.threads is not None:
            where += f", {self.threads} thread{'s' if self.threads > 1 else ''}"
        text = (
            f"{format_rate(self.bandwidth_bytes_per_s, 'B/s')} copy, "
            f"{format_rate(self.gemm_flops_per_s, 'FLOP/s')} {self.dtype} product, "
            f"{format_rate(self.ridge_flops_per_byte, 'FLOP/B')} to reach both ({where})"
        )
        if self.sustained_share < 1:
            text += f"; the quota leaves {self.sustained_share:.0%} of both in a long run"
        if self.busy:
            text += (
                f"; other programs held the core for {self.waiting_share:.0%} of the measurement, "
                "so both may be too low"
            )
        return text

    def __str__(self) -> str:
        return self.line()

    def __repr__(self) -> str:
        # The same from run to run, so that a notebook's output stays comparable.
        return f"Peaks({self.device})"

    def _repr_html_(self) -> str:
        from labkit import tables

        return tables.peaks_as_html(self)

    def plot(self, *comparisons: Comparison) -> Figure:
        """The roofline, with the variants that state their ``flops`` and ``bytes_moved``."""
        from labkit import rooflines

        return rooflines.roofline_figure(self, *comparisons)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Peaks:
        """Read what `to_dict` wrote; unknown keys are ignored.

        Raises:
            ValueError: a value is missing or not of its type.
        """
        return from_plain(cls, data, "peaks")  # type: ignore[no-any-return]


def places_of(traces: Iterable[Trace]) -> list[Place]:
    """The rates that traced work is weighed against: of its device, in float32 and its dtype."""
    found: list[Place] = []
    for trace in traces:
        team = trace.threads if trace.device == "cpu" else None
        if trace.device:
            found += [(trace.device, dtype, team) for dtype in ("float32", trace.dtype)]
    return [place for place in dict.fromkeys(found) if place[1] in DTYPES]


def measure_peaks(
    *,
    threads: int | None = None,
    budget_s: float = 1.0,
    device: str | None = None,
    dtype: str = "float32",
) -> Peaks:
    """Measure the bandwidth of copies and the arithmetic of matrix products with torch.

    Takes 64 to 160 MiB of memory on the processor, three times the last-level cache (160 MiB where
    the system does not say how large that is), and 1 GiB on an accelerator. float32 products follow
    torch's own setting (``torch.set_float32_matmul_precision``).

    Args:
        threads: for torch at most; None: the cores that may really be used. One thread is tried
            too, and the better kept: it wins for small sizes, and where other programs hold the
            other cores.
        budget_s: seconds, roughly; half for copies, half for products. Sizes that would not fit
            are left out, the first of each kind and the largest copy are always taken.
        device: "cpu", "cuda", "cuda:1", "mps", "xpu"; None: the processor.
        dtype: of the products, "float32", "bfloat16", "float16" or "float64"; "tf32" for float32
            numbers of which a CUDA device multiplies the first 19 bits.

    Raises:
        ValueError: a budget or a number of threads that is not above 0; a device that torch
            does not find here; another dtype; "tf32" elsewhere than on CUDA.

    >>> peaks = measure_peaks(threads=1, budget_s=0.1)
    >>> peaks.bandwidth_bytes_per_s > 0, peaks.gemm_flops_per_s > 0
    (True, True)
    """
    if not budget_s > 0:
        raise ValueError(f"budget_s is {budget_s}; it should be above 0")
    if threads is not None and threads < 1:
        raise ValueError(f"threads is {threads}; it should be at least 1")
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r}: give one of {', '.join(DTYPES)}")
    import torch

    place = torch.device(device or "cpu")
    on_cpu = place.type == "cpu"
    if dtype == "tf32" and place.type != "cuda":
        raise ValueError(f"dtype='tf32' is a format of CUDA devices; this one is {place.type!r}")
    found = torch.accelerator.current_accelerator(check_available=True)
    if not on_cpu and (found is None or found.type != place.type):
        raise ValueError(f"device={device!r} is not here; torch finds {found or 'no accelerator'}")
    here = machine(accelerators=False)
    wanted = threads or here.usable_threads
    before, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    timer = _host_timer(lambda: None) if on_cpu else _accelerator_timer(place)
    teams = sorted({1, wanted}) if on_cpu else [None]
    began_s, waited_before_s = time.perf_counter(), waited_s()
    copies, gemms = [], []
    try:
        if dtype == "tf32":
            torch.set_float32_matmul_precision("high")
        with torch.inference_mode():
            works = _copies(place, _copy_bytes(wanted) if on_cpu else _ACCELERATOR_COPY_BYTES)
            for work, rate, team in _best_rates(works, teams, timer, budget_s / 2):
                copies.append(CopyRate(work.size, rate, team))
            del works, work  # their buffers go before the matrices come
            works = _gemms(place, _GEMM_SIZES if on_cpu else _ACCELERATOR_GEMM_SIZES, dtype)
            for work, rate, team in _best_rates(works, teams, timer, budget_s / 2):
                gemms.append(GemmRate(work.size, rate, team))
            del works, work
    finally:
        torch.set_num_threads(before)
        torch.set_float32_matmul_precision(precision)
        if not on_cpu:
            torch.accelerator.empty_cache()
    waited = (waited_s() or 0.0) - (waited_before_s or 0.0)
    return Peaks(
        copies=tuple(sorted(copies, key=lambda copy: copy.working_set_bytes)),
        gemms=tuple(gemms),
        threads=wanted if on_cpu else None,
        device=str(place),
        dtype=dtype,
        sustained_share=min(1.0, here.usable_cores / wanted) if on_cpu else 1.0,
        waiting_share=round(waited / (time.perf_counter() - began_s), 3),
    )


@dataclass(frozen=True)
class _Work:
    """Something to run at full speed: ``amount`` bytes or operations a call."""

    size: int
    amount: float
    call: Callable[[], object]


# Takes a call and how often to make it; gives the seconds that all of them took.
_Timer = Callable[[Callable[[], object], int], float]


def _best_rates(
    works: Sequence[_Work], teams: Sequence[int | None], timer: _Timer, budget_s: float
) -> list[tuple[_Work, float, int | None]]:
    """The highest rate of each work that fits into the budget, and the threads that gave it.

    The first work always runs. Everywhere else the lab takes medians of rounds, because it asks
    how long work takes. Here it asks what the machine can do, and noise only ever slows it down:
    the best is the least wrong.
    """
    import torch

    deadline = time.perf_counter() + budget_s
    best: dict[tuple[int, int | None], float] = {}  # by position of the work, and threads

    def take(which: int, team: int | None, calls: int) -> None:
        if team is not None:
            torch.set_num_threads(team)
        rate = works[which].amount * calls / max(timer(works[which].call, calls), 1e-9)
        best[which, team] = max(best.get((which, team), 0.0), rate)

    for which, work in enumerate(works):
        for team in teams:
            # A warm-up and a call, at the best rate so far.
            least_s = 2 * work.amount / max(best.values()) if best else 0.0
            if not best or time.perf_counter() + least_s < deadline:
                work.call()
                take(which, team, 1)
    # In turns, so that a burst of noise falls on all sizes and spoils none.
    for which, team in cycle(list(best)):
        if time.perf_counter() >= deadline:
            break
        take(which, team, max(1, round(_BLOCK_S * best[which, team] / works[which].amount)))
    winners = {which: team for (which, team), _ in sorted(best.items(), key=lambda item: item[1])}
    return [(works[i], best[i, winners[i]], winners[i]) for i in sorted(winners)]


def _copy_bytes(threads: int, root: Path = ROOT) -> tuple[int, ...]:
    """Working sets of copies on the processor; the last is beyond its caches."""
    cache_bytes = last_level_bytes(threads, root)
    beyond = _MOST_COPY_BYTES if cache_bytes is None else _BEYOND_CACHE * cache_bytes
    largest = min(max(beyond, _COPY_BYTES[-1]), _MOST_COPY_BYTES)
    return (*(size for size in _COPY_BYTES if size < largest), largest)


def _copies(place: torch.device, sizes: Sequence[int]) -> list[_Work]:
    """Copies whose two buffers have these sizes together, the largest first."""
    import torch

    numbers = max(sizes) // 2 // 4  # two buffers of 4-byte numbers
    # Written once: untouched memory is one page of zeros that the kernel shares, and stays in
    # the cache.
    source, target = (
        torch.full((numbers,), x, device=place, dtype=torch.float32) for x in (1.0, 2.0)
    )

    def work(size: int) -> _Work:
        n = size // 2 // 4
        a, b = source[:n], target[:n]
        return _Work(size, size, lambda: b.copy_(a))

    # The largest is the one that must not be left out.
    return [work(size) for size in (max(sizes), *sorted(sizes)[:-1])]


def _gemms(place: torch.device, sizes: Sequence[int], dtype: str) -> list[_Work]:
    """Products of two square matrices, the smallest first."""
    import torch

    # Not constants: an accelerator draws less power on them, and clocks higher. And not the
    # global generator, whose state is the reader's.
    generator = torch.Generator(device=place).manual_seed(0)
    numbers = max(sizes) ** 2
    kind = torch.float32 if dtype == "tf32" else getattr(torch, dtype)
    buffers = [torch.rand(numbers, generator=generator, device=place, dtype=kind) for _ in range(3)]

    def work(n: int) -> _Work:
        a, b, out = (buffer[: n * n].view(n, n) for buffer in buffers)
        return _Work(n, 2.0 * n**3, lambda: torch.mm(a, b, out=out))

    return [work(n) for n in sorted(sizes)]


def _host_timer(synchronize: Callable[[], object]) -> _Timer:
    def timer(call: Callable[[], object], calls: int) -> float:
        synchronize()
        start = time.perf_counter()
        for _ in repeat(None, calls):
            call()
        synchronize()
        return time.perf_counter() - start

    return timer


def _accelerator_timer(place: torch.device) -> _Timer:
    """The device's own events; the host's clock around a drained queue where it has none."""
    import torch

    def synchronize() -> None:
        torch.accelerator.synchronize(place)

    stream = torch.accelerator.current_stream(place)

    def timer(call: Callable[[], object], calls: int) -> float:
        start, end = (torch.Event(place, enable_timing=True) for _ in range(2))
        synchronize()
        # The stream is named: without it an event takes that of the current device, which may
        # be another one.
        start.record(stream)
        for _ in repeat(None, calls):
            call()
        end.record(stream)
        synchronize()
        return start.elapsed_time(end) / 1e3

    try:
        timer(lambda: None, 1)
    except (NotImplementedError, RuntimeError):
        return _host_timer(synchronize)
    return timer
