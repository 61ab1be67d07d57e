"""Which variants nobody should pass over: the frontier of time against quality."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from labkit.statistics import Verdict

if TYPE_CHECKING:
    from labkit.results import Comparison

QUALITY, SIZE = "accuracy", "size_bytes"


def placed(comparison: Comparison, quality: str = QUALITY) -> dict[str, tuple[float, float]]:
    """Time (seconds) and quality of each variant that has both."""
    return {
        name: (trial.median_s, trial.metrics[quality])
        for name, trial in comparison.trials.items()
        if trial.times_s and math.isfinite(trial.metrics.get(quality, math.nan))
    }


def frontier(comparison: Comparison, quality: str = QUALITY) -> tuple[str, ...]:
    """The variants that no other one beats, the fastest first.

    A variant is beaten by one that is at least as good and known to be faster, or better and
    known to be as fast. Where the intervals do not tell, both stay.

    Medians over rounds may go in a circle (each of three beats the next), so the one that is
    faster by its median time, too, is taken for the faster one.

    Args:
        comparison: whose variants bring along how good they are.
        quality: the name of that number; more is better.

    >>> from labkit.results import Comparison
    >>> from labkit.trials import Trial
    >>> def trial(name, time_s, accuracy):
    ...     metrics = {"accuracy": accuracy}
    ...     return Trial(name, (time_s,) * 60, tuple(range(60)), metrics=metrics)
    >>> trials = [trial("a", 4e-3, 0.98), trial("b", 2e-3, 0.97), trial("c", 3e-3, 0.96)]
    >>> frontier(Comparison({trial.name: trial for trial in trials}))
    ('b', 'a')
    """
    at = placed(comparison, quality)

    def beaten(name: str) -> bool:
        my_s, mine = at[name]
        for other, (their_s, theirs) in at.items():
            if other == name or theirs < mine:
                continue
            verdict = comparison.ratio(other, name).verdict
            faster = verdict is Verdict.FASTER and their_s < my_s
            if faster or (verdict is Verdict.SAME and theirs > mine):
                return True
        return False

    return tuple(sorted((name for name in at if not beaten(name)), key=lambda name: at[name]))
