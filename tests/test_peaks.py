import json
import subprocess
import sys
import time
from typing import ClassVar

import pytest

from labkit import peaks as peaks_module
from labkit.machines import machine
from labkit.peaks import CopyRate, GemmRate, Peaks, measure_peaks

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.alone


def example(**changes) -> Peaks:
    base = {
        "copies": (CopyRate(2**20, 80e9, 1), CopyRate(2**27, 20e9, 2)),
        "gemms": (GemmRate(256, 100e9, 1), GemmRate(512, 160e9, 2), GemmRate(1024, 150e9, 2)),
        "threads": 2,
    }
    return Peaks(**(base | changes))


# The roof, with numbers made by hand.


def test_the_bandwidth_is_that_of_the_largest_working_set():
    assert example().bandwidth_bytes_per_s == 20e9


def test_the_product_is_the_best_of_all_sizes():
    assert example().best_gemm == GemmRate(512, 160e9, 2)
    assert example().gemm_flops_per_s == 160e9


@pytest.mark.parametrize(
    ("intensity", "rate"), [(0, 0), (0.5, 10e9), (8, 160e9), (100, 160e9), (float("inf"), 160e9)]
)
def test_roofline(intensity, rate):
    assert example().roofline(intensity) == rate


def test_both_roofs_meet_at_the_ridge():
    assert example().ridge_flops_per_byte == 8
    assert example().roofline(8) == 8 * 20e9


@pytest.mark.parametrize(
    ("flops", "bytes_moved", "bound"),
    [
        (1e9, 20e9, ("memory", 1.0)),
        (320e9, 20e9, ("compute", 2.0)),
        (160e9, 20e9, ("compute", 1.0)),
        (0, 20e9, ("memory", 1.0)),
        (0, 0, ("compute", 0.0)),
    ],
)
def test_bound(flops, bytes_moved, bound):
    assert example().bound(flops=flops, bytes_moved=bytes_moved) == bound


def test_line():
    line = "20 GB/s copy, 160 GFLOP/s float32 product, 8 FLOP/B to reach both (cpu, 2 threads)"
    assert example().line() == str(example()) == line
    assert (
        example(threads=1, sustained_share=0.5)
        .line()
        .endswith("(cpu, 1 thread); the quota leaves 50% of both in a long run")
    )
    assert example(threads=None, device="cuda:0").line().endswith("(cuda:0)")


def test_rates_of_a_busy_moment_say_so():
    busy = example(waiting_share=0.4)
    assert busy.busy
    assert "other programs held the core for 40% of the measurement" in busy.line()
    assert not example(waiting_share=0.01).busy


def test_json_round_trip():
    text = json.dumps(example().to_dict())
    assert Peaks.from_dict(json.loads(text) | {"of a later version": 1}) == example()


@pytest.mark.parametrize(
    "changes",
    [{"copies": []}, {"gemms": []}, {"gemms": [{"size": 1, "flops_per_s": 0}]}, {"device": 1}],
)
def test_from_dict_refuses_what_is_no_peak(changes):
    with pytest.raises(ValueError):
        Peaks.from_dict(example().to_dict() | changes)


# How the best is found, with a clock made by hand.


class Clock:
    """Time that passes only when a work runs."""

    def __init__(self, monkeypatch) -> None:
        self.now_s = 0.0
        monkeypatch.setattr(peaks_module.time, "perf_counter", lambda: self.now_s)

    def work(self, size: int, amount: float, seconds: list[float]) -> peaks_module._Work:
        """Takes these seconds call after call, then the last again and again."""
        left = list(seconds)

        def call():
            self.now_s += left.pop(0) if len(left) > 1 else left[0]

        return peaks_module._Work(size, amount, call)

    def best(self, works, budget_s):
        timer = peaks_module._host_timer(lambda: None)
        return [
            (work.size, pytest.approx(rate), team)
            for work, rate, team in peaks_module._best_rates(works, [None], timer, budget_s)
        ]


def test_the_best_of_all_blocks_counts(monkeypatch):
    clock = Clock(monkeypatch)
    # Warm-up, then calls that noise slows down, and one that it spares.
    noisy = clock.work(1, 100, [9, 0.05, 0.05, 0.02, 0.05])
    assert clock.best([noisy], 10) == [(1, 100 / 0.02, None)]


