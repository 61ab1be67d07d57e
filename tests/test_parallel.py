"""Ranks: what they are asked, how they fail, and that nothing is left of them."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest

import labkit as lab
from labkit.errors import RankError, UnpicklableError
from labkit.parallel import Ranks, run


def rank():
    from torch import distributed

    return distributed.get_rank()


def meet():
    from torch import distributed

    distributed.barrier()


def wait_until(true, seconds=20):
    """For what another process does in its own time; how long is no part of the test."""
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)
    return true()


def gone(pids):
    """Whether all these processes have ended (one that nobody has waited for counts as ended)."""
    return not any(
        psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        for pid in pids
    )


@pytest.fixture(scope="module")
def pair():
    with Ranks(2) as ranks:
        yield ranks


def test_results_come_in_the_order_of_the_ranks(pair):
    assert pair.run(rank) == [0, 1]


def test_every_rank_has_the_threads_that_were_asked_for(pair):
    def threads():
        import torch

        return torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]

    assert pair.run(threads) == [(1, "1"), (1, "1")]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems choose otherwise")
def test_where_memory_runs_out_ranks_are_ended_before_the_process_that_asked(pair):
    def score():
        return int(Path("/proc/self/oom_score_adj").read_text())

    assert min(pair.run(score)) > score()


def test_a_collective_adds_up_what_the_ranks_have(pair):
    def add(numbers):
        import torch
        from torch import distributed

        total = torch.tensor(numbers[distributed.get_rank()])
        distributed.all_reduce(total)
        return total

    assert [float(total) for total in pair.run(add, [1.5, 2.0])] == [3.5, 3.5]


def test_what_is_prepared_stays_in_the_ranks(pair):
    def appending(values):
        def append(value):
            values.append(value + rank())
            return list(values)

        return append

    append = pair.prepare(appending, [])
    append(10)
    assert append(20) == [[10, 20], [11, 21]]


def test_prepare_needs_a_function_that_returns_one(pair):
    with Ranks(1) as ranks, pytest.raises(RankError, match="returns a function, not 3"):
        ranks.prepare(lambda: 3)


def test_data_parallel_training_is_the_training_of_one_process(pair):
    def losses(parts, *, ranks):
        import torch
        from torch import nn

        torch.manual_seed(0)
        x, y = torch.randn(8, 5), torch.randn(8, 1)
        model = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 1))
        mine = slice(rank() * parts, (rank() + 1) * parts) if ranks else slice(None)
        replica = nn.parallel.DistributedDataParallel(model) if ranks else model
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        result = []
        for _ in range(10):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(replica(x[mine]), y[mine])
            loss.backward()
            optimizer.step()
            result.append(float(loss.detach()))
        return result

    alone = losses(8, ranks=False)
    both = pair.run(lambda: losses(4, ranks=True))
    means = [sum(pair) / 2 for pair in zip(*both, strict=True)]
    assert means == pytest.approx(alone, rel=1e-4)


def test_run_starts_a_group_for_one_call():
    assert run(rank, ranks=1) == [0]


# Faults: each ends within its time, with the reason, and leaves nothing.


@pytest.mark.parametrize("guilty", [0, 1])
def test_a_rank_that_raises_is_named_with_its_line(guilty):
    def fail():
        if rank() == guilty:
            raise ValueError("no such weight")
        meet()

    with Ranks(2, timeout_s=50) as ranks:
        pids = ranks.pids
        began = time.monotonic()
        with pytest.raises(RankError, match=rf"rank {guilty} raised ValueError: no such wei") as e:
            ranks.run(fail)
        assert time.monotonic() - began < 20
    assert next(iter(e.value.reasons)) == guilty
    assert "in fail" in e.value.reasons[guilty]
    assert "Traceback" in e.value.details
    assert wait_until(lambda: gone(pids))


def test_a_rank_that_is_killed_is_told_from_those_that_ended_because_of_it():
    def die():
        if rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)

    with Ranks(2, timeout_s=50) as ranks:
        pids = ranks.pids
        with pytest.raises(RankError) as e:
            ranks.run(die)
    assert "rank 1 was killed (SIGKILL" in str(e.value)
    assert "was killed" not in e.value.reasons.get(0, "")
    assert wait_until(lambda: gone(pids))


def test_a_rank_that_exits_says_with_which_code():
    def leave():
        if rank() == 1:
            os._exit(7)
        meet()

    with Ranks(2) as ranks, pytest.raises(RankError, match="rank 1 ended with exit code 7"):
        ranks.run(leave)


def test_a_collective_that_one_rank_never_joins_ends_after_its_timeout():
    def never_meet():
        if rank() == 0:
            meet()
        else:
            time.sleep(600)

    with Ranks(2, timeout_s=1) as ranks:
        pids = ranks.pids
        with pytest.raises(RankError) as e:
            ranks.run(never_meet)
    assert "Timed out waiting 1000ms" in e.value.reasons[0]
    assert "was still busy, at line" in e.value.reasons[1]
    assert "in never_meet" in e.value.reasons[1]
    assert wait_until(lambda: gone(pids))


def test_what_hangs_elsewhere_ends_at_the_deadline_and_says_where():
    def hang():
        while True:
            time.sleep(0.01)

    with Ranks(2) as ranks:
        pids = ranks.pids
        began = time.monotonic()
        with pytest.raises(RankError, match="rank 1 had not answered after 1 s, at line") as e:
            ranks.run(hang, deadline_s=1)
        assert 1 <= time.monotonic() - began < 20
        with pytest.raises(RankError, match="have ended: rank 0 had not answered"):
            ranks.run(rank)
    assert set(e.value.reasons) == {0, 1}
    assert wait_until(lambda: gone(pids))


def test_a_result_that_cannot_be_sent_is_refused_by_its_type():
    with Ranks(1) as ranks, pytest.raises(RankError, match="a function, cannot be sent back"):
        ranks.run(lambda: lambda: None)


def test_closed_ranks_say_that_new_ones_are_needed():
    ranks = Ranks(1)
    ranks.close()
    ranks.close()
    assert ranks.pids == []
    with pytest.raises(RankError, match=r"it was closed\. Make new ones"):
        ranks.run(rank)


def semaphores():
    """The files of this process's children: tests beside this one make and remove others."""
    found = set()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            found |= {Path(entry.path) for entry in child.memory_maps()}
    return {path for path in found if path.name.startswith("sem.") and path.exists()}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, and with CUDA, a server forks them")
