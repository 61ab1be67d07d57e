"""The same function at another place in memory.

Two copies of one function need not be equally fast: where their code lies decides which lines of
the caches it shares with the data, and a process keeps that for as long as it lives. Measured here,
identical generator expressions in two functions differed by 1 to 5 % in one process of five. A
round that draws the place afresh turns this from a bias into noise.

Source: Mytkowicz, Diwan, Hauswirth and Sweeney, "Producing wrong data without doing anything
obviously wrong!", ASPLOS 2009; Curtsinger and Berger, "Stabilizer: statistically sound performance
evaluation", ASPLOS 2013.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

Call = Callable[..., Any]


def relocated(call: Call) -> Call:
    """A copy of a function with new code objects; it shares everything that can hold a state.

    Args:
        call: a function, a method or a `functools.partial` of one. Anything else is given back
            as it is: its code is not Python's, or not its own.

    >>> counts = []
    >>> def count():
    ...     counts.append(len(counts))
    ...     return counts
    >>> moved = relocated(count)
    >>> moved() is count()
    True
    >>> moved.__code__ is count.__code__, moved.__code__ == count.__code__
    (False, True)
    """
    if isinstance(call, partial):
        return partial(relocated(call.func), *call.args, **call.keywords)
    if isinstance(call, MethodType):
        return MethodType(relocated(call.__func__), call.__self__)
    if not isinstance(call, FunctionType):
        return call
    copy = FunctionType(
        _new_code(call.__code__),
        call.__globals__,
        call.__name__,
        call.__defaults__,
        call.__closure__,
    )
    copy.__kwdefaults__ = call.__kwdefaults__
    copy.__dict__.update(call.__dict__)
    return copy


def _new_code(code: CodeType) -> CodeType:
    """With the code of inner functions, comprehensions and generators, which is where loops run."""
    return code.replace(
        co_consts=tuple(_new_code(c) if isinstance(c, CodeType) else c for c in code.co_consts)
    )
