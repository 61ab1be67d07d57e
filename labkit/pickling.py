"""What goes to the worker: functions of a notebook cell, with all that they use."""

from __future__ import annotations

import functools
import inspect
import io
import sys
from collections import ChainMap
from typing import TYPE_CHECKING, Any, ClassVar

from labkit.errors import UnpicklableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from labkit.variants import Variant


def dumps(value: object) -> bytes:
    """As `cloudpickle.dumps`, and cached functions of a notebook cell as well.

    cloudpickle takes a function that `functools.cache` made for one of a module, which the
    worker cannot import. It arrives there with an empty cache.

    >>> import pickle
    >>> pickle.loads(dumps(functools.cache(lambda x: 2 * x)))(21)
    42
    """
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        # pickle reads it from the class.
        dispatch_table: ClassVar = ChainMap(
            {_Cached: _reduce_cached}, cloudpickle.Pickler.dispatch_table
        )

    buffer = io.BytesIO()
    Pickler(buffer).dump(value)
    return buffer.getvalue()


_Cached = type(functools.cache(abs))


def _reduce_cached(function: Any) -> str | tuple[Any, ...]:
    name: str = function.__qualname__
    module = sys.modules.get(function.__module__)
    if function.__module__ != "__main__" and getattr(module, name, None) is function:
        return name
    return _cache_again, (function.__wrapped__, function.cache_parameters())


def _cache_again(function: Any, parameters: dict[str, Any]) -> Any:
    return functools.lru_cache(**parameters)(function)


def dump_variants(variants: Mapping[str, Variant], agree: Callable[..., Any] | None) -> bytes:
    """Pickle the variants, functions of a notebook cell included.

    Raises:
        UnpicklableError: names the variant, what it holds, and the way out.
    """
    try:
        # All together, so that data which variants share stays shared in the worker.
        return dumps((dict(variants), agree))
    except Exception as error:
        for name, variant in variants.items():
            try:
                dumps(variant)
            except Exception as why:
                culprit = _culprit(variant)
                raise UnpicklableError(
                    f"variant {name!r} cannot be sent to the worker: {culprit}{why}. Make that "
                    "object inside setup= (labkit.Variant(call, setup=...)), or measure in this "
                    "process with isolate=False"
                ) from None
        raise UnpicklableError(f"agree= cannot be sent to the worker: {error}") from None


def _culprit(variant: Variant) -> str:
    """Which name that a variant's functions use cannot be pickled."""
    for function in (variant.call, variant.setup, variant.metrics):
        if not inspect.isfunction(function):
            continue
        used = inspect.getclosurevars(function)
        for name, value in {**used.nonlocals, **used.globals}.items():
            try:
                dumps(value)
            except Exception:
                return f"it uses {name!r}, a {type(value).__name__}: "
    return ""
