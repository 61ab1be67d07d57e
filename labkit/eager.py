"""Parts of torch that import its compiler only to be left alone by it."""

from __future__ import annotations

import sys
from typing import Any

# Where torch keeps the function that its wrapper calls (torch/_compile.py).
_KEPT = "__dynamo_disable"


def without_compiler(wrapped: Any) -> None:
    """Let a function that torch hides from its compiler be called without importing the compiler.

    torch wraps the methods of its dispatch modes, among others, so that torch.compile does not
    look inside. At its first call the wrapper imports the compiler: 800 modules, a second or two
    and 70 MB in each process, also where nothing is compiled. Once the compiler is there the
    wrapper does its work as torch wants it.

    Args:
        wrapped: the function as a caller sees it; one that torch does not wrap is left as it is.

    >>> from torch.utils._python_dispatch import TorchDispatchMode
    >>> class Silent(TorchDispatchMode):
    ...     def __torch_dispatch__(self, func, types, args=(), kwargs=None):
    ...         return func(*args, **(kwargs or {}))
    >>> without_compiler(Silent.__torch_dispatch__)
    """
    function = getattr(wrapped, "__wrapped__", None)
    if function is None:
        return
    if "torch._dynamo" not in sys.modules:
        setattr(function, _KEPT, function)
    elif getattr(function, _KEPT, None) is function:
        delattr(function, _KEPT)
