"""Spark, where pyspark and Java are there: the same numbers, its retries, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest

import labkit as lab
from labkit import clients
from labkit.errors import MissingPackageError, WorkerError

MISSING = lab.machine().missing("spark")
with_spark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))


@pytest.fixture(scope="module")
def spark():
    with clients.local_spark(2) as session:
        yield session


def train(width, seed):
    import torch

    torch.manual_seed(seed)
    model = torch.nn.Linear(width, 1)
    x = torch.randn(64, width)
    return {"sum": model(x).sum().item()}


@with_spark
def test_a_search_gives_the_same_numbers_here_and_on_spark(spark):
    grid = {"width": [64, 256], "seed": [0, 1]}
    here, there = lab.search.grid(train, grid), lab.search.grid(train, grid, client=spark)
    assert here.agrees_with(there), f"{here}\n{there}"
    assert {row.machine_id for row in there} == {clients.machine_id()}


@with_spark
def test_a_function_that_no_module_has_works_on_its_workers(spark):
    factor = 3
    found = lab.search.grid(lambda x: {"times": factor * x}, {"x": [1, 2]}, client=spark)
    assert [row.numbers["times"] for row in found] == [3, 6]


@with_spark
def test_a_training_that_raises_is_a_row_with_its_reason(spark):
    def fails(x):
        return {"inverse": 1 / x}

    found = lab.search.grid(fails, {"x": [0, 2]}, client=spark)
    assert [row.error for row in found] == ["ZeroDivisionError: division by zero", ""]


@with_spark
def test_a_worker_that_is_killed_is_replaced_and_its_training_done_once_more(spark, tmp_path):
    mark = tmp_path / "killed"

    def killed_once(x):
        if x == 2 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return {"x": x}

    found = lab.search.grid(killed_once, {"x": [1, 2, 3]}, client=spark)
    assert mark.exists()
    assert [row.numbers["x"] for row in found] == [1, 2, 3]


@with_spark
def test_a_training_that_ends_every_worker_is_given_up_after_its_retries(spark):
    def fatal(x):
        if x == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"x": x}

    with pytest.raises(WorkerError, match="Spark gave the job up"):
        lab.search.grid(fatal, {"x": [1, 2]}, client=spark)


@with_spark
def test_a_sweep_is_measured_on_spark_too(spark):
    @lab.experiment(steps=[1000, 2000])
    def loops(steps):
        return {"a": lambda: sum(range(steps)), "b": lambda: sum(range(3 * steps))}

    sweep = loops.sweep(steps=[1000, 2000], budget_s=1, client=spark)
    assert [p.parameters["steps"] for p in sweep] == [1000, 2000]
    assert [c["b"].verdict for c in sweep.comparisons] == ["slower", "slower"]
    assert {p.machine_id for p in sweep} == {clients.machine_id()}


@with_spark
def test_a_second_session_is_refused_and_the_first_goes_on(spark):
    with (
        pytest.raises(WorkerError, match="a Spark session runs in this process"),
        clients.local_spark(),
    ):
        pass
    assert spark.sparkContext.parallelize([1]).collect() == [1]


@with_spark
def test_nothing_of_spark_is_left_and_it_writes_nothing(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            import psutil
            from labkit import clients

            with clients.local_spark(1) as spark:
                below = psutil.Process().children(recursive=True)
                print(any("java" in p.name() for p in below))
                found = [c for p in below for c in p.net_connections() if c.status == "LISTEN"]
                hosts = {c.laddr.ip for c in found}
                print(hosts <= {"127.0.0.1", "::ffff:127.0.0.1"} or hosts)
            print(any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in below))
        """)
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.split("\n") == ["True", "True", "False", ""]
    assert done.stderr == ""


def test_without_pyspark_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("labkit.optional.is_there", lambda package: package != "pyspark")
    monkeypatch.setattr("labkit.machines.is_there", lambda package: package != "pyspark")
    with (
        pytest.raises(MissingPackageError, match=r"pip install 'labkit\[spark\]'"),
        clients.local_spark(),
    ):
        pass
    assert "pip install 'labkit[spark]'" in lab.machine().missing("spark")


def test_without_java_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr("labkit.machines.is_there", lambda _: True)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert "Java 17" in lab.machine().missing("spark")
