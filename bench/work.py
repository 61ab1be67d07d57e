"""Functions to compare: known to be the same, or known to differ by a given share."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

# For peers that import what they measure: the same loops by name.
SOURCE = """\
def loop(steps):
    def run():
        for _ in range(steps):
            pass
    return run
"""


def loop(steps: int) -> Callable[[], None]:
    """A busy Python loop; its time grows with ``steps``."""

    def run() -> None:
        for _ in range(steps):
            pass

    return run


_numbers = [float(n) for n in range(1000)]


def squares() -> Callable[[], float]:
    """The sum of the squares of 1000 numbers."""

    def run() -> float:
        return sum(n * n for n in _numbers)

    return run


def also_squares() -> Callable[[], float]:
    """The same again: other code objects, made of the same source."""

    def run() -> float:
        return sum(n * n for n in _numbers)

    return run


def products(times: int, rows: int = 256) -> Callable[[], Any]:
    """So many products of two square float32 matrices: 33 of them are 32 and 1/32 more."""

    def run() -> Any:
        import torch

        key = (rows,)
        if key not in _matrices:
            _matrices[key] = torch.ones(rows, rows)
        matrix = _matrices[key]
        result = matrix
        for _ in range(times):
            result = matrix @ matrix
        return result

    return run


_matrices: dict[tuple[int], Any] = {}


def wait(microseconds: float) -> Callable[[], None]:
    """Wait on the clock itself: the time is known, to less than one look at the clock."""

    def run() -> None:
        end = time.perf_counter() + microseconds * 1e-6
        while time.perf_counter() < end:
            pass

    return run
