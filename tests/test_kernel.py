"""A real Jupyter kernel: functions of a cell, other cells answered, interrupt, restart, kill."""

import ast
import os
import signal
import time

import psutil
import pytest
from jupyter_client.manager import start_new_kernel

SETUP = """
import os
import labkit as lab
from labkit import launch

def busy():
    for _ in range(1000):
        pass

def other():
    for _ in range(3000):
        pass

@lab.experiment(steps=[1000, 2000])
def loops(steps):
    return {"busy": busy, "again": busy}
"""
# Work of so different lengths that no budget of a test gives an answer.
ENDLESS = """
import random, time

def work():
    time.sleep(random.uniform(0.001, 0.01))

@lab.experiment(share=[1])
def endless(share):
    return {"one": work, "other": work}
"""
PIDS = "print([run._worker.pid, launch._server._process.pid])"


class Kernel:
    """Runs cells and returns what they printed."""

    def __init__(self):
        self.manager, self.client = start_new_kernel(kernel_name="python3")

    def start(self, code):
        return self.client.execute(code, store_history=True)

    def finish(self, message, timeout_s=60):
        """Wait for a cell; returns its status and what it printed or raised."""
        text, deadline = "", time.monotonic() + timeout_s
        while True:
            news = self.client.get_iopub_msg(timeout=max(0.1, deadline - time.monotonic()))
            if news["parent_header"].get("msg_id") != message:
                continue
            content = news["content"]
            if news["msg_type"] == "stream":
                text += content["text"]
            elif news["msg_type"] == "error":
                text += content["ename"]
            elif news["msg_type"] == "status" and content["execution_state"] == "idle":
                return text

    def run(self, code, timeout_s=60):
        return self.finish(self.start(code), timeout_s)

    def pid(self):
        return int(self.run("print(os.getpid())"))

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture
def kernel():
    kernel = Kernel()
    assert kernel.run(SETUP) == ""
    yield kernel
    kernel.close()


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def gone(*pids, deadline_s=5):
    end = time.monotonic() + deadline_s
    while any(alive(p) for p in pids):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def started(kernel):
    """Start an experiment without waiting for it; returns the pids of worker and server."""
    assert kernel.run(ENDLESS + "run = endless.prepare(budget_s=300); run.start()") == ""
    return ast.literal_eval(kernel.run(PIDS))


def test_functions_of_a_cell_are_measured(kernel):
    said = kernel.run("print(lab.compare({'a': busy, 'b': other}, budget_s=3)['b'].verdict)")
    assert said == "slower\n"


def test_another_cell_answers_while_an_experiment_runs(kernel):
    worker, _ = started(kernel)
    began = time.monotonic()
    assert kernel.run("print(6 * 7)") == "42\n"
    assert time.monotonic() - began < 2
    assert alive(worker)
    assert kernel.run("while not run.comparison.rounds: run.poll(0.1)\nrun.stop()") == ""
    assert kernel.run("print(run.comparison.rounds > 0, run.status)") == "True stopped\n"
    assert gone(worker)


def test_an_interrupt_ends_the_experiment_and_the_kernel_lives_on(kernel):
    code = ENDLESS + (
        "from labkit import worker\n"
        "seen = []\n"
        "def tell(run):\n"
        "    if not seen:\n"
        "        seen.append(run)\n"
        "        print([run._worker.pid, launch._server._process.pid], flush=True)\n"
        "endless.run(budget_s=300, on_change=tell)"
    )
    message = kernel.start(code)
    while True:
        news = kernel.client.get_iopub_msg(timeout=60)
        if news["msg_type"] == "stream":
            break
    worker, server = ast.literal_eval(news["content"]["text"])
    kernel.manager.interrupt_kernel()
    assert "KeyboardInterrupt" in kernel.finish(message)
    assert gone(worker)
    assert alive(server)
    assert kernel.run("print(lab.compare({'a': busy, 'b': other}, budget_s=3)['b'].verdict)")


def test_a_restart_leaves_no_orphan(kernel):
    worker, server = started(kernel)
    kernel.manager.restart_kernel(now=False)
    kernel.client.wait_for_ready(timeout=60)
    assert gone(worker, server)
    assert kernel.run(SETUP + "\nprint('ready')") == "ready\n"


def test_a_killed_kernel_leaves_no_orphan(kernel):
    worker, server = started(kernel)
    os.kill(kernel.pid(), signal.SIGKILL)
    assert gone(worker, server)


def test_a_cached_function_of_a_cell_goes_to_the_worker(kernel):
    cell = """
import functools

@functools.cache
def table():
    return {n: n * n for n in range(1000)}

c = lab.compare({"a": lambda: table()[10], "b": lambda: table()[10]}, budget_s=5)
print(c.failures, c.rounds > 0)
"""
    assert kernel.run(cell).strip() == "{} True"
