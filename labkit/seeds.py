"""The same training with several seeds: what is luck, and what is not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from labkit.claims import CONFIRMED, INCONCLUSIVE, REFUTED, Claim

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Difference:
    """By how much one way is better than another, seed by seed.

    Attributes:
        name, than: the two ways.
        mean: of the differences.
        low, high: the confidence interval of the mean.
        seeds: how many pairs it rests on.
    """

    name: str
    than: str
    mean: float
    low: float
    high: float
    seeds: int

    @property
    def verdict(self) -> str:
        """One of "better", "worse" and "inconclusive"."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "inconclusive"

    def __str__(self) -> str:
        return (
            f"{self.name} against {self.than}: {self.mean:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"
            f" over {self.seeds} seeds: {self.verdict}"
        )


@dataclass(frozen=True, repr=False)
class Seeds:
    """A number for each way and seed; more is better.

    Attributes:
        values: by name, in the order of ``seeds``.
        seeds: those that were finished.
        quantity: what the numbers are.

    >>> found = Seeds({"a": (0.90, 0.92, 0.91), "b": (0.93, 0.95, 0.945)}, (0, 1, 2), "accuracy")
    >>> print(found.difference("b", "a"))
    b against a: +0.0317 [+0.0245, +0.0388] over 3 seeds: better
    """

    values: Mapping[str, tuple[float, ...]]
    seeds: tuple[int, ...]
    quantity: str = "accuracy"

    def __repr__(self) -> str:
        # The same from run to run, so that a notebook's output stays comparable.
        return f"Seeds({', '.join(self.values)})"

    def difference(self, name: str, than: str, *, confidence: float = 0.95) -> Difference:
        """The mean of the paired differences, with Student's interval.

        Pairs share their seed, and with it what the seed decides for both: the draw of the
        batches, the first weights.

        Raises:
            KeyError: an unknown name.
            ValueError: fewer than two seeds.
        """
        # Not scipy.stats: it brings 40 MB for the same number.
        from scipy.special import stdtrit

        for given in (name, than):
            if given not in self.values:
                raise KeyError(f"no {given!r} here; there are {', '.join(self.values)}")
        pairs = zip(self.values[name], self.values[than], strict=True)
        differences = [one - other for one, other in pairs]
        number = len(differences)
        if number < 2:
            raise ValueError(f"an interval needs at least two seeds; there are {number}")
        half = stdtrit(number - 1, (1 + confidence) / 2) * stdev(differences) / math.sqrt(number)
        mean = fmean(differences)
        return Difference(name, than, mean, mean - float(half), mean + float(half), number)

    def claim(self, name: str, *, better_than: str) -> Claim:
        """Print whether one way is better, with the interval: it holds, fails or stays open."""
        found = self.difference(name, better_than)
        states = {"better": CONFIRMED, "worse": REFUTED, "inconclusive": INCONCLUSIVE}
        seen = f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"
        sentence = f"better in {self.quantity} over {found.seeds} seeds"
        claim = Claim(f"{name} vs {better_than}", seen, states[found.verdict], sentence)
        print(claim)
        return claim

    def to_frame(self) -> pd.DataFrame:
        """One row a seed, one column a way."""
        import pandas as pd

        index = pd.Index(self.seeds, name="seed")
        return pd.DataFrame({name: list(found) for name, found in self.values.items()}, index=index)

    def plot(self) -> Figure:
        """A line for each way over the seeds."""
        from labkit import plots

        curves = {name: list(found) for name, found in self.values.items()}
        return plots.curves_figure(curves, x="seed", y=self.quantity, xs=list(self.seeds))


def over_seeds(
    ways: Mapping[str, Callable[[int], float]],
    seeds: int | Sequence[int] = 5,
    *,
    quantity: str = "accuracy",
) -> Seeds:
    """Do the same with several seeds, every way with each of them.

    Interrupting it keeps the seeds that every way has finished.

    Args:
        ways: by name, a function from a seed to a number of which more is better.
        seeds: how many, or which.
        quantity: what the numbers are, such as "accuracy".

    Raises:
        ValueError: no ways, or no seeds.

    >>> found = over_seeds({"plain": lambda seed: 0.5, "better": lambda seed: 0.6 + seed / 100}, 3)
    >>> found.difference("better", "plain").verdict
    'better'
    """
    chosen = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    if not ways or not chosen:
        raise ValueError(f"{len(ways)} ways and {len(chosen)} seeds: give at least one of each")
    rows: list[tuple[float, ...]] = []
    try:
        # A row is added when all of it is there.
        rows.extend(tuple(float(way(seed)) for way in ways.values()) for seed in chosen)
    except KeyboardInterrupt:
        print(f"stopped after {len(rows)} of {len(chosen)} seeds; they are kept")
    return Seeds(
        {name: tuple(row[i] for row in rows) for i, name in enumerate(ways)},
        chosen[: len(rows)],
        quantity,
    )
