"""Sweeps and searches on Dask: real clusters, real kills."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import logging
import os
import platform
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import psutil
import pytest
from filelock import Timeout
from jupyter_client.manager import start_new_kernel

import labkit as lab
from labkit import clients, launch
from labkit.apart import apart
from labkit.recorder import Settings
from labkit.sweeps import SweepPoint
from labkit.trials import Trial
from labkit.turns import queue_lock
from labkit.variants import as_variants
from labkit.worker import Run, Status

pytest.importorskip("distributed", reason="the extra labkit[cluster] is not installed")
import dask
from distributed import Client, LocalCluster

TWO_CORES = lab.machine().usable_threads >= 2
needs_two_cores = pytest.mark.skipif(not TWO_CORES, reason="needs two usable cores")


def start_cluster(workers=2):
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL,  # killed workers are the subject here
    )


@pytest.fixture(scope="module", autouse=True)
def patient_clusters():
    """Dask gives up a worker that is away 15 s after an end of it, be it a later one."""
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "1h"}):
        yield


@pytest.fixture(scope="module")
def module_client():
    with start_cluster() as cluster, Client(cluster) as client:
        yield client


@pytest.fixture
def client(module_client):
    """Of the cluster of all these tests, once it has all of its workers (again)."""
    # A sweep would wait for the first worker as long as a cluster's queue may take.
    module_client.wait_for_workers(2, timeout=60)
    return module_client


@pytest.fixture
def fresh_client():
    """Of a cluster of its own, for tests that end it."""
    with start_cluster() as cluster, Client(cluster) as client:
        yield client


@lab.experiment(steps=[1000, 2000])
def loops(steps):
    """Two loops; one is longer."""

    def short():
        for _ in range(steps):
            pass

    def long():
        for _ in range(3 * steps):
            pass

    return {"short": short, "long": long}


@lab.experiment(number=[1, 2])
def endless(number):
    """Work of so different lengths that the whole budget is spent."""

    def work():
        time.sleep(0.0001 + 0.01 * os.urandom(1)[0] / 256)

    return {"one": work, "other": work}


def wait_until(condition, deadline_s=30.0):
    """Wait for something that must happen; the deadline only bounds a failure."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            pytest.fail("it did not happen before the deadline")
        time.sleep(0.01)


