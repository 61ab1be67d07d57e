"""Counting floating-point operations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

# torch's own counter enters this mode together with hooks on all modules, for a table of them.
from torch.utils.flop_counter import FlopCounterMode, _FlopCounterMode

from labkit.eager import without_compiler

if TYPE_CHECKING:
    from collections.abc import Callable


def count(call: Callable[[], Any]) -> int:
    """Count the floating-point operations of the matrix products and convolutions in a call.

    An addition and a multiplication are two.

    Source: `torch.utils.flop_counter`.

    >>> import torch
    >>> count(lambda: torch.ones(2, 3) @ torch.ones(3, 4))
    48
    """
    without_compiler(_FlopCounterMode.__torch_dispatch__)
    counter = FlopCounterMode(display=False)
    with _FlopCounterMode(counter):
        call()
    return int(counter.get_total_flops())
