import math

import pytest

from labkit.units import (
    format_bytes,
    format_count,
    format_rate,
    format_ratio,
    format_share,
    format_time,
)

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1.234e-3, "1.23 ms"),
        (1e-3, "1.00 ms"),
        (9.996e-3, "10.0 ms"),
        (999.4e-9, "999 ns"),
        (999.7e-9, "1.00 µs"),
        (0.9996, "1.00 s"),
        (1.2e-10, "0.120 ns"),
        (59.94, "59.9 s"),
        (59.96, "1.00 min"),
        (7200, "120 min"),
        (6e6, "100000 min"),
        (-0.25, "-250 ms"),
        (0, "0 s"),
        (-0.0, "0 s"),
        (INF, "∞ s"),
        (NAN, "n/a"),
        (None, "n/a"),
    ],
)
def test_time(seconds, text):
    assert format_time(seconds) == text


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1010 * 2**20, "1010 MiB"),
        (1023.7 * 2**20, "1 GiB"),
        (12.34 * 2**20, "12.3 MiB"),
        (256 * 2**20, "256 MiB"),
        (5000 * 2**40, "5000 TiB"),
        (-1536, "-1.5 KiB"),
        (INF, "∞ B"),
        (NAN, "n/a"),
        (None, "n/a"),
    ],
)
def test_bytes(n, text):
    assert format_bytes(n) == text


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (1.9312, "1.93x"),
        (0.5, "0.500x"),
        (0.9994, "0.999x"),
        (0.9997, "1.000x"),
        (1, "1.000x"),
        (1.0049, "1.005x"),
        (1.0994, "1.099x"),
        (1.0996, "1.10x"),
        (9.999, "10.0x"),
        (1234, "1234x"),
        (0, "0x"),
        (-2, "-2.00x"),
        (INF, "∞x"),
        (NAN, "n/a"),
        (None, "n/a"),
    ],
)
def test_ratio(ratio, text):
    assert format_ratio(ratio) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (12.3e9, "B/s", "12.3 GB/s"),
        (45e9, "FLOP/s", "45 GFLOP/s"),
        (999.9e9, "FLOP/s", "1 TFLOP/s"),
        (2e18, "FLOP/s", "2000 PFLOP/s"),
        (0.5, "images/s", "0.5 images/s"),
        (250, "images/s", "250 images/s"),
        (2.5e6, "tokens/s", "2.5 M tokens/s"),
        (0, "B/s", "0 B/s"),
        (-1e3, "B/s", "-1 kB/s"),
        (INF, "FLOP/B", "∞ FLOP/B"),
        (NAN, "B/s", "n/a"),
        (None, "B/s", "n/a"),
    ],
)
def test_rate(value, unit, text):
    assert format_rate(value, unit) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.123, "12.3 %"), (0.02, "2 %"), (0, "0 %"), (-0.1, "-10 %"), (NAN, "n/a"), (None, "n/a")],
)
def test_share(share, text):
    assert format_share(share) == text


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0"),
        (9999, "9999"),
        (10_000, "10 k"),
        (999_999, "1 M"),
        (1.5, "1.5"),
        (7e9, "7 G"),
        (-3, "-3"),
        (INF, "∞"),
        (NAN, "n/a"),
        (None, "n/a"),
    ],
)
def test_count(n, text):
    assert format_count(n).split() == text.split()
