"""What the tools that people use today say about two functions.

Each peer returns what it claims: 1 the second is faster, -1 it is slower, 0 no difference, and the
seconds that it took.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench.work import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable

# Seconds of sampling for each of the two functions, which is at least what labkit takes for most
# comparisons; what the tool itself needs to start comes on top.
_EACH_S = 0.5
_ALPHA = 0.05
_ROOT = Path(__file__).parents[1]

TIMER = "torch Timer + t-test"
PYPERF = "pyperf"
PYTEST = "pytest-benchmark"

NOTES = {
    TIMER: (
        f"`torch.utils.benchmark.Timer.blocked_autorange(min_run_time={_EACH_S})` for one, then "
        f"for the other, and Welch's t-test on their times at {_ALPHA}"
    ),
    PYPERF: (
        "`pyperf timeit` with 5 processes of 3 values of at least 0.03 s, then `pyperf "
        "compare_to`, which prints faster, slower or not significant"
    ),
    PYTEST: (
        f"both functions in one file, `--benchmark-max-time={_EACH_S}`; it has no verdict, so its "
        "ranking by median counts as a claim if the medians are further apart than the larger of "
        "the two interquartile ranges that it reports"
    ),
}


def t_test(first: list[float], second: list[float]) -> int:
    """Welch's t-test on two lists of times."""
    from scipy.stats import ttest_ind  # type: ignore[import-untyped]

    test = ttest_ind(first, second, equal_var=False)
    if not test.pvalue < _ALPHA:
        return 0
    return 1 if test.statistic > 0 else -1


def timer(first: Callable[[], object], second: Callable[[], object]) -> int:
    """`torch.utils.benchmark.Timer` and a t-test."""
    from torch.utils.benchmark import Timer

    times = [
        list(
            Timer("f()", globals={"f": f}, num_threads=1)
            .blocked_autorange(min_run_time=_EACH_S)
            .times
        )
        for f in (first, second)
    ]
    return t_test(*times)


def _run(folder: str, *arguments: str) -> str:
    # One thread for numerical libraries, as labkit and Timer are told too.
    environment = os.environ | {"PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=folder, env=environment
    ).stdout


def pyperf(kind: str, first: int, second: int) -> int:
    """`pyperf timeit` for each function, then its own comparison."""
    with tempfile.TemporaryDirectory() as folder:
        files = [f"{number}.json" for number in range(2)]
        for file, size in zip(files, (first, second), strict=True):
            setup = f"from bench.work import {kind}; run = {kind}({size})"
            how = ["--quiet", "--processes=5", "--values=3", "--warmups=1", "--min-time=0.03"]
            how.append("--inherit-environ=PYTHONPATH,OMP_NUM_THREADS")
            _run(folder, "pyperf", "timeit", *how, f"--output={file}", f"--setup={setup}", "run()")
        return read_pyperf(_run(folder, "pyperf", "compare_to", *files))


def read_pyperf(said: str) -> int:
    """What ``pyperf compare_to`` printed."""
    if re.search(r"not significant", said, re.IGNORECASE):
        return 0
    if "faster" in said:
        return 1
    return -1 if "slower" in said else 0


def pytest_benchmark(kind: str, first: int, second: int) -> int:
    """Both functions in one file under pytest-benchmark, ranked by its medians."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test_both.py").write_text(
            f"from bench.work import {kind}\n"
            f"def test_first(benchmark): benchmark({kind}({first}))\n"
            f"def test_second(benchmark): benchmark({kind}({second}))\n",
            encoding="utf-8",
        )
        alone = ["-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir=."]
        how = [f"--benchmark-max-time={_EACH_S}", "--benchmark-json=report.json"]
        _run(folder, "pytest", *alone, *how, "test_both.py")
        report = json.loads(Path(folder, "report.json").read_text(encoding="utf-8"))
    stats = {entry["name"]: entry["stats"] for entry in report["benchmarks"]}
    both = stats["test_first"], stats["test_second"]
    return rank(both[0]["median"], both[1]["median"], max(s["iqr"] for s in both))


def rank(first_s: float, second_s: float, spread_s: float) -> int:
    """What a ranking says: which one is first, if they differ by more than the spread shown."""
    if abs(first_s - second_s) <= spread_s:
        return 0
    return 1 if first_s > second_s else -1


def ask(name: str, kind: str, first: int, second: int) -> tuple[int, float]:
    """Let one peer compare two functions of a kind: its claim, and the seconds it took."""
    began = time.perf_counter()
    if name == PYPERF:
        claim = pyperf(kind, first, second)
    elif name == PYTEST:
        claim = pytest_benchmark(kind, first, second)
    else:
        claim = timer(KINDS[kind](first), KINDS[kind](second))
    return claim, time.perf_counter() - began