def test_ranks_that_are_forgotten_end_and_leave_no_semaphores():
    before = semaphores()
    ranks = Ranks(1)
    pids = ranks.pids
    # Ranks on the processor have none that has a name; one that is killed leaves nothing.
    assert semaphores() == before
    del ranks
    assert wait_until(lambda: gone(pids))


SCRIPT = textwrap.dedent("""
    import os, signal, sys, time
    import psutil
    from labkit.parallel import Ranks

    def wait(): time.sleep(600)

    # The background jobs of a shell ignore it and hand that down; a kernel does not.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ranks = Ranks(2)
    family = [child.pid for child in psutil.Process().children(recursive=True)]
    print(*ranks.pids, *family, flush=True)
    ranks.run(wait, deadline_s=600)
""")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_nothing_is_left_when_the_process_that_asked_is(how):
    script = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with script:
        pids = [int(pid) for pid in script.stdout.readline().split()]
        assert len(pids) > 4
        script.send_signal(how)
    assert wait_until(lambda: gone(pids))


# Bad input, before anything is started.


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"number": 0}, ValueError, "number=0: give at least 1"),
        ({"number": 2.0}, TypeError, "number=2.0: give a whole number"),
        ({"number": True}, TypeError, "number=True"),
        ({"number": 2, "threads": 0}, ValueError, "threads=0"),
        ({"number": 2, "timeout_s": 0}, ValueError, "timeout_s=0: give seconds above 0"),
        ({"number": 2, "deadline_s": float("nan")}, ValueError, "deadline_s=nan"),
        ({"number": 2, "backend": "mpi"}, ValueError, "give one of gloo, nccl, or None"),
        ({"number": 99, "backend": "nccl"}, ValueError, "needs a GPU for each of 99 ranks"),
        ({"number": 2, "port": 0}, ValueError, "port=0: give a number from 1 to 65535"),
    ],
)
def test_bad_input_is_refused(given, error, says):
    with pytest.raises(error, match=says):
        Ranks(**given)


def test_a_port_in_use_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"port={port} cannot be used .* leave port= out"):
            Ranks(2, port=port)


def test_a_function_that_cannot_be_sent_is_refused_and_the_ranks_stay(pair):
    lock = threading.Lock()

    def locked():
        return lock

    with pytest.raises(UnpicklableError, match="'locked' cannot be sent to the ranks"):
        pair.run(locked)
    with pytest.raises(TypeError, match="3 cannot be called"):
        pair.run(3)
    assert pair.run(rank) == [0, 1]


# In a comparison.


def test_ranks_are_a_variant_like_any_other():
    def summing():
        import torch
        from torch import distributed

        number = torch.ones(1)

        def add():
            number.fill_(1)
            distributed.all_reduce(number)
            return float(number)

        return add

    both = lab.Variant(lambda add: add(), setup=lambda: Ranks(2).prepare(summing))
    found = lab.compare(
        {"list": lambda: [2.0, 2.0], "ranks": both}, agree=list.__eq__, budget_s=1, trace=False
    )
    assert found["ranks"].verdict.value == "slower"


def test_a_failure_in_a_rank_is_the_failed_row_of_its_variant():
    def failing():
        raise ArithmeticError("overflow in rank")

    variants = {
        "fine": lambda: None,
        "broken": lab.Variant(lambda f: f(), setup=lambda: Ranks(2).prepare(lambda: failing)),
    }
    found = lab.compare(variants, budget_s=0.2, trace=False)
    assert "rank 0 raised ArithmeticError: overflow in rank" in str(found.failures["broken"])
    assert "fine" not in found.failures
