"""One training step of a language model on many GPUs, on paper: its time and its memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from labkit.assumptions import as_lines, check_overlap, html, seconds
from labkit.language_models import (
    Memory,
    Recompute,
    check_count,
    check_recompute,
    check_zero,
    gigabytes,
    training_memory,
)
from labkit.units import format_rate, format_share

if TYPE_CHECKING:
    from labkit.gpus import Gpu
    from labkit.language_models import LanguageModel
    from labkit.links import Link

# The backward pass has twice the FLOPs of the forward pass (Kaplan et al. 2020).
BACKWARD_SHARE = 2 / 3
# Activations and gradients travel as bfloat16.
_BYTES = 2
# Adam reads weight, gradient and two moments and writes all but the gradient, in 4 bytes; and
# reads a gradient and writes a weight of 2 bytes.
_OPTIMIZER_TRAFFIC = 12 + 12 + 2 * _BYTES


def bubble_share(stages: int, microbatches: int, interleave: int = 1) -> float:
    """Share of a step that a pipeline's stage waits: (p - 1) / (v m + p - 1).

    Sources: Huang et al., "GPipe", 2019; with v parts of the model on each rank, Narayanan et
    al. 2021, section 2.2 (who give it as a share of the ideal time: (p - 1) / (v m)).

    Args:
        stages: p.
        microbatches: m, in a step.
        interleave: v, parts of the model on each rank.

    Raises:
        ValueError: a number below 1.

    >>> bubble_share(4, 4), bubble_share(4, 61), bubble_share(4, 4, interleave=3)
    (0.428..., 0.046875, 0.2)
    """
    for word, number in (("stages", stages), ("microbatches", microbatches)):
        check_count(word, number)
    check_count("interleave", interleave)
    return (stages - 1) / (interleave * microbatches + stages - 1)


def tensor_parallel_s(
    model: LanguageModel,
    link: Link,
    tensor: int,
    *,
    microbatch: int = 1,
    recompute: Recompute = "none",
) -> float:
    """What one layer's tensor parallelism sends for a micro-batch, forward and backward.

    2 all-reduces of the layer's output forward and 2 backward (Shoeybi et al., "Megatron-LM",
    2019), and the first 2 again with full recomputation. With sequence parallelism each becomes
    a reduce-scatter and an all-gather: the same bytes (Korthikanti et al. 2022).

    Args:
        model: whose layer.
        link: between the ranks.
        tensor: how many ranks share the layer.
        microbatch: sequences.
        recompute: "none", "selective" or "full".

    Raises:
        ValueError: a number below 1, or an unknown way to recompute.

    >>> from labkit.scaling import LanguageModel, Link
    >>> model = LanguageModel(1, 1000, 10, 1000, 1000)
    >>> tensor_parallel_s(model, Link(0, 1e9), 2)  # 4 times 2 MB
    0.008
    """
    check_recompute(recompute)
    check_count("microbatch", microbatch)
    times = 6 if recompute == "full" else 4
    return times * link.all_reduce_s(
        _BYTES * microbatch * model.sequence * model.hidden, ranks=tensor
    )


@dataclass(frozen=True)
class Split:
    """How a model's training is laid out over GPUs.

    Attributes:
        data, tensor, pipeline: ranks in each direction; their product is the number of GPUs.
        microbatch: sequences of one micro-batch.
        recompute: activations: "none", "selective" or "full".
        zero: stage of ZeRO, 0 to 3.
        interleave: parts of the model on each rank of a pipeline.
        sequence_parallel: beside tensor parallelism.

    >>> print(Split(data=8, tensor=8, pipeline=2))
    data 8, tensor 8, pipeline 2
    """

    data: int = 1
    tensor: int = 1
    pipeline: int = 1
    microbatch: int = 1
    recompute: Recompute = "selective"
    zero: int = 1
    interleave: int = 1
    sequence_parallel: bool = True

    def __post_init__(self) -> None:
        for word in ("data", "tensor", "pipeline", "microbatch", "interleave"):
            check_count(word, getattr(self, word))
        check_recompute(self.recompute)
        check_zero(self.zero)

    @property
    def gpus(self) -> int:
        """How many it takes."""
        return self.data * self.tensor * self.pipeline

    def __str__(self) -> str:
        return f"data {self.data}, tensor {self.tensor}, pipeline {self.pipeline}"

    @property
    def details(self) -> str:
        """The rest of it, in words."""
        parts = f", {self.interleave} parts a rank" if self.interleave > 1 else ""
        return f"micro-batch {self.microbatch}, recompute {self.recompute}, ZeRO {self.zero}{parts}"


@dataclass(frozen=True, repr=False)
class Prediction:
    """A training step of a language model on paper.

    Attributes:
        model, gpu, split: what was predicted.
        batch: sequences of a step.
        times_s: parts of the step: compute, tensor, pipeline, bubble, data, optimizer. They
            add up to the step.
        memory: of the fullest GPU.
    """

    model: LanguageModel
    gpu: Gpu
    split: Split
    batch: int
    times_s: dict[str, float]
    memory: Memory

    @property
    def step_s(self) -> float:
        """From step to step."""
        return sum(self.times_s.values())

    @property
    def tokens_per_s(self) -> float:
        """Of all GPUs together."""
        return self.batch * self.model.sequence / self.step_s

    @property
    def flops_per_s(self) -> float:
        """Of each GPU; what is recomputed does not count."""
        return self.model.flops_per_token * self.tokens_per_s / self.split.gpus

    @property
    def mfu(self) -> float:
        """Model FLOPs utilization: share of the peak (Chowdhery et al., "PaLM", 2022)."""
        return self.flops_per_s / self.gpu.flops_per_s

    @property
    def fits(self) -> bool:
        """Whether the memory is enough."""
        return self.memory.total <= self.gpu.limit_bytes

    def __repr__(self) -> str:
        return f"Prediction({self.split})"

    def __str__(self) -> str:
        lines = [
            (
                f"{self.model} on {self.split.gpus} {self.gpu.name}: {self.split}; "
                f"{self.split.details}"
            ),
            f"step {seconds(self.step_s)}: "
            + ", ".join(f"{name} {seconds(t)}" for name, t in self.times_s.items() if t),
            (
                f"{format_rate(self.tokens_per_s, 'tokens/s')}, "
                f"{format_rate(self.flops_per_s, 'FLOP/s')} each, MFU {format_share(self.mfu)}"
            ),
            f"memory {self.memory}; the limit is {gigabytes(self.gpu.limit_bytes)}",
        ]
        return "\n".join([*lines, *as_lines(self.gpu.assumptions)])

    def _repr_html_(self) -> str:
        rows = [[f"time: {name}", seconds(t)] for name, t in self.times_s.items() if t]
        rows += [["step", f"{seconds(self.step_s)}, MFU {format_share(round(self.mfu, 3))}"]]
        rows += [[f"memory: {name}", gigabytes(n)] for name, n in self.memory.parts.items() if n]
        limit = gigabytes(self.gpu.limit_bytes)
        rows += [["memory", f"{gigabytes(self.memory.total)} of {limit}"]]
        caption = f"Predicted: {self.model} on {self.split.gpus} {self.gpu.name}: {self.split}"
        notes = (self.split.details,)
        return html(["part", "how much"], rows, caption, self.gpu.assumptions, notes)


def predict(
    model: LanguageModel, gpu: Gpu, split: Split, batch: int, *, overlap: float = 0.5
) -> Prediction:
    """Predict one training step: its parts in seconds, and the memory of the fullest GPU.

    Ranks of a tensor-parallel group are neighbours in a node, those of a data-parallel group
    come next, stages of the pipeline last (as Narayanan et al. 2021 have it). The stages run
    1F1B; the slowest has the output layer and counts for all. The parts of the step:

    - compute: FLOPs, with those of recomputation, over the share of the peak that is reached;
    - tensor: 4 or 6 all-reduces a layer and micro-batch (`tensor_parallel_s`);
    - pipeline: activations to the next stage and gradients back, for each micro-batch, of which
      each tensor-parallel rank sends its part (Narayanan et al. 2021, section 4.1);
    - bubble: (p - 1) / v times what one micro-batch takes (`bubble_share`);
    - data: what is not hidden of the gradients' reduce-scatter and the all-gather, once a step;
      ZeRO 2 reduces for every micro-batch, ZeRO 3 also gathers the weights twice for every one
      (Rajbhandari et al. 2020, section 7);
    - optimizer: 28 bytes for each of the rank's parameters, read or written once by Adam.

    Args:
        model: its shape.
        gpu: and what connects it.
        split: over the GPUs.
        batch: sequences of a step, of all GPUs together.
        overlap: share of the computing behind which gradients (and weights with ZeRO 3) can
            travel.

    Raises:
        ValueError: the batch does not come out even, or more stages than layers.

    >>> from labkit.scaling import H100, LLAMA2_7B
    >>> found = predict(LLAMA2_7B, H100, Split(data=8, zero=1), batch=64)
    >>> round(found.mfu, 2), found.fits
    (0.52, True)
    """
    check_overlap(overlap)
    check_count("batch", batch)
    d, t, p, b, v = split.data, split.tensor, split.pipeline, split.microbatch, split.interleave
    if batch % (d * b):
        raise ValueError(
            f"batch={batch}: {d} data-parallel ranks and micro-batches of {b} need a multiple of "
            f"{d * b}"
        )
    if p * v > model.layers:
        raise ValueError(f"{p * v} stages, and {model.layers} layers: give fewer stages")
    microbatches, layers = batch // (d * b), math.ceil(model.layers / p)
    tokens = b * model.sequence

    flops = layers * (3 * model.layer_flops + model.recomputed_flops(split.recompute))
    flops += 3 * model.head_flops
    compute_s = tokens * flops / (t * gpu.flops_per_s * gpu.compute_share)
    network = gpu.network
    # A group that is larger than a node is slow everywhere.
    link = network.inside if t <= gpu.node_size else network.between
    tensor_s = layers * tensor_parallel_s(model, link, t, microbatch=b, recompute=split.recompute)
    send_s = 0.0
    if p > 1:
        hop = network.inside if split.gpus <= gpu.node_size else network.between
        # Each rank sends its part of the activations forward and of the gradients backward.
        send_s = 2 * v * hop.send_s(_BYTES * tokens * model.hidden / t)
    slot_s = compute_s + tensor_s + send_s

    memory, parameters = _memory(model, split, microbatches, layers)
    data_s = 0.0
    if d > 1:
        near = min(d, max(1, gpu.node_size // t))
        one_way_s = network.reduce_scatter_s(_BYTES * parameters, d, near)
        # Ways through the ring, and micro-batches behind which they can hide.
        ways = {0: 2, 1: 2, 2: microbatches + 1, 3: 3 * microbatches}[split.zero]
        backs = {2: microbatches, 3: microbatches / BACKWARD_SHARE}.get(split.zero, 1)
        data_s = max(0.0, ways * one_way_s - overlap * backs * BACKWARD_SHARE * compute_s)
    updated = parameters / (d if split.zero else 1)
    optimizer_s = _OPTIMIZER_TRAFFIC * updated / (gpu.memory_bytes_per_s * gpu.bandwidth_share)
    times_s = {
        "compute": microbatches * compute_s,
        "tensor": microbatches * tensor_s,
        "pipeline": microbatches * send_s,
        "bubble": (p - 1) / v * slot_s,
        "data": data_s,
        "optimizer": optimizer_s,
    }
    return Prediction(model, gpu, split, batch, times_s, memory)


def _memory(
    model: LanguageModel, split: Split, microbatches: int, layers: int
) -> tuple[Memory, float]:
    """Of the fullest GPU, and its parameters: the first stage's, or the last one's."""
    t, p, b, v = split.tensor, split.pipeline, split.microbatch, split.interleave
    whole = model.layers * model.layer_parameters
    rest = model.parameters - whole
    own = layers * model.layer_parameters
    first = (own + (rest if p == 1 else model.embedding_parameters)) / t
    last = (own + (rest if p == 1 else model.head_parameters)) / t

    def layer_bytes(recompute: Recompute) -> float:
        together = split.sequence_parallel
        return model.layer_activation_bytes(
            b, recompute=recompute, tensor=t, sequence_parallel=together
        )

    # 1F1B: the first stage has begun p micro-batches before one comes back (Narayanan et al.
    # 2021), and some more where it has several parts (Korthikanti et al. 2022, section 4.2).
    held = min(microbatches, p * (1 + (p - 1) / (p * v)) if v > 1 else p)
    working = 0.0
    if split.recompute == "full":
        working = layer_bytes("selective")
    if split.zero == 3 and split.data > 1:
        # The weights of this layer and of the next.
        working += 2 * _BYTES * model.layer_parameters / t
    head = model.head_activation_bytes(b, t)
    candidates = []
    for parameters, number, logits in (
        (first, held, head if p == 1 else 0.0),
        (last, min(microbatches, 1 if v == 1 else held), head),
    ):
        state = training_memory(parameters, split.data, split.zero)
        kept = number * layers * layer_bytes(split.recompute) + logits + working
        candidates.append(replace(state, activations=kept))
    return max(candidates, key=lambda memory: memory.total), max(first, last)
