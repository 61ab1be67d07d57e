"""Many machines on paper: how long a training step takes on p ranks, and whether it fits.

Predictions, not measurements. Every table and figure has its assumptions beside it, and every
assumption is an argument or a field that can be changed: `dataclasses.replace(H100,
network_bytes_per_s=25e9)`. What is left out, everywhere: stragglers, congestion, failures,
reading data, and that thin slices of a matrix are multiplied less well.

Here is data parallel training of any model. What the rest of this module's names do stands
where they are defined: `labkit.links` (what sending costs), `labkit.gpus`,
`labkit.language_models` (what a model needs), `labkit.training_steps` (one step of it on many
GPUs), `labkit.planning` (which mix of data, tensor and pipeline parallel fits).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labkit.assumptions import as_lines, check_overlap, html, overlap_words
from labkit.gpus import A100, H100, H200, Gpu
from labkit.language_models import (
    GPT3_175B,
    LLAMA2_7B,
    LLAMA2_70B,
    LLAMA3_405B,
    LanguageModel,
    Memory,
    check_count,
    gigabytes,
    training_memory,
)
from labkit.links import Link, Network
from labkit.planning import Needs, Plan, needs, plan
from labkit.tables import text_table
from labkit.training_steps import (
    BACKWARD_SHARE,
    Prediction,
    Split,
    bubble_share,
    predict,
    tensor_parallel_s,
)
from labkit.units import format_share, format_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.figure import Figure

__all__ = [
    "A100",
    "GPT3_175B",
    "H100",
    "H200",
    "LLAMA2_7B",
    "LLAMA2_70B",
    "LLAMA3_405B",
    "DataParallelStep",
    "Gpu",
    "LanguageModel",
    "Link",
    "Memory",
    "Needs",
    "Network",
    "Plan",
    "Prediction",
    "Split",
    "WeakScaling",
    "bubble_share",
    "data_parallel",
    "needs",
    "plan",
    "predict",
    "tensor_parallel_s",
    "training_memory",
    "weak_scaling",
]

POWERS = tuple(2**i for i in range(11))
# What torch.nn.parallel.DistributedDataParallel takes by default (bucket_cap_mb=25).
BUCKET_BYTES = 25 * 2**20


@dataclass(frozen=True)
class DataParallelStep:
    """One predicted training step of several ranks with a batch each.

    Attributes:
        ranks: that train together.
        compute_s: what one rank alone needs for its batch.
        communication_s: for the sum of all gradients.
        exposed_s: the part of it that is not hidden behind the backward pass.
    """

    ranks: int
    compute_s: float
    communication_s: float
    exposed_s: float

    @property
    def step_s(self) -> float:
        """From step to step."""
        return self.compute_s + self.exposed_s

    @property
    def efficiency(self) -> float:
        """Share of the step that is not waiting."""
        return self.compute_s / self.step_s

    @property
    def speedup(self) -> float:
        """Throughput over that of one rank."""
        return self.ranks * self.efficiency


def data_parallel(
    compute_s: float,
    gradient_bytes: float,
    network: Link | Network,
    ranks: int,
    *,
    overlap: float = 0.0,
    accumulate: int = 1,
    bucket_bytes: float = BUCKET_BYTES,
) -> DataParallelStep:
    """Predict a step of data parallel training: compute, then what is left of the all-reduce.

    Gradients travel in buckets, each as soon as the backward pass has filled it (Li et al.,
    "PyTorch distributed: experiences on accelerating data parallel training", 2020). The last
    bucket is full when the backward pass ends, so it is never hidden.

    Args:
        compute_s: forward and backward pass of one rank alone, for one (micro-)batch.
        gradient_bytes: of all gradients.
        network: between the ranks.
        ranks: that train together.
        overlap: share of the backward pass behind which buckets can travel: 0 none, 1 all of it.
        accumulate: micro-batches between two all-reduces.
        bucket_bytes: of a bucket.

    Raises:
        ValueError: a number out of its range.

    >>> link = Link(latency_s=0, bytes_per_s=1e9)
    >>> step = data_parallel(0.1, 100e6, link, ranks=2)
    >>> step.step_s, round(step.efficiency, 3)
    (0.2, 0.5)
    >>> hidden = data_parallel(0.3, 100e6, link, ranks=2, overlap=1, bucket_bytes=25e6)
    >>> round(hidden.exposed_s, 3)  # the last of 4 buckets
    0.025
    >>> round(data_parallel(0.1, 100e6, link, ranks=2, accumulate=4).efficiency, 3)
    0.8
    """
    for word, value in (("compute_s", compute_s), ("bucket_bytes", bucket_bytes)):
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{word}={value}: give a number above 0")
    check_overlap(overlap)
    check_count("accumulate", accumulate)
    buckets = max(1, math.ceil(gradient_bytes / bucket_bytes))
    bucket_s = network.all_reduce_s(gradient_bytes / buckets, ranks)
    hidden_s = min((buckets - 1) * bucket_s, overlap * BACKWARD_SHARE * compute_s)
    all_s = buckets * bucket_s
    return DataParallelStep(ranks, accumulate * compute_s, all_s, all_s - hidden_s)


@dataclass(frozen=True, repr=False)
class WeakScaling:
    """Predicted steps against the number of ranks, with the same batch on each.

    Attributes:
        steps: by overlap, one for each number of ranks.
        assumptions: in sentences.
        title: of the table and the figure.
    """

    steps: dict[float, tuple[DataParallelStep, ...]]
    assumptions: tuple[str, ...]
    title: str = ""

    def __repr__(self) -> str:
        return f"WeakScaling({self.title or 'data parallel'})"

    def _table(self) -> tuple[list[str], list[list[str]]]:
        head = ["ranks"]
        for overlap in self.steps:
            hidden = overlap_words(overlap)
            head += [f"step, {hidden}", f"efficiency, {hidden}"]
        rows = []
        for row in zip(*self.steps.values(), strict=True):
            cells = [(format_time(step.step_s), format_share(step.efficiency)) for step in row]
            rows.append([str(row[0].ranks), *(cell for pair in cells for cell in pair)])
        return head, rows

    def __str__(self) -> str:
        return "\n".join([text_table(*self._table()), *as_lines(self.assumptions)])

    def _repr_html_(self) -> str:
        title = f"Predicted: {self.title or 'data parallel training'}"
        return html(*self._table(), title, self.assumptions)

    def to_frame(self) -> pd.DataFrame:
        """One row for each overlap and number of ranks."""
        import pandas as pd

        return pd.DataFrame(
            {
                "overlap": overlap,
                "ranks": step.ranks,
                "step_s": step.step_s,
                "exposed_s": step.exposed_s,
                "efficiency": step.efficiency,
                "speedup": step.speedup,
            }
            for overlap, steps in self.steps.items()
            for step in steps
        )

    def plot(self) -> Figure:
        """Throughput and efficiency against the number of ranks, the assumptions beneath."""
        from labkit import scaling_plots

        return scaling_plots.weak_scaling_figure(self)


def weak_scaling(
    compute_s: float,
    gradient_bytes: float,
    network: Link | Network,
    *,
    ranks: Sequence[int] = POWERS,
    overlaps: Sequence[float] = (0.0, 1.0),
    accumulate: int = 1,
    bucket_bytes: float = BUCKET_BYTES,
    title: str = "",
) -> WeakScaling:
    """Predict data parallel training from 1 rank to many, with the same batch on each.

    Args:
        compute_s: forward and backward pass of one rank alone, for one (micro-)batch.
        gradient_bytes: of all gradients.
        network: between the ranks.
        ranks: numbers of ranks.
        overlaps: shares of the backward pass as in `data_parallel`; each becomes a line.
        accumulate: micro-batches between two all-reduces.
        bucket_bytes: of a bucket.
        title: what is trained.

    Raises:
        ValueError: a number out of its range, or no ranks or overlaps.

    >>> found = weak_scaling(0.1, 100e6, Link(0, 1e9), ranks=(1, 2, 1024), overlaps=(0,))
    >>> [round(step.efficiency, 3) for step in found.steps[0]]
    [1.0, 0.5, 0.334]
    """
    if not ranks or not overlaps:
        raise ValueError("ranks and overlaps: give at least one of each")
    steps = {
        overlap: tuple(
            data_parallel(
                *(compute_s, gradient_bytes, network, number),
                overlap=overlap,
                accumulate=accumulate,
                bucket_bytes=bucket_bytes,
            )
            for number in ranks
        )
        for overlap in overlaps
    }
    batches = f"{accumulate} micro-batches" if accumulate > 1 else "its batch"
    assumptions = (
        (
            f"a rank computes {batches} in {format_time(accumulate * compute_s)}, however many "
            "others there are; no rank is slower than another"
        ),
        f"{gigabytes(gradient_bytes)} of gradients in buckets of {gigabytes(bucket_bytes)}",
        *network.assumptions,
    )
    return WeakScaling(steps, assumptions, title)
