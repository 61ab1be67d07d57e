"""One way of doing the work: a name and a callable."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any


@dataclass(frozen=True)
class Variant:
    """A callable, with what it needs and what it is known to cost.

    Args:
        call: does the work once. With ``setup`` it gets the result of that as its argument.
        setup: runs once in the worker before the first evaluation and is not timed: load or
            compile a model here, make the data here.
        metrics: numbers shown beside the times, such as ``{"accuracy": 0.97}``; or a function
            that gives them, called once in the worker with the result of ``setup`` (with nothing
            if there is no ``setup``) before anything is timed.
        flops: floating-point operations of one evaluation.
        bytes_moved: bytes that one evaluation has to read and write.

    Raises:
        TypeError: ``call`` or ``setup`` cannot be called, or a metric is no number.
        ValueError: ``flops`` or ``bytes_moved`` is not above 0.

    >>> variant = Variant(sorted, setup=lambda: list(range(1000, 0, -1)))
    >>> Variant([1, 2, 3])
    Traceback (most recent call last):
    ...
    TypeError: call=[1, 2, 3] cannot be called; give a function, such as lambda: f(x)
    """

    call: Callable[..., Any]
    setup: Callable[[], Any] | None = field(default=None, kw_only=True)
    metrics: Mapping[str, float] | Callable[..., Mapping[str, float]] = field(
        default_factory=dict, kw_only=True
    )
    flops: float | None = field(default=None, kw_only=True)
    bytes_moved: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not callable(self.call):
            raise TypeError(
                f"call={_short(self.call)} cannot be called; give a function, such as lambda: f(x)"
            )
        if self.setup is not None and not callable(self.setup):
            raise TypeError(f"setup={_short(self.setup)} cannot be called; give a function or None")
        if not callable(self.metrics):
            check_metrics(self.metrics)
        for word in ("flops", "bytes_moved"):
            value = getattr(self, word)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{word}={value}: give a positive number, or leave it out")

    def prepare(
        self, on_metrics: Callable[[dict[str, float]], None] | None = None
    ) -> Callable[[], Any]:
        """Run the set-up and return the evaluation as a function of nothing.

        Args:
            on_metrics: told the metrics; None: nobody wants them, so they are not worked out.
        """
        given = () if self.setup is None else (self.setup(),)
        if on_metrics is not None:
            numbers = self.metrics(*given) if callable(self.metrics) else self.metrics
            on_metrics(check_metrics(numbers))
        return partial(self.call, *given) if given else self.call


def check_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Numbers by name, as floats.

    Raises:
        TypeError: something else.

    >>> check_metrics({"accuracy": 1})
    {'accuracy': 1.0}
    """
    if not isinstance(metrics, Mapping):
        raise TypeError(f"metrics={_short(metrics)}: give numbers by name")
    for name, value in metrics.items():
        if isinstance(value, bool) or not hasattr(value, "__float__"):
            raise TypeError(f"metrics[{name!r}]={_short(value)} is no number")
    return {name: float(value) for name, value in metrics.items()}


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def as_variants(variants: object) -> dict[str, Variant]:
    """Check what a caller gave as variants, before anything is measured.

    Raises:
        TypeError, ValueError: with what was given and what is allowed.
    """
    if not isinstance(variants, Mapping):
        raise TypeError(
            f"variants={_short(variants)}: give a dict of name to function, "
            'such as {"float32": f, "int8": g}'
        )
    checked: dict[str, Variant] = {}
    for name, variant in variants.items():
        if not isinstance(name, str) or not name.strip():
            raise TypeError(f"the name of a variant is a non-empty string, not {_short(name)}")
        try:
            checked[name] = variant if isinstance(variant, Variant) else Variant(variant)
        except TypeError as error:
            raise TypeError(f"variant {name!r}: {error}") from None
    return checked


# Where it raised says nothing of the caller's code.
_MACHINERY = ("timing.py", "variants.py", "child.py", "parallel.py")


def describe(error: BaseException, *, lines: int = 12) -> tuple[str, str]:
    """One line and a short traceback of an exception that a variant raised."""
    message = f"{type(error).__name__}: {error}".strip().splitlines()
    frames = traceback.format_exception(error)
    text = "".join(frames).splitlines()
    head = (message[0] if message else type(error).__name__)[:500]
    where = traceback.extract_tb(error.__traceback__)
    if where and not where[-1].filename.endswith(_MACHINERY):
        head += f" (line {where[-1].lineno}, in {where[-1].name})"
    return head, "\n".join(text[-lines:])[:4000]
