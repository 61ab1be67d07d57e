"""From paired samples to an interval that may be looked at as often as one likes.

Everything here is a pure function of numbers: no clocks, no files, no randomness.

A round times the baseline and the variant in an order drawn afresh. If the two are equally
fast, which of them came out ahead is a fair coin, whatever the noise of the machine looks
like: bursts, drift and outliers change how far the times are apart, not the sign. So the
number of rounds above a candidate median ``m`` is binomial with probability one half when
``m`` is the true median, and a beta mixture of likelihood ratios against that coin,

    M(n, s) = B(a + s, a + n - s) / B(a, a) * 2**n,

is a non-negative martingale that starts at 1. Ville's inequality bounds the probability that
it *ever* reaches ``1 / alpha`` by ``alpha``. The candidates for which it has not are the
interval, and they lie between two order statistics of the rounds.

Sources: Robbins, "Statistical methods related to the law of the iterated logarithm" (1970);
Howard, Ramdas, McAuliffe and Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence
sequences" (2021); Howard and Ramdas, "Sequential estimation of quantiles with applications to
A/B testing and best-arm identification" (2022).
"""

from __future__ import annotations

import math
from enum import StrEnum
from functools import lru_cache
from statistics import NormalDist, median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# The mixture's shape. A larger value narrows the interval of long runs and needs more rounds
# before the first finite one. At 95 %: 1 needs 8 rounds, 2 needs 9, 16 needs 18, and after
# 300 rounds the interval of 2 is 8 % wider than that of 16: slow variants matter more.
_MIXTURE = 2.0
# A run goes on while a difference is only known to be there: until it is known within this share.
_ROUGHLY = 0.3


class Verdict(StrEnum):
    """What a comparison may say. There is no fifth word.

    >>> Verdict.FASTER == "faster"
    True
    """

    FASTER = "faster"
    SLOWER = "slower"
    SAME = "same"
    INCONCLUSIVE = "inconclusive"


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


@lru_cache(maxsize=65536)
def cut(rounds: int, alpha: float) -> int | None:
    """How many rounds may be cut from each end of the sorted rounds.

    Args:
        rounds: number of rounds so far, at least 0.
        alpha: probability, over the whole run, that the interval ever misses the median.

    Returns:
        ``k`` such that the interval reaches from the ``k``-th to the ``rounds - 1 - k``-th
        value (counted from 0) of the sorted rounds; None while no interval is finite.

    >>> cut(8, alpha=0.05) is None
    True
    >>> cut(9, alpha=0.05)
    0
    >>> cut(1000, alpha=0.05)
    446
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha={alpha}: give a probability between 0 and 1, such as 0.05")
    threshold = -math.log(alpha) + _log_beta(_MIXTURE, _MIXTURE) - rounds * math.log(2)
    low, high = -1, rounds // 2
    # The martingale falls as s goes from 0 to rounds / 2: the largest s that is still rejected.
    while low < high:
        s = (low + high + 1) // 2
        if _log_beta(_MIXTURE + s, _MIXTURE + rounds - s) >= threshold:
            low = s
        else:
            high = s - 1
    return None if low < 0 else low


def interval(values: Sequence[float], *, alpha: float) -> tuple[float, float]:
    """The anytime-valid interval of the median of ``values``.

    Args:
        values: one number per round, such as log ratios.
        alpha: probability, over the whole run, that the interval ever misses the median.

    Returns:
        ``(low, high)``; infinite while there are too few rounds.

    >>> interval([0.1, 0.2], alpha=0.05)
    (-inf, inf)
    >>> interval([0.01 * i for i in range(100)], alpha=0.05)
    (0.34, 0.65)
    """
    k = cut(len(values), alpha)
    if k is None:
        return -math.inf, math.inf
    ordered = sorted(values)
    return ordered[k], ordered[len(ordered) - 1 - k]


def minimum_rounds(alpha: float) -> int:
    """The fewest rounds that can give a finite interval.

    >>> minimum_rounds(0.05)
    9
    """
    n = 1
    while cut(n, alpha) is None:
        n += 1
    return n


def spread(values: Sequence[float]) -> float:
    """The robust standard deviation: the median absolute deviation, scaled for a normal law.

    The factor is 1 / NormalDist().inv_cdf(0.75) (Rousseeuw and Croux, 1993).

    >>> round(spread([1.0, 2.0, 3.0, 4.0, 1000.0]), 4)
    1.4826
    """
    center = median(values)
    return median(abs(v - center) for v in values) / NormalDist().inv_cdf(0.75)


def reachable_width(spread_log: float, rounds: int, *, alpha: float) -> float:
    """The width that an interval will have after ``rounds`` rounds of this spread.

    A prediction for normal noise, made before the run, to refuse what cannot be reached.

    Args:
        spread_log: robust standard deviation of one round's log ratio.
        rounds: how many rounds the budget allows.
        alpha: as in `interval`.

    >>> reachable_width(0.01, 5, alpha=0.05)
    inf
    >>> 0.002 < reachable_width(0.01, 1000, alpha=0.05) < 0.003
    True
    """
    k = cut(rounds, alpha)
    if k is None:
        return math.inf
    return 2 * spread_log * NormalDist().inv_cdf(1 - (k + 0.5) / rounds)


def rounds_for_width(spread_log: float, width: float, *, alpha: float) -> int:
    """How many rounds of this spread an interval of this width needs (a prediction).

    >>> rounds_for_width(0.01, 0.02, alpha=0.05) < rounds_for_width(0.01, 0.005, alpha=0.05)
    True
    """
    rounds = minimum_rounds(alpha)
    while reachable_width(spread_log, rounds, alpha=alpha) > width and rounds < 10**9:
        rounds = math.ceil(rounds * 1.1)
    return rounds


def decide(low: float, high: float, *, resolution: float) -> Verdict:
    """The verdict of an interval of speed-ups.

    Args:
        low: lower end of the interval of the ratio (above 1 is faster).
        high: upper end.
        resolution: differences below this share do not matter, 0.02 for 2 %.

    >>> decide(1.05, 1.10, resolution=0.02).value
    'faster'
    >>> decide(0.995, 1.004, resolution=0.02).value
    'same'
    >>> decide(0.95, 1.05, resolution=0.02).value
    'inconclusive'
    """
    if low >= 1 / (1 + resolution) and high <= 1 + resolution:
        return Verdict.SAME
    if low > 1:
        return Verdict.FASTER
    if high < 1:
        return Verdict.SLOWER
    return Verdict.INCONCLUSIVE


def answered(low: float, high: float, *, resolution: float) -> bool:
    """Whether the verdict is settled: clear of 1 by the resolution, or narrower than it.

    >>> answered(1.05, 1.50, resolution=0.02)
    True
    >>> answered(0.99, 1.05, resolution=0.02)
    False
    """
    if low >= 1 + resolution or high <= 1 / (1 + resolution):
        return True
    return high - low < resolution and decide(low, high, resolution=resolution) != "inconclusive"


def may_stop(low: float, high: float, *, resolution: float) -> bool:
    """Whether a run may stop before its budget is spent: the verdict is settled, and how much, too.

    "Faster, by something between 5 % and 300 %" is a verdict, and helps nobody to choose.

    >>> may_stop(1.05, 3.0, resolution=0.02), may_stop(1.8, 2.2, resolution=0.02)
    (False, True)
    """
    settled = answered(low, high, resolution=resolution)
    return settled and high <= low * (1 + max(_ROUGHLY, resolution))
