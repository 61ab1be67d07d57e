"""Which mix of data, tensor and pipeline parallel fits a training, and is fastest; on paper."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from labkit.assumptions import as_lines, html, seconds
from labkit.gpus import H100
from labkit.language_models import (
    Memory,
    Recompute,
    check_count,
    gigabytes,
    training_memory,
)
from labkit.tables import text_table
from labkit.training_steps import Prediction, Split, predict
from labkit.units import format_count, format_rate, format_share

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd
    from matplotlib.figure import Figure

    from labkit.gpus import Gpu
    from labkit.language_models import LanguageModel


@dataclass(frozen=True, repr=False)
class Plan:
    """All ways to lay out a training: those that fit, best first, and why others do not.

    Attributes:
        model, gpu, gpus: what was planned.
        batch: sequences of a step.
        fitting: predictions, the shortest step first; one for each split, with the
            micro-batch, the recomputation and the ZeRO stage that are fastest.
        rejected: split, reason, and the prediction that needs the least memory, where the
            memory is the reason.
        overlap: see `predict`.
    """

    model: LanguageModel
    gpu: Gpu
    gpus: int
    batch: int
    fitting: tuple[Prediction, ...]
    rejected: tuple[tuple[Split, str, Prediction | None], ...]
    overlap: float

    def __repr__(self) -> str:
        return f"Plan({self.title})"

    @property
    def title(self) -> str:
        """What was planned, in one line."""
        name = self.model.name or f"{format_count(self.model.parameters)} parameters"
        return f"{name} on {self.gpus} x {self.gpu.name}"

    @property
    def best(self) -> Prediction:
        """The one with the shortest step.

        Raises:
            ValueError: none fits.
        """
        if not self.fitting:
            least = [p.memory.total for _, _, p in self.rejected if p is not None]
            short = f"; the least that one needs is {gigabytes(min(least))}" if least else ""
            raise ValueError(
                f"{self.title}: no split fits into {gigabytes(self.gpu.limit_bytes)}{short}. "
                "Give more GPUs, GPUs with more memory, zero=(3,) or recompute=('full',)"
            )
        return self.fitting[0]

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What the predictions take for granted."""
        tokens = format_count(self.batch * self.model.sequence)
        return (
            (
                f"a step has {self.batch} sequences of {self.model.sequence}: {tokens} tokens; "
                "Adam in mixed precision, 16 bytes a parameter"
            ),
            *self.gpu.assumptions,
            (
                f"gradients travel behind {format_share(self.overlap)} of the last backward pass; "
                "1F1B; FLOPs that are recomputed do not count as useful (MFU)"
            ),
        )

    def _table(self, most: int) -> tuple[list[str], list[list[str]]]:
        head = ["split", "details", "step", "MFU", "bubble", "memory", "fits"]
        rows = [
            [
                str(found.split),
                found.split.details,
                seconds(found.step_s),
                format_share(round(found.mfu, 3)),
                format_share(round(found.times_s["bubble"] / found.step_s, 3)),
                gigabytes(found.memory.total),
                "yes",
            ]
            for found in self.fitting[:most]
        ]
        needs_more = [(found, reason) for _, reason, found in self._told if found is not None]
        rows += [
            [str(p.split), p.split.details, "", "", "", gigabytes(p.memory.total), f"no: {reason}"]
            for p, reason in needs_more[:most]
        ]
        # What cannot be whatever the memory: a row for each reason.
        same = Counter(reason for _, reason, found in self.rejected if found is None)
        for reason, number in same.most_common(most):
            split = next(split for split, why, _ in self.rejected if why == reason)
            more = f" and {number - 1} more" if number > 1 else ""
            rows.append([f"{split}{more}", "", "", "", "", "", f"no: {reason}"])
        return head, rows

    @property
    def _told(self) -> list[tuple[Split, str, Prediction | None]]:
        """The most telling first: what needs a little too much memory, then what cannot be."""
        return sorted(self.rejected, key=lambda r: r[2].memory.total if r[2] else math.inf)

    def _left_out(self, most: int) -> tuple[str, ...]:
        fit, not_fit = len(self.fitting), len(self.rejected)
        return (
            f"{fit + not_fit} splits: {fit} fit, {not_fit} do not; at most {most} rows of a kind",
        )

    def text(self, most: int = 5) -> str:
        """The table with at most this many rows of each kind, and the assumptions."""
        lines = [text_table(*self._table(most)), *self._left_out(most)]
        return "\n".join([self.title, *lines, *as_lines(self.assumptions)])

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        caption = f"Predicted: {self.title}"
        return html(*self._table(5), caption, self.assumptions, self._left_out(5))

    def to_frame(self) -> pd.DataFrame:
        """All splits, those that fit first."""
        import pandas as pd

        def row(split: Split, found: Prediction | None, reason: str) -> dict[str, Any]:
            cells: dict[str, Any] = {name: getattr(split, name) for name in _SPLIT}
            if found is not None:
                cells |= {"step_s": found.step_s, "mfu": found.mfu}
                cells |= {"memory_bytes": found.memory.total}
                cells |= {f"{name}_s": seconds for name, seconds in found.times_s.items()}
            return {**cells, "fits": not reason, "reason": reason}

        return pd.DataFrame(
            [
                *(row(found.split, found, "") for found in self.fitting),
                *(row(split, found, reason) for split, reason, found in self._told),
            ]
        )

    def plot(self, most: int = 8) -> Figure:
        """Memory and step time of the best splits, and of some that need too much memory."""
        from labkit import scaling_plots

        return scaling_plots.plan_figure(self, most)


