"""Three processes that work in bursts beside a measurement, as a busy machine has them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Pauses of 50 ms on average, bursts of 5 to 200 ms. It ends when its standard input does.
_BURSTS = """
import random, select, sys, time
while not select.select([sys.stdin], [], [], random.expovariate(20))[0]:
    end = time.perf_counter() + random.uniform(0.005, 0.2)
    while time.perf_counter() < end:
        sum(range(1000))
"""


@contextlib.contextmanager
def bursts(count: int = 3) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Keep ``count`` processes busy in bursts as long as the block runs."""
    processes = [
        subprocess.Popen([sys.executable, "-S", "-c", _BURSTS], stdin=subprocess.PIPE)
        for _ in range(count)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
