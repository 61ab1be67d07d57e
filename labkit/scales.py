"""Axes with units: seconds, bytes, ratios, the values of a parameter; and labels that fit."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any

from matplotlib.ticker import (
    EngFormatter,
    FixedLocator,
    FuncFormatter,
    MaxNLocator,
    MultipleLocator,
)

from labkit.units import format_bytes, format_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis


def short(text: str, width: int) -> str:
    """Cut between words where there are several."""
    return textwrap.shorten(text, width, placeholder="…") if " " in text else cut(text, width)


def cut(text: str, width: int) -> str:
    """At most so many letters."""
    return text if len(text) <= width else text[: width - 1] + "…"


def set_parameter_axis(axes: Axes, name: str, values: list[Any]) -> dict[Any, float]:
    """Where each value of the swept parameter stands; logarithmic where that fits."""
    axes.set_xlabel(name)
    numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(values):
        axes.set_xticks(range(len(values)), [short(str(v), 14) for v in values])
        axes.set_xlim(-0.4, len(values) - 0.6)
        return {v: float(i) for i, v in enumerate(values)}
    low, high = min(numbers, default=0.0), max(numbers, default=0.0)
    if low > 0 and high / low >= 8:
        axes.set_xscale("log")
        axes.minorticks_off()
        if len(values) <= 8:
            axes.set_xticks(numbers, [_tick(v) for v in values])
    return dict(zip(values, numbers, strict=True))


def _tick(value: float) -> str:
    """A parameter as it was given, where that is not too long to stand beside others."""
    if isinstance(value, int):
        return str(value) if value < 10**7 else format_count(value)
    return f"{value:g}"


def set_bytes_axis(axis: Axis, largest: int, ticks: int) -> None:
    """Label the bytes at about so many ticks."""
    # Steps of a power of two: 256 KiB, 512 KiB, not 195 KiB, 391 KiB.
    axis.set_major_locator(MultipleLocator(2 ** math.floor(math.log2(largest / ticks))))
    axis.set_major_formatter(FuncFormatter(lambda n, _: format_bytes(n)))


def _axis(axes: Axes, which: str) -> Axis:
    return axes.xaxis if which == "x" else axes.yaxis


def _set_limits(axes: Axes, which: str, low: float, high: float, *, log: bool) -> None:
    if log:
        pad = (high / low) ** 0.08
        low, high = low / pad, high * pad
    else:
        pad = 0.08 * (high - low)
        low, high = low - pad, high + pad
    if which == "x":
        axes.set_xscale("log" if log else "linear")
        axes.set_xlim(low, high)
    else:
        axes.set_yscale("log" if log else "linear")
        axes.set_ylim(low, high)
    # Also half of the time that an axis takes to draw.
    axes.minorticks_off()


def _set_log_ticks(axes: Axes, which: str, low: float, high: float, most: int) -> None:
    """Powers of ten, or 1, 2 and 5 of each where there are few of them.

    Never too many, and never so near each other that their labels touch.
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    ticks: list[float] = []
    for subs in ((1,), (1, 2, 5)):
        ticks = [sub * 10.0**e for e in range(first, last + 1) for sub in subs]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) >= 3 or (len(ticks) == 2 and most <= 3):
            break
    apart = (high / low) ** (1 / most)
    shown: list[float] = []
    for tick in ticks:
        if not shown or tick >= shown[-1] * apart:
            shown.append(tick)
    _axis(axes, which).set_major_locator(FixedLocator(shown))


def set_time_axis(axes: Axes, which: str, seen_s: list[float], *, most: int | None = None) -> None:
    """Fit the "x" or the "y" axis to seconds; logarithmic where they are far apart."""
    seen_s = [s for s in seen_s if s > 0 and math.isfinite(s)]
    if seen_s:
        low, high = min(seen_s), max(seen_s)
        log = high / low > 8
        if not log:
            low = 0.0 if which == "y" or low < 0.5 * high else low
            high = high if high > low else 1.1 * high
        _set_limits(axes, which, low, high, log=log)
        if log:
            _set_log_ticks(axes, which, low, high, most or (3 if which == "x" else 6))
        else:
            _axis(axes, which).set_major_locator(MaxNLocator(most or (2 if which == "x" else 4)))
            if low == 0.0:
                axes.set_xlim(left=0) if which == "x" else axes.set_ylim(bottom=0)
    else:
        _axis(axes, which).set_ticks([])
    _axis(axes, which).set_major_formatter(EngFormatter(unit="s"))


def set_ratio_axis(axes: Axes, which: str, seen: list[float]) -> None:
    """Fit the "x" or the "y" axis to ratios; logarithmic where they are far apart."""
    seen = [r for r in seen if r > 0 and math.isfinite(r)]
    low, high = min(seen), max(seen)
    log = high / low > 3
    # Identical code must look identical: never zoom in so far that 1 % fills the axis.
    low, high = min(low, 0.95), max(high, 1.05)
    _set_limits(axes, which, low, high, log=log)
    if log:
        _set_log_ticks(axes, which, low, high, 5)
    else:
        _axis(axes, which).set_major_locator(MaxNLocator(5))
    _axis(axes, which).set_major_formatter(FuncFormatter(lambda r, _: f"{r:g}x"))
