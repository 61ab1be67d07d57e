"""Intervals that hold at every moment, and the words made of them."""

import math
import random

import pytest

from labkit import statistics as st


def test_the_cut_is_the_largest_count_that_the_martingale_still_rejects():
    def martingale(n, s):
        a = st._MIXTURE
        beta = math.lgamma(a + s) + math.lgamma(a + n - s) - math.lgamma(2 * a + n)
        return math.exp(beta - 2 * math.lgamma(a) + math.lgamma(2 * a) + n * math.log(2))

    for n in (9, 20, 57, 200):
        for alpha in (0.05, 0.01):
            rejected = [s for s in range(n // 2) if martingale(n, s) >= 1 / alpha]
            assert st.cut(n, alpha) == (max(rejected) if rejected else None)


def test_there_is_no_interval_before_the_coin_could_have_spoken():
    assert st.interval([1.0] * 8, alpha=0.05) == (-math.inf, math.inf)
    assert st.interval([1.0] * 9, alpha=0.05) == (1.0, 1.0)


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_somebody_who_looks_after_every_round_is_misled_no_more_often_than_promised(alpha):
    draw = random.Random(1)
    runs, misled = 400, 0
    for _ in range(runs):
        signs = 0
        for n in range(1, 400):
            signs += draw.random() < 0.5
            k = st.cut(n, alpha)
            if k is not None and (signs <= k or signs >= n - k):
                misled += 1
                break
    # Three standard deviations above the promise.
    assert misled / runs <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / runs)


def test_the_interval_covers_the_median_under_bursts_at_the_most_flattering_moment():
    draw = random.Random(2)
    missed = 0
    for _ in range(200):
        values, bad = [], False
        for n in range(200):
            burst = draw.choice([0, 0, 0, 1]) * draw.gauss(0, 2)
            values.append(0.1 + draw.gauss(0, 0.01) + burst)
            if n % 5 == 0:
                low, high = st.interval(values, alpha=0.05)
                bad = bad or not low <= 0.1 <= high
        missed += bad
    assert missed <= 0.05 * 200


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (1.021, 1.03, "faster"),
        (1.001, 1.03, "faster"),
        (0.97, 0.98, "slower"),
        (0.99, 1.01, "same"),
        (1.005, 1.015, "same"),
        (0.99, 1.03, "inconclusive"),
        (0.0, math.inf, "inconclusive"),
    ],
)
def test_the_verdict_of_an_interval(low, high, verdict):
    assert st.decide(low, high, resolution=0.02) == verdict


def test_a_run_ends_only_when_it_has_something_to_say():
    draw = random.Random(3)
    for _ in range(2000):
        low = math.exp(draw.gauss(0, 0.05))
        high = low * math.exp(abs(draw.gauss(0, 0.05)))
        if st.answered(low, high, resolution=0.02):
            assert st.decide(low, high, resolution=0.02) != "inconclusive"


def test_the_spread_ignores_a_third_of_wild_rounds():
    quiet = [0.01 * x for x in range(-10, 11)]
    assert st.spread([*quiet, *[100.0] * 6]) < 3 * st.spread(quiet)


def test_a_predicted_width_needs_the_predicted_rounds():
    rounds = st.rounds_for_width(0.02, 0.01, alpha=0.05)
    assert st.reachable_width(0.02, rounds, alpha=0.05) <= 0.01
    assert st.reachable_width(0.02, rounds // 2, alpha=0.05) > 0.01


@pytest.mark.parametrize("alpha", [0, 1, -0.1, math.nan])
def test_an_impossible_alpha_is_refused(alpha):
    with pytest.raises(ValueError, match="between 0 and 1"):
        st.cut(10, alpha)
