"""The parameters of an experiment: what ipywidgets.interact's abbreviations mean without widgets.

Source of the abbreviations: the ipywidgets documentation, "Using Interact".
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# Words that `Experiment.run` takes for itself.
RESERVED = frozenset(
    {
        "budget_s",
        "confidence",
        "resolution",
        "agree",
        "memory",
        "deadline_s",
        "trace",
        "prediction",
        "client",
        "at_once",
        "on_change",
    }
)


@dataclass(frozen=True)
class Parameter:
    """One parameter: its abbreviation, its default, and what it allows.

    Attributes:
        name: as in the function's signature.
        kind: "choice", "range", "switch", "number" or "text".
        default: the value if none is given.
        choices: for a choice: (label, value) pairs.
        low, high, step: for a range.
    """

    name: str
    kind: str
    default: Any
    choices: tuple[tuple[str, Any], ...] = ()
    low: float | None = None
    high: float | None = None
    step: float | None = None

    def check(self, value: Any) -> Any:
        """Return the value if it is allowed.

        Raises:
            ValueError: with what was given and what is allowed.
        """
        given = f"{self.name}={value!r}"
        match self.kind:
            case "switch":
                if not isinstance(value, bool):
                    raise ValueError(f"{given}: give True or False")  # noqa: TRY004
            case "text":
                if not isinstance(value, str):
                    raise ValueError(f"{given}: give a text")  # noqa: TRY004
            case "range" | "number":
                whole = isinstance(self.default, int)
                self._check_number(value, given, whole=whole)
                if self.low is not None and not self.low <= value <= (self.high or self.low):
                    raise ValueError(f"{given}: give a number from {self.low} to {self.high}")
            case _:
                values = [v for _, v in self.choices]
                if any(v is value or (type(v) is type(value) and v == value) for v in values):
                    return value
                if not all(_is_number(v) for v in values):
                    allowed = ", ".join(repr(v) for v in values)
                    raise ValueError(f"{given}: choose one of {allowed}")
                # Numbers between or beyond the listed ones are what a sweep is for.
                self._check_number(value, given, whole=all(isinstance(v, int) for v in values))
                if value <= 0 < min(values):
                    raise ValueError(f"{given}: give a number above 0")
        return value

    def _check_number(self, value: Any, given: str, *, whole: bool) -> None:
        if not _is_number(value) or not math.isfinite(value):
            raise ValueError(f"{given}: give a finite number")
        if whole and not isinstance(value, int):
            raise ValueError(f"{given}: give a whole number, such as {self.default}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def parse(name: str, given: Any, default: Any = inspect.Parameter.empty) -> Parameter:
    """Read one abbreviation.

    Raises:
        ValueError: if it is none.

    >>> parse("size", [64, 256, 1024]).default
    64
    >>> parse("threads", (1, 4)).default
    2
    >>> parse("fused", True).kind
    'switch'
    """
    has_default = default is not inspect.Parameter.empty
    if isinstance(given, bool):
        return Parameter(name, "switch", default if has_default else given)
    if isinstance(given, str):
        return Parameter(name, "text", default if has_default else given)
    if _is_number(given):
        # interact draws a slider from -v to 3v (0 to 1 for 0); for a benchmark a negative
        # size has no meaning, so the slider starts at one step.
        if not given > 0:
            raise ValueError(f"{name}={given!r}: a number abbreviates a range and must be above 0")
        step = 1 if isinstance(given, int) else given / 10
        return Parameter(
            name, "range", default if has_default else given, low=step, high=3 * given, step=step
        )
    if (
        isinstance(given, tuple)
        and len(given) in (2, 3)
        and all(_is_number(v) and math.isfinite(v) for v in given)
    ):
        low, high, *rest = given
        whole = all(isinstance(v, int) for v in given)
        step = rest[0] if rest else (1 if whole else (high - low) / 10)
        if not low < high or not step > 0:
            raise ValueError(f"{name}={given!r}: give (lowest, highest) or (lowest, highest, step)")
        middle = low + (high - low) // 2 if whole else low + (high - low) / 2
        if rest:
            middle = low + int((middle - low) / step) * step
        return Parameter(
            name, "range", default if has_default else middle, low=low, high=high, step=step
        )
    if isinstance(given, Mapping):
        given = list(given.items())
    try:
        options = list(given)
    except TypeError:
        raise ValueError(
            f"{name}={given!r} is no parameter; give a list of choices, (lowest, highest), "
            "(lowest, highest, step), a number, a text, or True / False"
        ) from None
    if not options:
        raise ValueError(f"{name}={given!r} has no choices; give at least one")
    pairs = tuple(
        o if isinstance(o, tuple) and len(o) == 2 and isinstance(o[0], str) else (str(o), o)
        for o in options
    )
    return Parameter(name, "choice", default if has_default else pairs[0][1], choices=pairs)


def parse_all(function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Parameter]:
    """Read all parameters of an experiment and hold them against the function's signature.

    Raises:
        TypeError, ValueError: the two do not fit; says which and what to write.
    """
    signature = inspect.signature(function)
    takes = {
        p.name: p
        for p in signature.parameters.values()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    any_keyword = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    name = getattr(function, "__name__", "the function")
    for word in given:
        if word in RESERVED:
            raise ValueError(f"{word}= is a setting of run(); give the parameter another name")
        if word not in takes and not any_keyword:
            raise TypeError(f"{name}() has no parameter {word!r}; it takes {list(takes)}")
    for word, p in takes.items():
        if word not in given and p.default is p.empty:
            raise TypeError(
                f"{name}() needs {word!r}: say what it may be, @experiment({word}=[...])"
            )
    parameters = {}
    for word, value in given.items():
        default = takes[word].default if word in takes else inspect.Parameter.empty
        parameters[word] = parse(word, value, default)
        parameters[word].check(parameters[word].default)
    return parameters