def alive(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# What every sweep on a cluster is


def test_points_arrive_as_they_finish_and_stand_in_the_order_of_the_grid(client):
    arrived = []
    sweep = loops.sweep(
        steps=[1000, 2000, 3000], budget_s=1, client=client, on_point=arrived.append
    )
    assert [p.parameters["steps"] for p in sweep] == [1000, 2000, 3000]
    assert sorted(p.parameters["steps"] for p in arrived) == [1000, 2000, 3000]
    assert all(p in arrived for p in sweep)
    assert all(c["long"].verdict == "slower" for c in sweep.comparisons)
    assert sweep.title == "loops"


def test_every_point_says_its_machine_and_names_no_host(client):
    sweep = loops.sweep(steps=[1000, 2000], budget_s=1, client=client)
    assert {p.machine_id for p in sweep} == {clients.machine_id()}
    again = lab.Sweep.from_json(sweep.to_json())
    assert [p.machine_id for p in again] == [p.machine_id for p in sweep]
    assert platform.node() not in sweep.to_json()


def test_a_point_that_raises_is_kept_with_its_reason(client):
    @lab.experiment(size=[1, 2])
    def breaks_at_two(size):
        if size == 2:
            raise MemoryError("too large")
        return {"a": lambda: None, "b": lambda: None}

    sweep = breaks_at_two.sweep(size=[1, 2], budget_s=0.5, client=client)
    assert [p.error for p in sweep] == ["", "MemoryError: too large"]
    assert sweep.points[1].machine_id == clients.machine_id()


def test_what_dask_sets_for_its_workers_does_not_reach_what_is_measured(client):
    # With it, each large allocation is a system call, which the same code elsewhere does not pay.
    def trims():
        return {"trims": float("MALLOC_TRIM_THRESHOLD_" in os.environ)}

    @lab.experiment(size=[1, 2])
    def looks(size):
        return {n: lab.Variant(lambda: None, metrics=trims) for n in ("a", "b")}

    assert set(client.run(os.environ.__contains__, "MALLOC_TRIM_THRESHOLD_").values()) == {True}
    sweep = looks.sweep(size=[1], budget_s=0.5, client=client)
    assert sweep.comparisons[0].trials["a"].metrics == {"trims": 0}
    assert set(client.run(os.environ.__contains__, "MALLOC_TRIM_THRESHOLD_").values()) == {True}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems choose otherwise")
def test_where_memory_runs_out_workers_are_ended_before_the_process_that_asked(client):
    def score(_=None):
        return int(Path("/proc/self/oom_score_adj").read_text())

    (outcome,) = clients.call_on(client, score, [None])
    assert outcome.value > score()


def test_an_experiment_that_holds_much_data_is_sent_without_a_warning(client):
    data = os.urandom(12 * 2**20)

    @lab.experiment(size=[1, 2])
    def large(size):
        return {"a": lambda: data[0], "b": lambda: data[-1]}

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sweep = large.sweep(size=[1, 2], budget_s=0.5, client=client)
    assert [p.error for p in sweep] == ["", ""]


# Side by side on one machine


@needs_two_cores
def test_timed_runs_are_alone_unless_all_of_them_say_otherwise():
    def start(at_once):
        settings = Settings(budget_s=60, resolution=0.002, at_once=at_once, threads=1)
        run = Run(as_variants(endless(number=1)), settings)
        run.start()
        return run

    runs = [start(2), start(2), start(2), start(1)]
    try:
        assert [run.status for run in runs] == [Status.RUNNING] * 2 + [Status.QUEUED] * 2
        runs[0].stop()
        assert [run.poll() for run in runs[2:]] == [True, False]
        runs[1].stop()
        runs[2].stop()
        assert runs[3].poll()
        assert runs[3].status is Status.RUNNING
        beside = start(2)
        assert beside.status is Status.QUEUED
        beside.stop()
    finally:
        for run in runs:
            run.stop()


def test_there_are_never_more_at_once_than_cores():
    cores = lab.machine().usable_threads
    for threads, expected in ((None, cores), (cores, 1)):
        settings = Settings(at_once=cores + 5, threads=threads)
        run = Run(as_variants({"a": len, "b": len}), settings)
        assert run.settings.at_once == expected
        assert run.threads * run.settings.at_once <= cores


@needs_two_cores
def test_points_side_by_side_say_so_and_share_the_cores(client):
    sweep = loops.sweep(steps=[1000, 2000], budget_s=1, client=client, at_once=2)
    share = lab.machine().usable_threads // 2
    for comparison in sweep.comparisons:
        assert [c.kind for c in comparison.caveats if c.kind == "side by side"]
        assert {t.threads for t in comparison.trials.values()} == {share}
        assert not comparison.peaks
        assert comparison["long"].verdict == "slower"
    assert str(sweep).count("side by side") == 1
    assert "with at_once=1" in sweep._repr_html_()


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"at_once": 0}, ValueError, "at_once=0: give a whole number"),
        ({"budget_s": -1}, ValueError, "budget_s=-1: give a number of seconds"),
        ({"at_onze": 2}, TypeError, "no parameter 'at_onze'"),
    ],
)
def test_settings_are_refused_before_anything_is_measured(client, given, error, message):
    with pytest.raises(error, match=message):
        loops.sweep(steps=[1000, 2000], client=client, **given)


@pytest.mark.alone
@needs_two_cores
def test_two_workers_are_faster_than_one_process(client):
    def seconds(**how):
        began = time.monotonic()
        numbers = list(range(1, 9))
        sweep = endless.sweep(number=numbers, budget_s=1, resolution=0.05, **how)
        assert len(sweep.comparisons) == 8
        return time.monotonic() - began

    # Both have their warm servers.
    endless.sweep(number=[1, 2], budget_s=0.2, resolution=0.5, client=client)
    endless.run(budget_s=0.2, resolution=0.5)
    alone_s, together_s = seconds(), seconds(client=client, at_once=2)
    assert alone_s / together_s >= 1.3


# What goes wrong


def test_a_worker_that_is_killed_in_the_middle_loses_no_point_and_doubles_none(client):
    arrived, killed = [], []

    def on_point(point):
        arrived.append(point.parameters["steps"])
        if not killed:
            busy = next(a for a, tasks in client.processing().items() if tasks)
            worker = psutil.Process(client.run(os.getpid, workers=[busy])[busy])
            killed.extend([worker, *worker.children(recursive=True)])
            worker.kill()

    steps = [1000 + i for i in range(6)]
    sweep = loops.sweep(steps=steps, budget_s=1, client=client, on_point=on_point)
    assert [p.parameters["steps"] for p in sweep] == steps
    assert sorted(arrived) == steps
    assert [p.error for p in sweep] == [""] * 6
    # What it had started to measure with is gone with it.
    wait_until(lambda: not any(alive(process) for process in killed))


