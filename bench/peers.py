"""What the tools that people use today say about two functions.

Each peer returns what it claims: 1 the second is faster, -1 it is slower, 0 no difference, and the
seconds that it took.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench.work import SOURCE, loop

if TYPE_CHECKING:
    from collections.abc import Callable

# Each peer gets about this long for each of the two functions, which is at least what labkit takes.
_EACH_S = 0.5
_ALPHA = 0.05

NOTES = {
    "torch Timer + t-test": (
        f"`torch.utils.benchmark.Timer.blocked_autorange(min_run_time={_EACH_S})` for one, then "
        f"for the other, and Welch's t-test on their times at {_ALPHA}"
    ),
    "pyperf": (
        "`pyperf timeit` with 5 processes of 3 values, then `pyperf compare_to`, which prints "
        "faster, slower or not significant"
    ),
    "pytest-benchmark": (
        "both functions in one file, `--benchmark-max-time=0.5`; counted as a claim if its "
        "ranking by median puts them more than 2 % apart"
    ),
}


def t_test(first: list[float], second: list[float]) -> int:
    """Welch's t-test on two lists of times."""
    from scipy.stats import ttest_ind

    test = ttest_ind(first, second, equal_var=False)
    if not test.pvalue < _ALPHA:
        return 0
    return 1 if test.statistic > 0 else -1


def timer(first: Callable[[], object], second: Callable[[], object]) -> tuple[int, float]:
    """`torch.utils.benchmark.Timer` and a t-test."""
    from torch.utils.benchmark import Timer

    began = time.perf_counter()
    times = [
        list(
            Timer("f()", globals={"f": f}, num_threads=1)
            .blocked_autorange(min_run_time=_EACH_S)
            .times
        )
        for f in (first, second)
    ]
    return t_test(*times), time.perf_counter() - began


def pyperf(first_steps: int, second_steps: int) -> tuple[int, float]:
    """`pyperf timeit` for each loop, then its own comparison."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number, steps in enumerate((first_steps, second_steps)):
            file = Path(folder) / f"{number}.json"
            command = [sys.executable, "-m", "pyperf", "timeit", "--quiet", "--processes=5"]
            command += ["--values=3", "--warmups=1", "--min-time=0.03", f"--output={file}"]
            command += [f"--setup={SOURCE}run = loop({steps})", "run()"]
            subprocess.run(command, check=True, capture_output=True, text=True)
            files.append(str(file))
        command = [sys.executable, "-m", "pyperf", "compare_to", *files]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return read_pyperf(said), time.perf_counter() - began


def read_pyperf(said: str) -> int:
    """What ``pyperf compare_to`` printed."""
    if re.search(r"not significant", said, re.IGNORECASE):
        return 0
    if "faster" in said:
        return 1
    return -1 if "slower" in said else 0


def pytest_benchmark(first_steps: int, second_steps: int) -> tuple[int, float]:
    """Both loops in one file under pytest-benchmark, ranked by its medians."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        file, report = Path(folder) / "test_loops.py", Path(folder) / "report.json"
        file.write_text(
            SOURCE
            + f"def test_first(benchmark): benchmark(loop({first_steps}))\n"
            + f"def test_second(benchmark): benchmark(loop({second_steps}))\n",
            encoding="utf-8",
        )
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-c",
            "/dev/null",
        ]
        command += ["--benchmark-max-time=0.5", f"--benchmark-json={report}", str(file)]
        subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder)
        found = json.loads(report.read_text(encoding="utf-8"))["benchmarks"]
    medians = {entry["name"]: entry["stats"]["median"] for entry in found}
    return rank(medians["test_first"], medians["test_second"]), time.perf_counter() - began


def rank(first_s: float, second_s: float, share: float = 0.02) -> int:
    """What somebody reads in a ranking: which one is first, if they are not close together."""
    if first_s > second_s * (1 + share):
        return 1
    return -1 if second_s > first_s * (1 + share) else 0


def ask(name: str, first_steps: int, second_steps: int) -> tuple[int, float]:
    """Let one peer compare two loops."""
    if name == "pyperf":
        return pyperf(first_steps, second_steps)
    if name == "pytest-benchmark":
        return pytest_benchmark(first_steps, second_steps)
    return timer(loop(first_steps), loop(second_steps))
