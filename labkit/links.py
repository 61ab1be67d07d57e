"""What it costs to send bytes: a link, and the collectives on top of it.

The alpha-beta model: a message of n bytes takes ``latency_s + n / bytes_per_s`` (Hockney, "The
communication challenge for MPP: Intel Paragon and Meiko CS-2", 1994). Collectives of p ranks are
made of such messages (Thakur, Rabenseifner and Gropp, "Optimization of collective communication
operations in MPICH", 2005; Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for
clusters of workstations", 2009), in one of two ways that send the same bytes: a "ring" has p - 1
latencies once around, recursive "halving" (and doubling) log2 p. What the additions of a reduction
cost is not counted apart: a link fitted to measured all-reduces has them in its bandwidth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from labkit.units import format_rate, format_share, format_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from matplotlib.figure import Figure

Algorithm = Literal["ring", "halving"]
# How many latencies one rank spends, and how many times all the bytes, once around p ranks.
_AROUND: dict[str, Callable[[int], float]] = {
    "ring": lambda p: p - 1,
    "halving": lambda p: math.ceil(math.log2(p)),
}
# How often a collective goes around.
_TIMES = {"reduce_scatter": 1, "all_gather": 1, "all_reduce": 2}
_COLLECTIVES = ("send", *_TIMES)


@dataclass(frozen=True)
class Link:
    """A way for bytes from one rank to another, in one direction; all ranks send at once.

    Attributes:
        latency_s: of a message without bytes.
        bytes_per_s: in one direction.
        points: what it was fitted to: (bytes, seconds); empty for a link that was written down.
        fitted: the collective that was measured, and its number of ranks.

    Raises:
        ValueError: a negative latency, or no bandwidth.

    >>> link = Link(latency_s=10e-6, bytes_per_s=1e9)
    >>> link.send_s(1_000_000)
    0.00101
    >>> link.all_reduce_s(1_000_000, ranks=2) == 2 * 10e-6 + 1_000_000 / 1e9
    True
    """

    latency_s: float
    bytes_per_s: float
    points: tuple[tuple[float, float], ...] = field(default=(), repr=False, compare=False)
    fitted: tuple[str, int] = field(default=("send", 2), repr=False, compare=False)

    def __post_init__(self) -> None:
        if not (self.latency_s >= 0 and math.isfinite(self.latency_s)):
            raise ValueError(f"latency_s={self.latency_s}: give seconds, 0 or more")
        if not self.bytes_per_s > 0:
            raise ValueError(f"bytes_per_s={self.bytes_per_s}: give bytes per second, above 0")

    @classmethod
    def fit(
        cls,
        points: Iterable[tuple[float, float]],
        *,
        collective: str = "all_reduce",
        ranks: int = 2,
    ) -> Link:
        """The link whose predictions are nearest to measured times.

        Each size counts once, with the lower quartile of its times: other programs only ever
        add time, on a busy machine to more than half of the samples. The line through them has
        the smallest sum of squared relative errors, (predicted / measured - 1)²: small and large
        sizes count alike, and one that was slow all the time counts little.

        A real link is no straight line: small tensors stay in caches, and algorithms change. So
        fit to sizes like those that will be sent, and look at what is left unexplained.

        Args:
            points: (bytes, seconds) of the same collective, of two sizes at least. The bytes
                are those of the whole tensor.
            collective: "all_reduce", "reduce_scatter", "all_gather" or "send".
            ranks: that took part.

        Raises:
            ValueError: an unknown collective, a number that is no time or size, fewer than two
                sizes, or times that do not grow with the bytes.

        >>> def measured(n):
        ...     return 40e-6 + n / 2e9  # two latencies of 20 us, and 2 GB/s
        >>> link = Link.fit((n, measured(n)) for n in (1e3, 1e5, 1e7))
        >>> print(link)
        latency 20.0 µs, 2 GB/s; half of the points within 0 %, nine in ten within 0 %
        """
        if collective not in _COLLECTIVES:
            raise ValueError(f"collective={collective!r}: give one of {', '.join(_COLLECTIVES)}")
        check_ranks(ranks, least=2)
        kept = tuple((float(n), float(t)) for n, t in points)
        for n, t in kept:
            if not (0 < n < math.inf and 0 < t < math.inf):
                raise ValueError(f"({n:g} bytes, {t:g} s): give bytes and seconds above 0")
        times = {size: _lower_quartile([t for n, t in kept if n == size]) for size, _ in kept}
        if len(times) < 2:
            raise ValueError(f"{len(times)} sizes: a latency and a bandwidth need at least two")
        start, slope = _line(times)
        if slope <= 0:
            raise ValueError(
                "the times do not grow with the bytes, so that they say nothing about the "
                f"bandwidth: measure larger messages than {max(times):g} bytes"
            )
        latencies, share = _counts(collective, ranks, "ring")
        return cls(start / latencies, share / slope, kept, (collective, ranks))

    @property
    def errors(self) -> tuple[float, ...]:
        """How far each measured time is from the predicted one, as a share of the latter."""
        collective, ranks = self.fitted
        return tuple(t / self.collective_s(collective, n, ranks) - 1 for n, t in self.points)

    def within(self, share: float) -> float:
        """The distance, as a share of the prediction, within which this share of the points lies.

        What the fit leaves unexplained: noise, and whatever is not a latency and a bandwidth.

        Args:
            share: of the points, such as 0.5 or 0.9.

        Raises:
            ValueError: a link that was not fitted, or a share out of its range.
        """
        if not self.points:
            raise ValueError("this link was written down, not fitted: use Link.fit(points)")
        if not 0 < share <= 1:
            raise ValueError(f"share={share}: give a share above 0, at most 1")
        ordered = sorted(abs(e) for e in self.errors)
        return ordered[math.ceil(share * len(ordered)) - 1]

    def send_s(self, n: float) -> float:
        """One message of n bytes from one rank to another (Hockney 1994).

        >>> Link(1e-6, 1e9).send_s(1000)
        2e-06
        """
        return self.collective_s("send", n, 2)

    def reduce_scatter_s(self, n: float, ranks: int, algorithm: Algorithm = "ring") -> float:
        """Sums of n bytes, of which each rank gets its part: (p-1)/p times the bytes.

        >>> Link(0, 1e9).reduce_scatter_s(1e9, ranks=4)
        0.75
        """
        return self.collective_s("reduce_scatter", n, ranks, algorithm)

    def all_gather_s(self, n: float, ranks: int, algorithm: Algorithm = "ring") -> float:
        """Every rank's part of n bytes to all of them: (p-1)/p times the bytes.

        >>> Link(0, 1e9).all_gather_s(1e9, ranks=4)
        0.75
        """
        return self.collective_s("all_gather", n, ranks, algorithm)

    def all_reduce_s(self, n: float, ranks: int, algorithm: Algorithm = "ring") -> float:
        """Sums of n bytes to all ranks: 2 (p-1)/p times the bytes.

        A ring has 2 (p-1) latencies (Patarasuk and Yuan 2009; no algorithm sends fewer bytes),
        recursive halving and doubling 2 log2 p (Rabenseifner's, in Thakur et al. 2005).

        >>> Link(0, 1e9).all_reduce_s(1e9, ranks=1024)
        1.998046875
        >>> link = Link(1e-5, 1e9)
        >>> link.all_reduce_s(0, 1024), link.all_reduce_s(0, 1024, "halving")
        (0.0204..., 0.0002)
        """
        return self.collective_s("all_reduce", n, ranks, algorithm)

    def broadcast_s(self, n: float, ranks: int) -> float:
        """One rank's n bytes to all: the better of two ways (Thakur et al. 2005).

        A binomial tree for short messages, a scatter and a ring for long ones.

        >>> link = Link(0, 1e9)
        >>> link.broadcast_s(1e9, ranks=2), link.broadcast_s(1e9, ranks=8)
        (1.0, 1.75)
        """
        check_ranks(ranks)
        rounds = math.ceil(math.log2(ranks))
        tree = rounds * self.send_s(n)
        whole = 2 * (ranks - 1) / ranks * n / self.bytes_per_s
        return min(tree, (rounds + ranks - 1) * self.latency_s + whole)

    def collective_s(
        self, collective: str, n: float, ranks: int, algorithm: Algorithm = "ring"
    ) -> float:
        """One of "send", "reduce_scatter", "all_gather" and "all_reduce", by its name.

        Args:
            collective: its name.
            n: bytes of the whole tensor.
            ranks: that take part.
            algorithm: "ring" or "halving".

        Raises:
            ValueError: a negative size, no ranks, or an unknown algorithm.
        """
        check_ranks(ranks)
        if not n >= 0:
            raise ValueError(f"{n} bytes: give 0 or more")
        if algorithm not in _AROUND:
            raise ValueError(f"algorithm={algorithm!r}: give one of {', '.join(_AROUND)}")
        if ranks == 1:
            return 0.0
        latencies, share = _counts(collective, ranks, algorithm)
        return latencies * self.latency_s + share * n / self.bytes_per_s

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What a prediction over this link takes for granted."""
        kind = "given"
        if self.points:
            collective, ranks = self.fitted
            kind = f"fitted to {collective.replace('_', '-')} of {ranks} ranks"
        return (
            (
                f"every link {kind}: latency {format_time(self.latency_s)}, "
                f"{format_rate(self.bytes_per_s, 'B/s')} in each direction, all at once; rings"
            ),
        )

    def __str__(self) -> str:
        text = f"latency {format_time(self.latency_s)}, {format_rate(self.bytes_per_s, 'B/s')}"
        if not self.points:
            return text
        # What is below a thousandth of a percent is the arithmetic's, not the link's.
        half, most = (format_share(round(self.within(share), 5)) for share in (0.5, 0.9))
        return f"{text}; half of the points within {half}, nine in ten within {most}"

    def plot(self) -> Figure:
        """The measured points and the fitted line.

        Raises:
            ValueError: it was not fitted.
        """
        from labkit import scaling_plots

        return scaling_plots.link_figure(self)


@dataclass(frozen=True)
class Network:
    """Ranks in nodes: a fast link inside a node, a slower one from node to node for each rank.

    A collective over several nodes has three parts: a reduce-scatter inside each node, an
    all-reduce of each rank's part between the nodes, an all-gather inside each node.

    Attributes:
        inside: between ranks of a node.
        between: of each rank, to other nodes.
        node_size: ranks in a node.
        algorithm: between nodes; inside them it is a ring. NCCL takes trees where a ring is too
            long, with as few latencies as "halving".

    >>> network = Network(Link(0, 8e9), Link(0, 1e9), node_size=8)
    >>> network.all_reduce_s(8e9, ranks=8) == network.inside.all_reduce_s(8e9, ranks=8)
    True
    >>> network.all_reduce_s(8e9, ranks=16)  # 0.875 s + 1 s + 0.875 s
    2.75
    """

    inside: Link
    between: Link
    node_size: int = 8
    algorithm: Algorithm = "halving"

    def __post_init__(self) -> None:
        check_ranks(self.node_size)
        self.between.collective_s("all_reduce", 0, 2, self.algorithm)

    def reduce_scatter_s(self, n: float, ranks: int, per_node: int | None = None) -> float:
        """Sums of n bytes, of which each rank gets its part.

        Args:
            n: bytes of the whole.
            ranks: that take part.
            per_node: how many of them are in one node; None: as many as a node has.
        """
        check_ranks(ranks)
        near = min(ranks, per_node or self.node_size)
        far = math.ceil(ranks / near)
        inside_s = self.inside.reduce_scatter_s(n, near)
        return inside_s + self.between.reduce_scatter_s(n / near, far, self.algorithm)

    def all_gather_s(self, n: float, ranks: int, per_node: int | None = None) -> float:
        """Every rank's part of n bytes to all: the reduce-scatter backwards, as long."""
        return self.reduce_scatter_s(n, ranks, per_node)

    def all_reduce_s(self, n: float, ranks: int, per_node: int | None = None) -> float:
        """Sums of n bytes to all ranks: a reduce-scatter and an all-gather."""
        return 2 * self.reduce_scatter_s(n, ranks, per_node)

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What a prediction over this network takes for granted."""
        inside, between = (
            f"{format_rate(link.bytes_per_s, 'B/s')} and {format_time(link.latency_s)}"
            for link in (self.inside, self.between)
        )
        words = {"ring": "rings", "halving": "recursive halving"}[self.algorithm]
        return (
            (
                f"nodes of {self.node_size}: {inside} inside, {between} between, for each rank and "
                f"direction, all at once; rings inside, {words} between; no congestion"
            ),
        )


def check_ranks(ranks: int, least: int = 1) -> None:
    """Refuse what is no number of ranks."""
    if type(ranks) is not int or ranks < least:
        raise ValueError(f"{ranks!r} ranks: give a whole number, {least} or more")


def _counts(collective: str, ranks: int, algorithm: str) -> tuple[float, float]:
    """How many latencies one rank spends, and how many times all the bytes."""
    if collective == "send":
        return 1, 1
    times = _TIMES[collective]
    return times * _AROUND[algorithm](ranks), times * (ranks - 1) / ranks


def _lower_quartile(times: list[float]) -> float:
    return sorted(times)[(len(times) - 1) // 4]


def _line(times: dict[float, float]) -> tuple[float, float]:
    """Start (0 or more) and slope with the smallest sum of squared relative errors."""
    weights = {n: t**-2 for n, t in times.items()}
    total = math.fsum(weights.values())
    middle_n = math.fsum(w * n for n, w in weights.items()) / total
    middle_t = math.fsum(weights[n] * t for n, t in times.items()) / total
    spread = math.fsum(w * (n - middle_n) ** 2 for n, w in weights.items())
    slope = math.fsum(weights[n] * (n - middle_n) * (t - middle_t) for n, t in times.items())
    slope /= spread
    if middle_t >= slope * middle_n:
        return middle_t - slope * middle_n, slope
    # The best line with a start that is not negative begins at 0.
    squares = math.fsum(w * n**2 for n, w in weights.items())
    return 0.0, math.fsum(weights[n] * n * t for n, t in times.items()) / squares
