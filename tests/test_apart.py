"""Functions that run in a process of their own."""

import dataclasses
import importlib
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

import labkit as lab
from labkit import child, launch
from labkit.apart import apart
from labkit.machines import machine
from labkit.recorder import Settings
from labkit.variants import as_variants
from labkit.worker import Run, Status


def number():
    return os.getpid()


def refuse(value):
    raise lab.DoesNotApplyError(f"not for {value}")


class OddError(Exception):
    """Can be pickled, but not read again."""

    def __init__(self, one, two):
        super().__init__(one)


def raise_odd():
    raise OddError("one", "two")


def ended():
    os.kill(os.getpid(), signal.SIGKILL)


def identity(value):
    return value


def test_it_is_another_process_and_it_is_gone_with_its_answer():
    pid = apart(number)()
    assert pid != os.getpid()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_function_of_a_cell_goes_and_comes_back_with_its_arguments():
    twice = apart(lambda x, *, by: [x * by])
    assert twice(21, by=2) == [42]


def test_an_error_is_the_same_error_and_says_where_it_was_raised():
    with pytest.raises(lab.DoesNotApplyError, match="not for 3") as raised:
        apart(refuse)(3)
    assert "in refuse" in str(raised.value.__cause__)


def test_an_error_that_cannot_be_sent_is_told():
    with pytest.raises(lab.WorkerError, match="OddError: one"):
        apart(raise_odd)()


def test_a_process_that_is_ended_says_whose_it_was_and_how():
    with pytest.raises(lab.WorkerError, match=r"ended runs in .* SIGKILL"):
        apart(ended)()


def test_what_cannot_be_sent_is_done_here():
    lock = threading.Lock()
    assert apart(identity)(lock) is lock


def test_in_a_worker_nothing_is_started(monkeypatch):
    monkeypatch.setattr(child, "in_worker", True)
    assert apart(number)() == os.getpid()


def test_nothing_is_left_in_the_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    apart(number)()
    with pytest.raises(lab.WorkerError):
        apart(ended)()
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_where_no_process_can_be_started(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise lab.WorkerError("no memory")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("labkit.apart.start_worker", refused)
    with pytest.raises(lab.WorkerError, match="no memory"):
        apart(number)()
    assert list(tmp_path.iterdir()) == []


def test_exporting_and_quantizing_leave_no_library_behind():
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    script = (
        "import sys, torch\n"
        "import labkit as lab\n"
        "x = torch.rand(1, 4)\n"
        "exported = lab.quantize.onnx_float32(torch.nn.Linear(4, 4).eval(), (x,))\n"
        "lab.quantize.onnx_dynamic_int8(exported, (x,))\n"
        "heavy = {'torch._dynamo', 'torchao', 'onnx', 'onnxscript', 'onnxruntime', 'sympy'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout == "[]\n", done.stderr


@pytest.fixture
def costly(tmp_path, monkeypatch):
    """A module that writes down each process that imports it."""
    (tmp_path / "costly.py").write_text(
        "import os, pathlib\n"
        "with pathlib.Path(__file__).with_name('imported').open('a') as file:\n"
        "    file.write(f'{os.getpid()}\\n')\n"
    )
    launch._close_server()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(launch, "_PRELOAD", ("costly",))
    monkeypatch.setattr(launch, "_kept", set())
    yield lambda: (tmp_path / "imported").read_text().split()
    launch._close_server()
    sys.modules.pop("costly", None)


def test_the_server_imports_what_is_needed_later_once_and_goes_on(costly):
    apart(number)()
    server = launch._server
    importlib.import_module("costly")
    here = str(os.getpid())
    assert costly() == [here]
    for _ in range(2):
        apart(number)()
    assert costly() == [here, str(server._process.pid)]
    assert launch._server is server


def test_what_workers_have_imported_the_next_ones_start_with(costly):
    launch.keep(["costly"])
    apart(number)()
    assert costly() == [str(launch._server._process.pid)]
    assert "costly" not in sys.modules


def has_costly():
    return "costly" in sys.modules


@pytest.fixture
def of_600_mb(monkeypatch):
    small = dataclasses.replace(machine(), memory_limit_bytes=600_000_000)
    monkeypatch.setattr("labkit.apart.machine", lambda: small)


@pytest.mark.usefixtures("costly")
def test_what_needs_no_library_starts_with_all_of_them_where_memory_is_plenty():
    importlib.import_module("costly")
    assert apart(has_costly, warm=False)()


@pytest.mark.usefixtures("costly", "of_600_mb")
def test_where_memory_is_short_nobody_holds_libraries_for_what_needs_none():
    importlib.import_module("costly")
    assert apart(has_costly)()
    before = launch._server
    assert not apart(has_costly, warm=False)()
    assert not before.alive
    assert apart(has_costly)()


@pytest.mark.usefixtures("costly", "of_600_mb")
def test_a_server_with_another_worker_goes_on():
    # Neither answered soon nor refused, on any machine: these differ from round to round.
    def nap():
        time.sleep(random.uniform(0.001, 0.01))

    run = Run(as_variants({"a": nap, "b": nap}), Settings(budget_s=300))
    run.start()
    try:
        while run.status is not Status.RUNNING:
            run.poll(1.0)
        before = launch._server
        apart(number, warm=False)()
        assert launch._server is before
    finally:
        run.stop()
    apart(number, warm=False)()
    assert launch._server is not before