@lab.experiment(size=[1, 2])
def fatal_at_two(size):
    """Where the size is 2, no process that tries survives."""
    if size == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"a": lambda: None, "b": lambda: sum(range(100))}


def test_a_point_that_ends_its_worker_every_time_is_given_up_and_the_others_are_kept(client):
    sweep = fatal_at_two.sweep(size=[1, 2, 3, 4, 5], budget_s=0.5, client=client)
    errors = {p.parameters["size"]: p.error for p in sweep}
    assert errors.pop(2) == "WorkerError: the worker process ended 4 times while it ran this"
    assert set(errors.values()) == {""}
    assert "size=2 was not measured" in sweep.sentences[-1]


def test_a_cluster_that_gives_up_its_only_worker_gets_another_one():
    # No worker starts so soon: the cluster gives up each that has ended.
    at_once = dask.config.set({"distributed.deploy.lost-worker-timeout": "10 ms"})
    with start_cluster(workers=1) as cluster, Client(cluster) as client, at_once:
        sweep = fatal_at_two.sweep(size=[2, 3], budget_s=0.5, client=client)
    assert [bool(p.error) for p in sweep] == [True, False]


def test_a_client_that_is_closed_keeps_what_was_measured(fresh_client):
    closed = []

    def close(_):
        if not closed:
            closed.append(fresh_client.close())

    sweep = loops.sweep(steps=[1000, 2000, 3000], budget_s=1, client=fresh_client, on_point=close)
    errors = [p.error for p in sweep if p.error]
    assert 1 <= len(sweep.comparisons) <= 2
    assert errors
    assert all("the client was closed" in error for error in errors)


def test_a_cluster_that_loses_its_last_worker_is_not_waited_for_for_ever(fresh_client, monkeypatch):
    monkeypatch.setattr(clients, "_NO_WORKERS_S", 1.0)

    def lose_all(_):
        fresh_client.cluster.scale(0)

    steps = [1000 + i for i in range(6)]
    sweep = loops.sweep(steps=steps, budget_s=1, client=fresh_client, on_point=lose_all)
    assert sweep.comparisons
    assert "not finished: the cluster has had no worker for 1 s" in str(sweep)


def test_a_cluster_that_had_lost_its_workers_before_is_not_waited_for_for_ever(
    fresh_client, monkeypatch
):
    monkeypatch.setattr(clients, "_NO_WORKERS_S", 1.0)
    fresh_client.cluster.scale(0)
    wait_until(lambda: not fresh_client.nthreads())
    rows = lab.search.grid(lambda x: {"y": x}, {"x": [1, 2]}, client=fresh_client).rows
    assert [r.error for r in rows] == ["not finished: the cluster has had no worker for 1 s"] * 2


def test_a_cluster_may_take_its_time_for_its_first_worker(monkeypatch):
    monkeypatch.setattr(clients, "_NO_WORKERS_S", 1.0)
    monkeypatch.setattr(clients, "_LOOK_S", 0.1)
    with start_cluster(workers=0) as cluster, Client(cluster) as client:
        asked = []

        def ask(client):
            asked.append(client)
            if len(asked) == 20:  # looks, for two seconds: beyond the patience for a lost one
                cluster.scale(1)
            return bool(client.nthreads())

        monkeypatch.setattr(clients, "_any_worker", ask)
        (row,) = lab.search.grid(lambda x: {"y": x}, {"x": [1]}, client=client).rows
    assert (row.numbers, row.error) == ({"y": 1.0}, "")


