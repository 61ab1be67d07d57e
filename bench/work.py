"""Functions to compare: known to be the same, or known to differ by a given share."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def loop(steps: int) -> Callable[[], None]:
    """A busy Python loop; its time grows with ``steps``."""

    def run() -> None:
        for _ in range(steps):
            pass

    return run


def loops(times: int) -> Callable[[], None]:
    """The same loop of 1000 steps so many times: 11 of them take 11/10 of the time of 10."""
    one = loop(1000)

    def run() -> None:
        for _ in range(times):
            one()

    return run


def product(rows: int) -> Callable[[], Any]:
    """A float32 product with a matrix of 256 by 256; its work grows with ``rows``."""

    def run() -> Any:
        # Made once in each process that measures.
        if rows not in _matrices:
            import torch

            _matrices[rows] = torch.ones(rows, 256), torch.ones(256, 256)
        left, right = _matrices[rows]
        return left @ right

    return run


def products(times: int) -> Callable[[], Any]:
    """The same product so many times: 33 of them take 33/32 of the time of 32."""
    one = product(256)

    def run() -> Any:
        result = None
        for _ in range(times):
            result = one()
        return result

    return run


def wait(microseconds: float) -> Callable[[], None]:
    """Wait on the clock itself: the time is known, to less than one look at the clock."""

    def run() -> None:
        end = time.perf_counter() + microseconds * 1e-6
        while time.perf_counter() < end:
            pass

    return run


_matrices: dict[int, Any] = {}
# What is compared, by a name that also goes to the processes of the peers.
KINDS: dict[str, Callable[[int], Callable[[], Any]]] = {
    "loop": loop,
    "product": product,
    "products": products,
}
