"""Numbers for people: one way to write a time, a size, a ratio, a rate, a share, a count.

Times and ratios are measured, stand in columns and keep three digits ("1.50 ms"); the others are
often exact and drop zeros that say nothing ("16 MiB", "2 %"). What is not known (None, NaN) is
written "n/a", so that a table never shows a number that nobody measured.

>>> format_time(0.00123), format_bytes(12_900_000), format_ratio(1.9312)
('1.23 ms', '12.3 MiB', '1.93x')
"""

from __future__ import annotations

import math
from itertools import pairwise

UNKNOWN = "n/a"

# Smallest first, each in terms of the base unit.
_TIMES = ((1e-9, "ns"), (1e-6, "µs"), (1e-3, "ms"), (1.0, "s"), (60.0, "min"))
_BINARY = tuple((1024.0**i, unit) for i, unit in enumerate(("B", "KiB", "MiB", "GiB", "TiB")))
_DECIMAL = tuple((1000.0**i, prefix) for i, prefix in enumerate(("", "k", "M", "G", "T", "P")))
# Units that take an SI prefix; "1.2 k images/s" reads better than "1.2 kimages/s".
_PREFIXED = frozenset({"B", "bit", "FLOP", "OP"})


def _digits(value: float, *, trim: bool) -> str:
    """Three significant digits, without an exponent where a person would not use one."""
    if value == 0 or math.isinf(value):
        return "0" if value == 0 else "∞" if value > 0 else "-∞"
    if not 1e-3 <= abs(value) < 1e6:
        return f"{value:.3g}"
    # The exponent after rounding: 9.996 is 10.0, not 10.00.
    exponent = int(f"{value:.2e}".partition("e")[2])
    text = f"{value:.{max(0, 2 - exponent)}f}"
    return text.rstrip("0").rstrip(".") if trim and "." in text else text


def _scaled(
    value: float, units: tuple[tuple[float, str], ...], *, trim: bool = False
) -> tuple[str, str]:
    """The digits, and the unit in which what is written is below one of the next unit."""
    for (size, unit), (above, _) in pairwise(units):
        text = _digits(value / size, trim=trim)
        # Judged as written: 999.7 ns is 1.00 µs, not 1000 ns. (1e-3 / 1e-6 is not quite 1000.)
        if math.isinf(value) or abs(float(text)) < above / size * (1 - 1e-9):
            return text, unit
        value = math.copysign(max(abs(value), above), value)
    size, unit = units[-1]
    return _digits(value / size, trim=trim), unit


def format_time(seconds: float | None) -> str:
    """A time with three digits, from ns to min.

    Args:
        seconds: the time in seconds; may be negative (a difference).

    >>> [format_time(s) for s in (0.0000042, 0.00123, 0.9999, 90, 0, -0.01)]
    ['4.20 µs', '1.23 ms', '1.00 s', '1.50 min', '0 s', '-10.0 ms']
    >>> format_time(None)
    'n/a'
    """
    if seconds is None or math.isnan(seconds):
        return UNKNOWN
    if seconds == 0 or math.isinf(seconds):
        return f"{_digits(seconds, trim=True)} s"
    return " ".join(_scaled(seconds, _TIMES))


def format_bytes(n: float | None) -> str:
    """A size in bytes with binary units (1 KiB is 1024 bytes).

    Args:
        n: the size in bytes; may be negative (a difference).

    >>> [format_bytes(n) for n in (0, 512, 1536, 16 * 2**20, 25_259_000_000, -(2**20))]
    ['0 B', '512 B', '1.5 KiB', '16 MiB', '23.5 GiB', '-1 MiB']
    """
    if n is None or math.isnan(n):
        return UNKNOWN
    return " ".join(_scaled(n, _BINARY, trim=True))


def format_ratio(ratio: float | None) -> str:
    """A ratio; just above 1, where the distance from 1 is what counts, with a digit more.

    >>> [format_ratio(r) for r in (1.9312, 3.2, 0.518, 12.34, 150, 1.005, 1)]
    ['1.93x', '3.20x', '0.518x', '12.3x', '150x', '1.005x', '1.000x']
    """
    if ratio is None or math.isnan(ratio):
        return UNKNOWN
    near_one = 0.9995 <= ratio < 1.0995
    return f"{ratio:.3f}x" if near_one else f"{_digits(ratio, trim=False)}x"


def format_rate(value: float | None, unit: str) -> str:
    """A rate with decimal units (1 GB/s is 1e9 bytes per second).

    Args:
        value: how much per second, in ``unit``.
        unit: such as "B/s", "FLOP/s", "images/s".

    >>> format_rate(12.3e9, "B/s"), format_rate(45e9, "FLOP/s"), format_rate(1234, "images/s")
    ('12.3 GB/s', '45 GFLOP/s', '1.23 k images/s')
    """
    if value is None or math.isnan(value):
        return UNKNOWN
    digits, prefix = _scaled(value, _DECIMAL, trim=True)
    gap = " " if prefix and unit.partition("/")[0] not in _PREFIXED else ""
    return f"{digits} {prefix}{gap}{unit}"


def format_share(share: float | None) -> str:
    """A share of one, in percent.

    >>> format_share(0.123), format_share(0.2), format_share(-0.005), format_share(1)
    ('12.3 %', '20 %', '-0.5 %', '100 %')
    """
    if share is None or math.isnan(share):
        return UNKNOWN
    return f"{_digits(share * 100, trim=True)} %"


def format_count(n: float | None) -> str:
    """A count; from 10 000 on with three digits and k, M, G, T (1 M is a million).

    >>> format_count(7), format_count(1024), format_count(25_557_032), format_count(-20_000)
    ('7', '1024', '25.6 M', '-20 k')
    """
    if n is None or math.isnan(n):
        return UNKNOWN
    if abs(n) < 10_000 and n == int(n):
        return str(int(n))
    return " ".join(_scaled(n, _DECIMAL, trim=True)).strip()