def test_a_scheduler_elsewhere_is_used_by_its_address_and_its_end_is_survived(tmp_path):
    with contextlib.ExitStack() as stack:

        def start(*arguments):
            process = subprocess.Popen(
                [sys.executable, "-m", "distributed.cli." + arguments[0], *arguments[1:]],
                cwd=tmp_path,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        where = tmp_path / "scheduler.json"
        scheduler = start(
            *("dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"),
            *("--scheduler-file", str(where)),
        )
        wait_until(where.exists)
        start(
            *("dask_worker", "--scheduler-file", str(where), "--host", "127.0.0.1"),
            *("--nthreads", "1", "--no-dashboard", "--no-nanny"),
        )
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        with Client(scheduler_file=str(where), timeout=3) as client:
            sweep = loops.sweep(
                steps=[1000, 2000, 3000],
                budget_s=1,
                client=client,
                on_point=lambda point: scheduler.kill() if not point.error else None,
            )
    assert sweep.comparisons
    assert any("not finished: " in p.error for p in sweep)


def test_an_interrupt_cancels_what_is_under_way(client):
    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        endless.sweep(
            number=[1, 2, 3, 4], budget_s=0.5, resolution=0.2, client=client, on_point=interrupt
        )

    def free():
        with contextlib.suppress(Timeout):
            queue_lock().acquire(timeout=0)
            return True
        return False

    wait_until(lambda: not any(client.processing().values()))
    wait_until(free)


def test_what_is_no_client_of_processes_is_refused(fresh_client):
    with pytest.raises(TypeError, match=r"client='tcp://.*: give a dask.distributed.Client"):
        loops.sweep(steps=[1000], client="tcp://127.0.0.1:8786")
    fresh_client.close()
    with pytest.raises(ValueError, match="client= is closed: make a new one"):
        loops.sweep(steps=[1000], client=fresh_client)
    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as threads,
        pytest.raises(ValueError, match="processes=True"),
    ):
        loops.sweep(steps=[1000], client=threads)


# In a notebook

CELL = """
import logging, os, psutil
import labkit as lab
from distributed import Client, LocalCluster

cluster = LocalCluster(
    n_workers=2,
    threads_per_worker=1,
    dashboard_address="127.0.0.1:0",
    silence_logs=logging.CRITICAL,
)
client = Client(cluster)
factor = 3

@lab.experiment(steps=[1000, 2000])
def loops(steps):
    return {"a": lambda: sum(range(steps)), "b": lambda: sum(range(factor * steps))}

sweep = loops.sweep(steps=[1000, 2000], budget_s=1, client=client)
print([c["b"].verdict.value for c in sweep.comparisons])
print([p.pid for p in psutil.Process().children(recursive=True)])
"""


def test_functions_of_a_cell_work_and_nothing_outlives_the_kernel():
    manager, front = start_new_kernel(kernel_name="python3")
    said = []
    try:
        front.execute_interactive(
            CELL,
            timeout=60,
            output_hook=lambda m: said.append(m["content"].get("text", str(m["content"]))),
        )
        texts = "".join(text for text in said if text.startswith("["))
        verdicts, pids = (ast.literal_eval(line) for line in texts.splitlines())
        assert verdicts == ["slower", "slower"], said
        below = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
        # The scheduler's helper, two workers, and what each measures with.
        assert len(below) >= 4
    finally:
        front.stop_channels()
        manager.shutdown_kernel(now=True)
    wait_until(lambda: not any(alive(process) for process in below))


# Several machines


@needs_two_cores
def test_workers_with_other_limits_are_other_machines(fresh_client):
    # A node cannot be had here; one worker with a core less is as different to the results.
    one, _ = fresh_client.nthreads()
    fresh_client.run(os.sched_setaffinity, 0, {min(os.sched_getaffinity(0))}, workers=[one])
    sweep = loops.sweep(steps=[1000 + i for i in range(6)], budget_s=0.5, client=fresh_client)
    assert len(sweep.machines) == 2
    assert {p.machine_id for p in sweep} == set(sweep.machines)
    assert [label for label, _ in sweep.slices] == [f"on {m}" for m in sweep.machines]


def test_two_nodes_of_one_kind_differ_and_their_names_cannot_be_read(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "machine-id").write_text("3d1219c7c4c5404aaa1f6d2a48adfda4\n")
    one, same, other = (clients._identity(tmp_path, h, "kind") for h in ("a1", "a1", "a2"))
    assert one == same != other
    clients._identity.cache_clear()
    (tmp_path / "etc" / "machine-id").write_text("00000000000000000000000000000000\n")
    assert clients._identity(tmp_path, "a1", "kind") != one


def on_machines(*machines, speedups=(0.5, 0.6, 1.5, 2.0)):
    """A sweep over size = 1, 10, ... with these speed-ups, each point on one of the machines."""
    points = []
    for i, speedup in enumerate(speedups):
        trials = {
            name: Trial(name, (seconds,) * 60, tuple(range(60)))
            for name, seconds in (("a", speedup), ("b", 1.0))
        }
        found = lab.Comparison(trials, machine=lab.machine())
        points.append(SweepPoint({"size": 10**i}, found, machine_id=machines[i % len(machines)]))
    points.append(SweepPoint({"size": 10**9}, None, "MemoryError: too large"))
    return lab.Sweep(("size",), tuple(points), "by hand")