def test_what_does_not_fit_is_left_out(monkeypatch):
    clock = Clock(monkeypatch)
    works = [
        clock.work(1, 1e6, [0.01]),
        clock.work(2, 1e9, [10.0]),  # would take 20 s at the rate of the first
        clock.work(3, 2e6, [0.01]),
    ]
    assert clock.best(works, 1) == [(1, 1e8, None), (3, 2e8, None)]
    assert clock.now_s < 1.1


def test_the_first_runs_even_without_time(monkeypatch):
    clock = Clock(monkeypatch)
    assert clock.best([clock.work(1, 100, [5.0]), clock.work(2, 1, [5.0])], 0.1) == [(1, 20, None)]
    assert clock.now_s == 10.0  # a warm-up and a call


def test_the_better_number_of_threads_is_kept():
    # Two threads are slow here, whatever torch does: the work looks at how many it has.
    def call():
        time.sleep(0.002 if torch.get_num_threads() == 1 else 0.02)

    before = torch.get_num_threads()
    timer = peaks_module._host_timer(lambda: None)
    try:
        ((_, rate, team),) = peaks_module._best_rates(
            [peaks_module._Work(1, 1.0, call)], [1, 2], timer, 0.2
        )
    finally:
        torch.set_num_threads(before)
    assert team == 1
    assert 50 < rate <= 500


# On this machine.


@pytest.fixture(scope="module")
def measured() -> Peaks:
    return measure_peaks(budget_s=0.6)


def test_real_peaks_are_within_reason(measured):
    # From a small board to a large server.
    assert 0.2e9 < measured.bandwidth_bytes_per_s < 5e12
    assert 0.2e9 < measured.gemm_flops_per_s < 1e14
    assert measured.threads == machine().usable_threads
    assert (measured.device, measured.dtype) == ("cpu", "float32")
    assert 0 < measured.sustained_share <= 1


def test_sizes_grow_and_the_largest_copy_is_there(measured):
    sets = [copy.working_set_bytes for copy in measured.copies]
    assert sets == sorted(set(sets))
    assert sets[-1] == peaks_module._copy_bytes(machine().usable_threads)[-1]
    assert 64 * 2**20 <= sets[-1] <= 160 * 2**20
    sizes = [gemm.size for gemm in measured.gemms]
    assert sizes == sorted(set(sizes))
    assert sizes[0] == 256


def caches(root, *shared, size):
    """A processor whose cores share last-level caches like this."""
    for core, cores in enumerate(shared):
        for level, kind, each in ((1, "Data", "32K"), (3, "Unified", size)):
            folder = root / f"sys/devices/system/cpu/cpu{core}/cache/index{level}"
            folder.mkdir(parents=True)
            (folder / "shared_cpu_list").write_text(f"{cores if level == 3 else core}\n")
            (folder / "level").write_text(f"{level}\n")
            (folder / "type").write_text(f"{kind}\n")
            (folder / "size").write_text(f"{each}\n")


@pytest.mark.parametrize(
    ("shared", "size", "threads", "largest"),
    [
        (["0-1", "0-1"], "32768K", 2, 96),
        (["0", "1"], "24576K", 1, 72),
        # Two threads may lie in two caches.
        (["0", "1"], "24576K", 2, 144),
        (["0", "1"], "24576K", 8, 144),
        (["0-1", "0-1"], "4096K", 2, 64),
        (["0-1", "0-1"], "266240K", 2, 160),
        # A system that does not say.
        ([], "", 2, 160),
    ],
)
def test_the_largest_copy_is_three_times_the_last_level_cache(
    tmp_path, shared, size, threads, largest
):
    caches(tmp_path, *shared, size=size)
    found = peaks_module._copy_bytes(threads, tmp_path)
    assert found[-1] == largest * 2**20
    assert list(found) == sorted(set(found))


def test_the_peak_is_no_less_than_any_size(measured):
    assert measured.gemm_flops_per_s == max(gemm.flops_per_s for gemm in measured.gemms)
    assert all(g.threads in (1, measured.threads) for g in measured.gemms)