_SPLIT = ("data", "tensor", "pipeline", "microbatch", "recompute", "zero")


def plan(
    model: LanguageModel,
    gpu: Gpu,
    gpus: int,
    *,
    batch: int | None = None,
    microbatches: Iterable[int] = (1, 2, 4, 8),
    recompute: Iterable[Recompute] = ("selective", "full"),
    zero: Iterable[int] = (1, 3),
    interleave: int = 1,
    overlap: float = 0.5,
) -> Plan:
    """Try every split of a training into data, tensor and pipeline parallel ranks.

    Args:
        model: its shape.
        gpu: and what connects it.
        gpus: how many.
        batch: sequences of a step; None: as many as have 4 Mi tokens (Llama 2 was trained with
            4 M), and a power of two.
        microbatches: sizes of micro-batches to try.
        recompute: ways to recompute to try.
        zero: stages of ZeRO to try; 3 is what FSDP does.
        interleave: parts of the model on each rank of a pipeline.
        overlap: see `predict`.

    Raises:
        ValueError: a number out of its range, or nothing to try.

    >>> from labkit.scaling import H100, LLAMA2_7B, LLAMA2_70B
    >>> found = plan(LLAMA2_7B, H100, 64)
    >>> print(found.best.split, found.best.split.zero)
    data 64, tensor 1, pipeline 1 1
    >>> plan(LLAMA2_70B, H100, 8).fitting
    ()
    """
    check_count("gpus", gpus)
    if batch is None:
        batch = 2 ** max(0, round(math.log2(2**22 / model.sequence)))
    check_count("batch", batch)
    check_count("interleave", interleave)
    # Plainer ways first: where two are equally fast, the first is taken.
    ways = [
        Split(microbatch=b, recompute=r, zero=z)
        for b, r, z in product(microbatches, recompute, zero)
    ]
    if not ways:
        raise ValueError("microbatches, recompute, zero: give at least one of each")
    fitting: list[Prediction] = []
    rejected: list[tuple[Split, str, Prediction | None]] = []
    for tensor in _divisors(gpus):
        for pipeline in _divisors(gpus // tensor):
            data = gpus // (tensor * pipeline)
            parts = interleave if pipeline > 1 else 1
            splits = [
                replace(way, data=data, tensor=tensor, pipeline=pipeline, interleave=parts)
                for way in ways
            ]
            reason = _impossible(model, gpu, splits[0], batch)
            even = [s for s in splits if batch % (s.data * s.microbatch) == 0 and not reason]
            found = [predict(model, gpu, split, batch, overlap=overlap) for split in even]
            fine = [each for each in found if each.fits]
            if fine:
                fitting.append(min(fine, key=lambda each: each.step_s))
            elif found:
                least = min(found, key=lambda each: each.memory.total)
                reason = f"more than {gigabytes(gpu.limit_bytes)}: {least.memory.by_parts}"
                rejected.append((least.split, reason, least))
            else:
                sizes = ", ".join(str(n) for n in dict.fromkeys(way.microbatch for way in ways))
                uneven = f"its sequences a rank are no multiple of a micro-batch ({sizes})"
                rejected.append((splits[0], reason or uneven, None))
    fitting.sort(key=lambda each: each.step_s)
    return Plan(model, gpu, gpus, batch, tuple(fitting), tuple(rejected), overlap)


def _impossible(model: LanguageModel, gpu: Gpu, split: Split, batch: int) -> str:
    """Why a split cannot be, whatever the memory; empty if it can."""
    if split.tensor > gpu.node_size:
        return f"tensor parallel beyond the {gpu.node_size} GPUs of a node"
    if model.heads % split.tensor:
        return f"its tensor-parallel ranks do not divide {model.heads} heads"
    if model.layers % (split.pipeline * split.interleave):
        parts = f" of {split.interleave} parts" if split.interleave > 1 else ""
        return f"its stages{parts} do not divide {model.layers} layers"
    if batch % split.data:
        return f"its data-parallel ranks do not divide {batch} sequences"
    return ""


def _divisors(number: int) -> list[int]:
    return [each for each in range(1, number + 1) if number % each == 0]


@dataclass(frozen=True, repr=False)
class Needs:
    """What training a language model takes, before it is laid out.

    Attributes:
        model, gpu: what and on what.
        tokens: to train on.
        mfu: share of the GPUs' peak that is assumed.
    """

    model: LanguageModel
    gpu: Gpu
    tokens: float
    mfu: float

    @property
    def flops(self) -> float:
        """Of the whole training."""
        return self.model.flops_per_token * self.tokens

    @property
    def gpu_s(self) -> float:
        """Seconds of one GPU."""
        return self.flops / (self.gpu.flops_per_s * self.mfu)

    @property
    def memory(self) -> Memory:
        """Of weights, gradients and optimizer, on one GPU."""
        return training_memory(self.model.parameters)

    @property
    def least_gpus(self) -> int:
        """GPUs that hold weights, gradients and optimizer between them, without activations."""
        return math.ceil(self.memory.total / self.gpu.limit_bytes)

    def days(self, gpus: int) -> float:
        """Days on so many GPUs.

        Raises:
            ValueError: no GPUs.
        """
        check_count("gpus", gpus)
        return self.gpu_s / gpus / 86_400

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What the numbers take for granted."""
        gpu = self.gpu
        return (
            (
                f"MFU {format_share(self.mfu)} of {format_rate(gpu.flops_per_s, 'FLOP/s')} "
                f"({gpu.name}), on any number of GPUs; no pauses, no failures"
            ),
            (
                "Adam in mixed precision, 16 bytes a parameter, activations not counted; "
                f"{format_share(gpu.memory_share)} of {gigabytes(gpu.memory_bytes)} for tensors"
            ),
        )

    def __repr__(self) -> str:
        return f"Needs({self.model.name or self.model.parameters})"

    def _table(self) -> tuple[list[str], list[list[str]]]:
        model = self.model
        days = [f"{self.days(n):.3g} days on {n}" for n in (64, 1024)]
        per_token = format_rate(model.flops_per_token, "FLOP")
        rows = [
            ["parameters", format_count(model.parameters)],
            ["tokens", f"{format_count(self.tokens)}, {self.tokens / model.parameters:.3g} each"],
            ["training one token", f"{per_token}; 6 N: {6 * model.parameters / 1e9:.3g} G"],
            ["training", f"{self.flops:.3g} FLOP"],
            ["time", ", ".join(days)],
            ["weights, gradients, optimizer", str(self.memory)],
            ["GPUs that hold them", f"{self.least_gpus} at least"],
        ]
        return ["what", "how much"], rows

    def __str__(self) -> str:
        return "\n".join([text_table(*self._table()), *as_lines(self.assumptions)])

    def _repr_html_(self) -> str:
        return html(*self._table(), f"Predicted: {self.model}", self.assumptions)


def needs(
    model: LanguageModel, gpu: Gpu = H100, *, tokens: float | None = None, mfu: float = 0.4
) -> Needs:
    """What training a language model takes: FLOPs, time, bytes.

    Args:
        model: its shape.
        gpu: on what.
        tokens: to train on; None: 20 for each parameter.
        mfu: share of the peak; Llama 3 405B reached 0.38 to 0.43 (Grattafiori et al. 2024).

    Raises:
        ValueError: tokens or a share out of their range.

    >>> from labkit.scaling import LLAMA2_7B
    >>> found = needs(LLAMA2_7B)
    >>> round(found.days(64), 1), found.least_gpus
    (2.8, 2)
    """
    if not 0 < mfu <= 1:
        raise ValueError(f"mfu={mfu}: give a share above 0, at most 1")
    if tokens is not None and not tokens > 0:
        raise ValueError(f"tokens={tokens}: give a number above 0")
    return Needs(model, gpu, model.tokens if tokens is None else tokens, mfu)