def test_no_crossover_is_found_between_two_machines():
    assert 10 < on_machines("aaaa").crossover("b") < 100
    both = on_machines("aaaa", "aaaa", "bbbb", "bbbb")
    assert both.crossover("b") is None
    assert both.sentences == [
        "on aaaa: b does not cross the baseline: 0.500x to 0.600x (2 slower)",
        "on bbbb: b does not cross the baseline: 1.50x to 2.00x (2 faster)",
        "size=1000000000 was not measured: MemoryError: too large",
    ]
    mixed = on_machines("aaaa", "bbbb", speedups=(0.5, 0.5, 2.0, 2.0))
    assert [part.crossover("b") is not None for _, part in mixed.slices] == [True, True]


def test_tables_frames_and_plots_tell_the_machines_apart():
    sweep = on_machines("aaaa", "bbbb")
    assert "size        machine  variant" in str(sweep)
    assert "machine aaaa: " in str(sweep)
    assert "machine bbbb: " in sweep._repr_html_()
    assert list(sweep.to_frame()["machine"]) == [*("aaaa", "aaaa", "bbbb", "bbbb") * 2, ""]
    assert sweep.sample_rows()[0] == ["size", "machine", "variant", "round", "time_s"]
    axes = sweep.plot().axes[0]
    labels = [line.get_label() for line in axes.get_lines()]
    assert labels == ["a on aaaa", "b on aaaa", "a on bbbb", "b on bbbb"]
    alone = on_machines("aaaa")
    assert "machine" not in alone.to_frame().columns
    assert "aaaa" not in str(alone)


# The search


def train(width, rate, seed):
    import torch

    torch.manual_seed(seed)
    model = torch.nn.Linear(width, 1)
    x = torch.randn(256, width)
    y = x.sum(1, keepdim=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    loss = torch.zeros(())
    for _ in range(20):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
    return {"loss": loss.item()}


GRID = {"width": [64, 256], "rate": [0.01, 0.1], "seed": [0]}


def test_a_search_gives_the_same_numbers_here_and_on_dask(client):
    here = lab.search.grid(train, GRID)
    there = lab.search.grid(train, GRID, client=client)
    assert here.agrees_with(there), f"{here}\n{there}"
    assert here.best("loss", least=True).parameters["rate"] == 0.1
    assert {row.machine_id for row in there} == {clients.machine_id()}
    assert list(there.to_frame().columns) == [*GRID, "loss", "machine", "error"]


def test_where_memory_is_short_the_idle_server_of_this_process_makes_room(client, monkeypatch):
    apart(os.getpid)()
    server = launch._server
    small = dataclasses.replace(lab.machine(), memory_limit_bytes=600_000_000)
    monkeypatch.setattr(clients, "machine", lambda **_: small)
    lab.search.grid(lambda x: {"y": x}, {"x": [1]}, client=client)
    assert not server.alive


def test_a_training_that_raises_is_a_row_with_its_reason(client):
    def fails(rate):
        if rate > 1:
            raise FloatingPointError("the loss is infinite")
        return {"loss": rate}

    found = lab.search.grid(fails, {"rate": [0.5, 2.0]}, client=client)
    assert [row.error for row in found] == ["", "FloatingPointError: the loss is infinite"]
    assert "the loss is infinite" in str(found)
    assert found.agrees_with(found) is None  # one point is not known
    with pytest.raises(KeyError, match="no row has 'accuracy'; there are"):
        found.best()


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (({}), ValueError, "parameters={}: give values by name"),
        ({"width": []}, ValueError, r"width=\[\]: give a list"),
        ({"depth": [1]}, TypeError, r"train\(\) does not take \['depth'\]"),
    ],
)
def test_a_grid_is_checked_before_anything_is_trained(given, error, message):
    with pytest.raises(error, match=message):
        lab.search.grid(train, given)


def test_threads_are_those_asked_for_and_given_back():
    import torch

    before = torch.get_num_threads()
    found = lab.search.grid(lambda x: {"threads": torch.get_num_threads()}, {"x": [1]}, threads=1)
    assert found.rows[0].numbers == {"threads": 1}
    assert torch.get_num_threads() == before
