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
    """As `cloudpickle.dumps`, and two things that it does not do.

    It takes a function that `functools.cache` made for one of a module, which the worker cannot
    import; here it arrives with an empty cache. And it gives every view of a tensor all the
    numbers of that tensor, for itself: 500 pieces take 500 times the memory, lie elsewhere, and
    do not see what is written to another. Here views arrive as views.

    >>> import pickle
    >>> pickle.loads(dumps(functools.cache(lambda x: 2 * x)))(21)
    42
    """
    import cloudpickle

    own: dict[type, Callable[[Any], Any]] = {_Cached: _reduce_cached}
    if (torch := sys.modules.get("torch")) is not None:
        own[torch.storage.TypedStorage] = _Storages()

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        # pickle reads it from the class.
        dispatch_table: ClassVar = ChainMap(own, cloudpickle.Pickler.dispatch_table)

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


class _Storages:
    """Takes the storages of tensors apart; one that several have is sent once."""

    def __init__(self) -> None:
        self._first: dict[int, Any] = {}

    def __call__(self, storage: Any) -> Any:
        # Each tensor makes a new object around what lies in memory. Pickle knows the first.
        place = storage._untyped_storage._cdata  # noqa: SLF001
        first = self._first.setdefault(place, storage)
        return storage.__reduce__() if first is storage else (_same, (first, storage.dtype))


def _same(storage: Any, dtype: Any) -> Any:
    # As torch makes it for a tensor.
    untyped = storage._untyped_storage  # noqa: SLF001
    return type(storage)(wrap_storage=untyped, dtype=dtype, _internal=True)


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