def test_a_product_cannot_beat_the_roof_by_far(measured):
    # An independent, plain timing of one product: the peak must not be far below what it gets.
    a = torch.rand(512, 512)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        torch.mm(a, a)
        best_s = float("inf")
        for _ in range(5):
            start = time.perf_counter()
            torch.mm(a, a)
            best_s = min(best_s, time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)
    assert 2 * 512**3 / best_s < 2 * measured.gemm_flops_per_s


def test_nothing_of_the_reader_is_changed():
    before = torch.get_num_threads()
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    measure_peaks(threads=before + 1, budget_s=0.05)
    assert torch.get_num_threads() == before
    assert torch.rand(1) == expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"budget_s": 0}, "budget_s is 0"),
        ({"budget_s": float("nan")}, "budget_s is nan"),
        ({"threads": 0}, "threads is 0"),
        ({"device": "meta"}, "device='meta' is not here"),
    ],
)
def test_what_cannot_be_is_refused(arguments, words):
    with pytest.raises(ValueError) as caught:
        measure_peaks(**arguments)
    assert words in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
def test_memory_stays_small_enough_for_a_container_of_one_gigabyte():
    # In a process of its own: the high-water mark of this one is of other tests. (Not ru_maxrss,
    # which a child inherits.) What torch takes by itself depends on its build: not counted.
    code = (
        "import re, torch\n"
        "from labkit.peaks import measure_peaks\n"
        "def peak_kib():\n"
        "    return int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
        "before = peak_kib()\n"
        "measure_peaks(budget_s=0.3)\n"
        "print(peak_kib() - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    largest = peaks_module._copy_bytes(machine().usable_threads)[-1]
    assert largest - 10 * 2**20 < int(done.stdout) * 1024 < 300 * 2**20


def test_importing_loads_no_torch():
    code = "import sys, labkit.peaks; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["False", "False"]


# On an accelerator, where there is one.


@pytest.mark.skipif(not torch.accelerator.is_available(), reason="needs an accelerator")
def test_accelerator():
    kind = torch.accelerator.current_accelerator().type
    found = measure_peaks(device=kind, budget_s=1.0)
    assert found.threads is None
    assert found.device.startswith(kind)
    assert found.gemm_flops_per_s > measure_peaks(threads=1, budget_s=0.2).gemm_flops_per_s


def test_the_host_clock_waits_for_the_device_before_and_after():
    seen = []
    timer = peaks_module._host_timer(lambda: seen.append("wait"))
    assert timer(lambda: seen.append("call"), 2) > 0
    assert seen == ["wait", "call", "call", "wait"]


class FakeEvent:
    """Stands in for torch.Event on a machine without an accelerator."""

    seen: ClassVar[list] = []

    def __init__(self, device, *, enable_timing):
        assert enable_timing

    def record(self, stream):
        self.seen.append(("record", stream))

    def elapsed_time(self, end):
        return 2500.0  # ms


@pytest.fixture
def fake_accelerator(monkeypatch):
    seen = FakeEvent.seen = []
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda device: seen.append("wait"))
    monkeypatch.setattr(torch.accelerator, "current_stream", lambda device: f"stream of {device}")
    monkeypatch.setattr(torch, "Event", FakeEvent)
    return seen


def test_events_stand_around_the_calls_in_the_stream_of_the_device(fake_accelerator):
    timer = peaks_module._accelerator_timer(torch.device("cuda:1"))
    fake_accelerator.clear()
    assert timer(lambda: fake_accelerator.append("call"), 2) == 2.5
    stream = ("record", "stream of cuda:1")
    assert fake_accelerator == ["wait", stream, "call", "call", stream, "wait"]


def test_a_device_without_events_gets_the_clock_of_the_host(fake_accelerator, monkeypatch):
    def refuse(*_, **__):
        raise NotImplementedError("no timing here")

    monkeypatch.setattr(torch, "Event", refuse)
    timer = peaks_module._accelerator_timer(torch.device("mps"))
    fake_accelerator.clear()
    assert 0 < timer(lambda: fake_accelerator.append("call"), 1) < 1
    assert fake_accelerator == ["wait", "call", "wait"]
