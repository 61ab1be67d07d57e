"""The bubble of a pipeline: measured against what its formula says."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labkit.units import format_share

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure

    from labkit.results import Comparison


@dataclass(frozen=True, repr=False)
class Bubble:
    """The share of their time that the stages of a pipeline wait, by number of micro-batches.

    Attributes:
        stages: how many.
        idle: for each number of micro-batches: the lower end of the interval, the estimate, and
            the upper end; 1 less the speed-up over one process, divided by the stages. Below 0
            the pipeline gained more than a process for each stage can explain.

    >>> found = Bubble(2, {1: (0.48, 0.5, 0.53), 8: (0.1, 0.15, 0.2)})
    >>> print(found)
    2 stages wait, with 1 micro-batch: 50 % [48 %, 53 %], the formula says 50 %
    2 stages wait, with 8 micro-batches: 15 % [10 %, 20 %], the formula says 11.1 %
    """

    stages: int
    idle: Mapping[int, tuple[float, float, float]]

    def formula(self, micro_batches: int) -> float:
        """(p - 1) / (m + p - 1) (Huang et al., "GPipe", 2019, section 2.3)."""
        return (self.stages - 1) / (micro_batches + self.stages - 1)

    def plot(self) -> Figure:
        """Measured points with their intervals, and the formula."""
        from labkit.figures import COLOURS, GRID, new_figure, style

        words = str(self).replace("\n", "; ")
        figure = new_figure(6.4, 3.4, f"Idle share by micro-batches: {words}.")
        axes = figure.add_subplot()
        counts = range(1, max(self.idle) + 1)
        colour, marker, _ = style(1)
        axes.plot(
            counts,
            [self.formula(m) for m in counts],
            linestyle="--",
            color=COLOURS[0],
            label="(p - 1) / (m + p - 1)",
        )
        middle = [estimate for _, estimate, _ in self.idle.values()]
        # With few rounds an end of the interval is not known yet: the bar then leaves the picture.
        ends = [
            [min(2.0, estimate - low) for low, estimate, _ in self.idle.values()],
            [min(2.0, high - estimate) for _, estimate, high in self.idle.values()],
        ]
        axes.errorbar(
            list(self.idle), middle, ends, color=colour, marker=marker, linestyle="", capsize=4,
            label="measured",
        )  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set_xticks(list(self.idle), [str(m) for m in self.idle])
        axes.set_xlim(0.88, 1.14 * max(self.idle))
        axes.minorticks_off()
        axes.set_xlabel("micro-batches in a step")
        axes.set_ylabel(f"idle share of {self.stages} stages")
        axes.yaxis.set_major_formatter(lambda share, _: format_share(share))
        axes.set_ylim(min(-0.05, *(estimate - 0.1 for estimate in middle)), 1)
        axes.grid(**GRID)
        axes.legend(frameon=False)
        return figure

    def __str__(self) -> str:
        lines = []
        for m, (low, estimate, high) in self.idle.items():
            batches = "micro-batch" if m == 1 else "micro-batches"
            known = math.isfinite(low) and high < 1
            between = f"[{format_share(low)}, {format_share(high)}]" if known else "[not yet known]"
            lines.append(
                f"{self.stages} stages wait, with {m} {batches}: {format_share(estimate)} "
                f"{between}, the formula says {format_share(self.formula(m))}"
            )
        return "\n".join(lines)

    __repr__ = __str__


def measured_bubble(
    comparison: Comparison, micro_batches: Mapping[str, int], *, stages: int
) -> Bubble:
    """What a comparison of one process with pipelines says of their bubbles.

    Args:
        comparison: its baseline is one process that does the same.
        micro_batches: for the name of each pipeline, into how many its batch is cut.
        stages: of the pipelines, all as long as each other.

    Raises:
        KeyError: there is no variant of such a name.
        ValueError: none of them has a result, or there are fewer than two stages.
    """
    if stages < 2:
        raise ValueError(f"stages={stages}: a pipeline has at least 2")
    ratios = {m: comparison[name] for name, m in micro_batches.items()}
    idle = {
        m: (1 - r.high / stages, 1 - r.speedup / stages, 1 - r.low / stages)
        for m, r in sorted(ratios.items())
        if r.rounds
    }
    if not idle:
        raise ValueError(f"none of {list(micro_batches)} was measured")
    return Bubble(stages, idle)
