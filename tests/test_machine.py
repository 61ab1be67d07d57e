import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from labkit import machines, processors
from labkit.cgroups import (
    Load,
    Throttling,
    load,
    memory_limit_bytes,
    stop_counter,
    throttling,
    usable_cores,
    used_by_others_s,
    waited_s,
)
from labkit.machines import Accelerator, Machine, machine

MANY = 64  # an affinity that no quota here is above
V2_MOUNT = "31 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


def put(root: Path, path: str, text: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def v2(root: Path, group: str = "/", mount_root: str = "/") -> Path:
    put(root, "proc/self/cgroup", f"0::{group}\n")
    put(root, "proc/self/mountinfo", V2_MOUNT.replace(" / ", f" {mount_root} ", 1))
    return root


def v1(root: Path, group: str = "/", mount_root: str = "/") -> Path:
    put(root, "proc/self/cgroup", f"5:memory:{group}\n4:cpu,cpuacct:{group}\n1:name=systemd:/\n")
    put(
        root,
        "proc/self/mountinfo",
        f"33 31 0:30 {mount_root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
        f"34 31 0:31 {mount_root} /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n"
        "35 31 0:32 / / rw - ext4 /dev/vda1 rw\n",
    )
    return root


# Cores that may really be used.


def test_v2_quota_of_half_a_core(tmp_path):
    put(v2(tmp_path), "sys/fs/cgroup/cpu.max", "50000 100000\n")
    assert usable_cores(root=tmp_path, affinity=MANY) == 0.5


def test_v2_without_a_limit(tmp_path):
    put(v2(tmp_path), "sys/fs/cgroup/cpu.max", "max 100000\n")
    assert usable_cores(root=tmp_path, affinity=MANY) == MANY


def test_v2_limit_of_the_parent_counts(tmp_path):
    v2(tmp_path, "/class/student7/kernel")
    put(tmp_path, "sys/fs/cgroup/class/student7/kernel/cpu.max", "max 100000\n")
    put(tmp_path, "sys/fs/cgroup/class/student7/cpu.max", "150000 100000\n")
    put(tmp_path, "sys/fs/cgroup/class/cpu.max", "800000 100000\n")
    assert usable_cores(root=tmp_path, affinity=MANY) == 1.5


def test_another_group_does_not_count(tmp_path):
    v2(tmp_path, "/class/student7")
    put(tmp_path, "sys/fs/cgroup/class/student8/cpu.max", "10000 100000\n")
    assert usable_cores(root=tmp_path, affinity=MANY) == MANY


def test_affinity_below_the_quota(tmp_path):
    put(v2(tmp_path), "sys/fs/cgroup/cpu.max", "400000 100000\n")
    assert usable_cores(root=tmp_path, affinity=2) == 2.0


def test_v1_quota(tmp_path):
    v1(tmp_path, "/docker/abc")
    put(tmp_path, "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "200000\n")
    put(tmp_path, "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us", "100000\n")
    assert usable_cores(root=tmp_path, affinity=MANY) == 2.0


def test_v1_without_a_limit(tmp_path):
    v1(tmp_path)
    put(tmp_path, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n")
    put(tmp_path, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n")
    assert usable_cores(root=tmp_path, affinity=MANY) == MANY


def test_v1_container_without_a_namespace_sees_the_path_of_the_host(tmp_path):
    # The mount shows /docker/abc as its root, the group's path is the host's.
    v1(tmp_path, "/docker/abc", mount_root="/docker/abc")
    put(tmp_path, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000\n")
    put(tmp_path, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n")
    assert usable_cores(root=tmp_path, affinity=MANY) == 0.5


@pytest.mark.parametrize(
    ("group", "mount_root"), [("/../outside", "/"), ("/somewhere", "/docker/abc")]
)
def test_a_path_that_the_mount_does_not_show(tmp_path, group, mount_root):
    put(v2(tmp_path, group, mount_root), "sys/fs/cgroup/cpu.max", "100000 100000\n")
    assert usable_cores(root=tmp_path, affinity=MANY) == 1.0


def test_hybrid_takes_the_least_of_both(tmp_path):
    put(tmp_path, "proc/self/cgroup", "4:cpu:/a\n0::/b\n")
    put(
        tmp_path,
        "proc/self/mountinfo",
        "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
        "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
    )
    put(tmp_path, "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "300000")
    put(tmp_path, "sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000")
    assert usable_cores(root=tmp_path, affinity=MANY) == 3.0
    put(tmp_path, "sys/fs/cgroup/unified/b/cpu.max", "25000 100000")
    assert usable_cores(root=tmp_path, affinity=MANY) == 0.25


@pytest.mark.parametrize("text", ["", "0 100000", "50000 0", "garbage", "50000"])
def test_a_quota_that_makes_no_sense_is_none(tmp_path, text):
    put(v2(tmp_path), "sys/fs/cgroup/cpu.max", text)
    assert usable_cores(root=tmp_path, affinity=MANY) == MANY


def test_no_cgroup(tmp_path):
    assert usable_cores(root=tmp_path, affinity=3) == 3.0
    assert memory_limit_bytes(root=tmp_path) is None
    assert throttling(root=tmp_path) is None


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux sets affinities")
def test_real_affinity():
    code = (
        "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        "from labkit.machines import machine; m = machine()\n"
        "print(m.usable_cores <= 1, m.usable_threads)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["True", "1"]


# Memory limits.


def test_v2_memory_limit_of_the_parent(tmp_path):
    v2(tmp_path, "/a/b")
    put(tmp_path, "sys/fs/cgroup/a/b/memory.max", "max\n")
    put(tmp_path, "sys/fs/cgroup/a/memory.max", "1073741824\n")
    assert memory_limit_bytes(root=tmp_path) == 2**30


def test_v1_memory_limit(tmp_path):
    v1(tmp_path, "/a")
    put(tmp_path, "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    assert memory_limit_bytes(root=tmp_path) is None
    put(tmp_path, "sys/fs/cgroup/memory/a/memory.limit_in_bytes", "536870912\n")
    assert memory_limit_bytes(root=tmp_path) == 2**29


@pytest.mark.parametrize(("limit", "seen"), [(2**30, 2**30), (2**35, None)])
def test_a_limit_above_the_memory_is_none(tmp_path, limit, seen):
    put(v2(tmp_path), "sys/fs/cgroup/memory.max", str(limit))
    put(tmp_path, "proc/meminfo", "MemTotal:    8388608 kB\nMemFree: 1 kB\nSwapTotal: 1024 kB\n")
    found = machine(root=tmp_path)
    assert (found.memory_bytes, found.swap_bytes) == (8 * 2**30, 2**20)
    assert found.memory_limit_bytes == seen
    assert found.usable_memory_bytes == (seen or 8 * 2**30)


# Throttling and load.


def test_v2_throttling_sums_the_levels(tmp_path):
    v2(tmp_path, "/a")
    stat = "usage_usec 9\nnr_periods 10\nnr_throttled {}\nthrottled_usec {}\n"
    put(tmp_path, "sys/fs/cgroup/a/cpu.stat", stat.format(2, 500_000))
    put(tmp_path, "sys/fs/cgroup/cpu.stat", stat.format(1, 250_000))
    assert throttling(root=tmp_path) == Throttling(periods=3, throttled_s=0.75)


def test_v1_throttling_counts_nanoseconds(tmp_path):
    stat = "nr_periods 10\nnr_throttled 4\nthrottled_time 1500000000\n"
    put(v1(tmp_path), "sys/fs/cgroup/cpu,cpuacct/cpu.stat", stat)
    assert throttling(root=tmp_path) == Throttling(periods=4, throttled_s=1.5)


def test_the_root_group_keeps_no_record(tmp_path):
    put(v2(tmp_path), "sys/fs/cgroup/cpu.stat", "usage_usec 9\nuser_usec 5\n")
    assert throttling(root=tmp_path) is None


def test_stops_are_counted_where_there_is_a_quota(tmp_path):
    stat = "nr_periods 10\nnr_throttled {}\nthrottled_usec 9\n"
    v2(tmp_path, "/a")
    put(tmp_path, "sys/fs/cgroup/a/cpu.stat", stat.format(7))
    assert stop_counter(root=tmp_path) is None
    put(tmp_path, "sys/fs/cgroup/a/cpu.max", "50000 100000")
    put(tmp_path, "sys/fs/cgroup/cpu.max", "max 100000")
    put(tmp_path, "sys/fs/cgroup/cpu.stat", stat.format(100))
    stops = stop_counter(root=tmp_path)
    assert stops() == 7
    put(tmp_path, "sys/fs/cgroup/a/cpu.stat", stat.format(8))
    assert stops() == 8


def test_stops_are_counted_by_v1_too(tmp_path):
    folder = "sys/fs/cgroup/cpu,cpuacct"
    put(v1(tmp_path), f"{folder}/cpu.stat", "nr_periods 10\nnr_throttled 4\nthrottled_time 1\n")
    put(tmp_path, f"{folder}/cpu.cfs_quota_us", "50000")
    put(tmp_path, f"{folder}/cpu.cfs_period_us", "100000")
    assert stop_counter(root=tmp_path)() == 4


def test_load(tmp_path):
    assert load(root=tmp_path) == Load(None, None, None)
    put(tmp_path, "proc/loadavg", "0.91 0.46 0.25 3/85 6090\n")
    assert load(root=tmp_path) == Load(0.91, 3, None)
    put(tmp_path, "proc/pressure/cpu", "some avg10=12.50 avg60=0.91 avg300=0.57 total=1\n")
    assert load(root=tmp_path) == Load(0.91, 3, 0.125)


def test_waiting_for_a_core(tmp_path):
    assert waited_s(root=tmp_path) is None
    put(tmp_path, "proc/self/schedstat", "599849376 403929059 143\n")
    assert waited_s(root=tmp_path) == pytest.approx(0.403929059)


def test_what_others_used_is_all_but_this_process_and_its_children(tmp_path):
    assert used_by_others_s(root=tmp_path) is None
    tick = os.sysconf("SC_CLK_TCK")
    times = " ".join(str(n * tick) for n in (50, 1, 9, 1000, 7, 2, 3, 4, 0, 0))
    put(tmp_path, "proc/stat", f"cpu  {times}\ncpu0 1 2 3\n")
    assert used_by_others_s(root=tmp_path) == 50 + 1 + 9 + 2 + 3 + 4
    # Fields 14 to 17: its own and its ended children's time, as user and in the kernel.
    fields = "S 1 1 1 0 -1 0 0 0 0 0"
    put(tmp_path, "proc/self/stat", f"7 (a (b) c) {fields} {5 * tick} {tick} {2 * tick} 0 20\n")
    put(tmp_path, "proc/self/task/7/children", "8 9")
    put(tmp_path, "proc/8/stat", f"8 (child) {fields} {4 * tick} 0 0 0 20\n")
    assert used_by_others_s(root=tmp_path) == 69 - 8 - 4


# The processor.

X86 = """processor\t: 0
model name\t: Intel(R) Xeon(R) Platinum 8488C
flags\t\t: fpu avx2 avx512f avx512_vnni avx512_bf16 amx_bf16 amx_tile amx_int8 hypervisor

processor\t: 1
model name\t: not looked at
"""
ARM = """processor\t: 0
BogoMIPS\t: 243.75
Features\t: fp asimd asimdhp asimddp sve i8mm bf16
CPU implementer\t: 0x41
CPU part\t: {}

"""


def test_x86(tmp_path):
    put(tmp_path, "proc/cpuinfo", X86)
    found = machine(root=tmp_path)
    assert found.processor == "Intel(R) Xeon(R) Platinum 8488C"
    assert found.isa == ("avx2", "avx512f", "vnni", "bf16", "amx_int8", "amx_bf16")
    assert found.virtual_machine is True


@pytest.mark.parametrize(
    ("part", "name"),
    [("0xd40", "Neoverse-V1"), ("0xfff", "ARM (implementer 0x41, part 0xfff)")],
)
def test_arm(tmp_path, part, name):
    put(tmp_path, "proc/cpuinfo", ARM.format(part))
    found = machine(root=tmp_path)
    assert found.processor == name
    assert found.isa == ("bf16", "fp16", "neon", "dotprod", "i8mm", "sve")
    assert found.virtual_machine is None


def test_avx_vnni_is_vnni_too():
    assert processors.isa(frozenset({"avx_vnni"})) == ("vnni",)


def test_intel_mac():
    text = (
        "machdep.cpu.brand_string: Intel(R) Core(TM) i5\n"
        "machdep.cpu.leaf7_features: BMI1 AVX2 AVX512F AVX512VNNI\n"
        "hw.optional.avx2_0: 1\nhw.optional.avx512f: 1\n"
    )
    name, flags = processors.parse_sysctl(text)
    assert name == "Intel(R) Core(TM) i5"
    assert processors.isa(flags) == ("avx2", "avx512f", "vnni")


def test_caches_governor_turbo(tmp_path):
    cpu = "sys/devices/system/cpu"
    for i, (level, kind, size) in enumerate(
        [(1, "Data", "32K"), (1, "Instruction", "64K"), (2, "Unified", "512K"), (3, "Unified", "")]
    ):
        folder = f"{cpu}/cpu0/cache/index{i}"
        put(tmp_path, f"{folder}/level", f"{level}\n")
        put(tmp_path, f"{folder}/type", f"{kind}\n")
        put(tmp_path, f"{folder}/size", f"{size}\n")
    put(tmp_path, f"{cpu}/cpu0/cpufreq/scaling_governor", "powersave\n")
    put(tmp_path, f"{cpu}/intel_pstate/no_turbo", "1\n")
    found = machine(root=tmp_path)
    assert found.cache_bytes == {"L1d": 32 * 1024, "L2": 512 * 1024}
    assert (found.governor, found.turbo) == ("powersave", False)


def test_boost(tmp_path):
    assert processors.turbo(tmp_path) is None
    put(tmp_path, "sys/devices/system/cpu/cpufreq/boost", "1\n")
    assert processors.turbo(tmp_path) is True


@pytest.mark.parametrize("mark", [".dockerenv", "run/.containerenv"])
def test_container(tmp_path, mark):
    put(tmp_path, mark, "")
    assert machine(root=tmp_path).container


def test_a_pod_is_a_container_and_a_bare_root_is_none(tmp_path):
    assert machine(root=v2(tmp_path / "pod", "/kubepods/pod1/abc")).container
    assert not machine(root=v2(tmp_path / "bare", "/user.slice")).container


# A system that has neither /proc nor /sys.


def test_without_proc(tmp_path):
    psutil = pytest.importorskip("psutil")
    found = machine(root=tmp_path)
    assert found.memory_bytes == psutil.virtual_memory().total
    assert found.usable_cores >= 1
    assert found.isa == ()
    assert found.processor
    assert found.cache_bytes == {}
    assert (found.governor, found.turbo, found.memory_limit_bytes) == (None, None, None)
    assert "cores usable" in found.line()
    assert Machine.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_affinity_without_the_call_of_linux(monkeypatch, tmp_path):
    psutil = pytest.importorskip("psutil")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(psutil.Process, "cpu_affinity", lambda self: [0, 3], raising=False)
    assert usable_cores(root=tmp_path) == 2.0
    monkeypatch.delattr(psutil.Process, "cpu_affinity")
    assert usable_cores(root=tmp_path) == os.cpu_count()


# The machine as a whole.


def example(**changes) -> Machine:
    base = Machine(
        processor="AMD EPYC",
        architecture="x86_64",
        isa=("avx2",),
        visible_cores=4,
        usable_cores=1.5,
        memory_bytes=8 * 2**30,
        memory_limit_bytes=None,
        swap_bytes=0,
        cache_bytes={"L1d": 32768},
        accelerators=(),
        system="Linux 6.1.0",
        python="3.11.7",
        versions={"torch": "2.13.0"},
    )
    return dataclasses.replace(base, **changes)


H200 = Accelerator("cuda", "NVIDIA H200", 140 * 2**30)


@pytest.mark.parametrize(
    ("changes", "before", "after"),
    [
        (
            {},
            "AMD EPYC (avx2), 1.5 of 4 cores usable, 8 GiB memory, no accelerator",
            "torch 2.13.0",
        ),
        (
            {"accelerators": (H200, Accelerator("mps", "mps")), "usable_cores": 4.0},
            "4 of 4 cores usable, 8 GiB memory, NVIDIA H200 (cuda, 140 GiB) + mps (mps)",
            "Python 3.11.7, torch 2.13.0",
        ),
        (
            {"accelerators": None, "isa": (), "memory_limit_bytes": 2**30, "versions": {}},
            "AMD EPYC (x86_64), 1.5 of 4 cores usable, 1 GiB memory (a limit; 8 GiB in the box)",
            "Python 3.11.7",
        ),
    ],
)
def test_line(changes, before, after):
    found = example(**changes)
    assert found.line() == str(found)
    assert f"{before}; " in found.line()
    assert found.line().endswith(after)
    assert repr(found) == f"<Machine {found.line()}>"


@pytest.mark.parametrize(
    ("cores", "threads"), [(0.5, 1), (1.0, 1), (1.99, 1), (2.0, 2), (64.0, 64)]
)
def test_threads_fit_into_the_quota(cores, threads):
    assert example(usable_cores=cores).usable_threads == threads


@pytest.mark.parametrize(
    ("need", "changes", "met"),
    [
        ("avx2", {}, True),
        ("vnni", {}, False),
        ("vnni", {"isa": ("avx2", "vnni")}, True),
        ("1 core", {}, True),
        ("2 cores", {}, False),
        ("2 cores", {"usable_cores": 2.0}, True),
        ("8 GiB", {}, True),
        ("2 GiB", {"memory_limit_bytes": 2**30}, False),
        ("gpu", {}, False),
        ("gpu", {"accelerators": None}, False),
        ("gpu", {"accelerators": (H200,)}, True),
        ("cuda", {"accelerators": (H200,)}, True),
        ("mps", {"accelerators": (H200,)}, False),
    ],
)
def test_needs(need, changes, met):
    found = example(**changes)
    assert found.has(need) is met
    assert (found.missing(need) is None) is met


@pytest.mark.parametrize(
    ("need", "changes", "words"),
    [
        ("vnni", {}, ["AMD EPYC", "no vnni", "int8", "need not beat float32"]),
        ("vnni", {"isa": ()}, ["does not say"]),
        ("vnni", {"architecture": "aarch64"}, ["other processors", "aarch64"]),
        ("4 cores", {}, ["needs 4 cores", "1.5 may be used"]),
        ("16 GiB", {}, ["16 GiB", "8 GiB may be used"]),
        ("cuda", {}, ["no accelerator"]),
        ("mps", {"accelerators": (H200,)}, ["torch finds cuda"]),
        ("gpu", {"accelerators": None}, ["Nobody looked", "machine(accelerators=True)"]),
    ],
)
def test_what_is_missing_is_said_in_a_sentence(need, changes, words):
    sentence = example(**changes).missing(need)
    assert all(word in sentence for word in words)
    assert sentence.endswith(".")


@pytest.mark.parametrize("need", ["quantum", "", "cores", "2 cats", "-1 cores", "GPU"])
def test_an_unknown_need_is_refused_with_what_there_is(need):
    with pytest.raises(ValueError) as caught:
        example().has(need)
    assert repr(need) in str(caught.value)
    assert all(word in str(caught.value) for word in ("vnni", "amx_int8", "cuda", "2 cores"))


def test_json_round_trip():
    for found in (example(), example(accelerators=(H200,), turbo=True), example(accelerators=None)):
        text = json.dumps(found.to_dict())
        again = Machine.from_dict(json.loads(text) | {"of a later version": 1})
        assert again == found
        assert hash(again) == hash(found)
        assert isinstance(again.isa, tuple)


@pytest.mark.parametrize(
    ("key", "value", "place"),
    [
        ("processor", 3, "machine.processor"),
        ("visible_cores", "4", "machine.visible_cores"),
        ("visible_cores", True, "machine.visible_cores"),
        ("container", 1, "machine.container"),
        ("isa", "avx2", "machine.isa"),
        ("isa", ["avx2", 2], "machine.isa[1]"),
        ("cache_bytes", {"L2": 0.5}, "machine.cache_bytes['L2']"),
        ("accelerators", [{"kind": "cuda"}], "machine.accelerators[0] has no name"),
        ("usable_cores", 0, "usable_cores is 0"),
        ("usable_cores", float("nan"), "usable_cores is nan"),
    ],
)
def test_from_dict_says_what_is_wrong(key, value, place):
    with pytest.raises(ValueError) as caught:
        Machine.from_dict(example().to_dict() | {key: value})
    assert place in str(caught.value)


def test_from_dict_names_what_is_left_out():
    data = example().to_dict()
    del data["processor"], data["governor"]
    with pytest.raises(ValueError, match=r"machine has no processor$"):
        Machine.from_dict(data)


def test_fingerprint_is_of_the_kind_of_machine():
    base = example()
    assert base.fingerprint == "7f4f396956b9"  # stable: records are found by it
    same = [{"python": "3.12.1"}, {"versions": {}}, {"accelerators": None}, {"turbo": True}]
    same += [{"system": "Linux 6.2.0"}, {"memory_bytes": 8 * 2**30 - 4096}]
    other = [{"processor": "x"}, {"usable_cores": 0.5}, {"memory_limit_bytes": 2**30}]
    other += [{"isa": ()}, {"system": "Darwin 23"}, {"limits": {"ONEDNN_MAX_CPU_ISA": "AVX2"}}]
    assert {example(**changes).fingerprint for changes in same} == {base.fingerprint}
    assert base.fingerprint not in {example(**changes).fingerprint for changes in other}


def test_a_limit_of_the_instructions_makes_another_kind_of_machine(monkeypatch):
    before = machine()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    limited = machine()
    assert limited.limits == {**before.limits, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    assert limited.fingerprint != before.fingerprint
    assert "ONEDNN_MAX_CPU_ISA=AVX2" in limited.line()
    assert Machine.from_dict(limited.to_dict()) == limited


# This machine.


def test_this_machine():
    here = machine()
    assert here.usable_threads >= 1
    assert 0 < here.usable_cores <= here.visible_cores
    assert here.memory_bytes > 2**28
    assert "cores usable" in here.line()
    assert f"Python {sys.version.split()[0]}" in here.line()
    assert here.has("1 core") == (here.usable_cores >= 1)
    assert here.versions["torch"].startswith("2.")
    assert machine().fingerprint == here.fingerprint
    assert Machine.from_dict(json.loads(json.dumps(here.to_dict()))) == here


def test_no_names_of_people_or_hosts():
    import getpass
    import socket

    text = json.dumps(machine().to_dict())
    for secret in (socket.gethostname(), str(Path.home())):
        assert secret not in text
    assert f'"{getpass.getuser()}"' not in text


def test_a_second_look_is_cheap():
    machine(accelerators=False)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        machine(accelerators=False)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.05


def test_a_look_loads_no_library():
    code = (
        "import sys, time; start = time.perf_counter()\n"
        "from labkit.machines import load, machine, throttling\n"
        "here = machine(); load(); throttling(); took = time.perf_counter() - start\n"
        "heavy = {'torch', 'numpy', 'pandas', 'matplotlib', 'ipywidgets', 'psutil'}\n"
        "print(sorted(heavy & set(sys.modules)), here.accelerators, took)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    expected = "[] None" if sys.platform == "linux" else "['psutil'] None"
    assert done.stdout.startswith(expected)


def test_accelerators_are_looked_for_when_asked():
    torch = pytest.importorskip("torch")
    assert machine(accelerators=False).accelerators is None
    found = machine(accelerators=True).accelerators
    assert len(found) == (
        torch.accelerator.device_count() if torch.accelerator.is_available() else 0
    )
    assert machine().accelerators == found  # torch is imported now


@pytest.mark.parametrize(
    ("kind", "modules", "expected"),
    [
        ("cuda", {"name": "NVIDIA H200", "total_memory": 140 * 2**30}, H200),
        ("mps", None, Accelerator("mps", "mps")),  # it has no get_device_properties
    ],
)
def test_what_torch_says_of_its_accelerators(monkeypatch, kind, modules, expected):
    torch = pytest.importorskip("torch")
    module = SimpleNamespace()
    if modules:
        module.get_device_properties = lambda index: SimpleNamespace(**modules)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device(kind))
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    # Past the cache, which keeps what is really here.
    assert machines._accelerators.__wrapped__() == (expected, expected)
