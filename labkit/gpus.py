"""GPUs as their datasheets have them, and the share of it that is assumed to be reached."""

from __future__ import annotations

from dataclasses import dataclass

from labkit.language_models import check_count, gigabytes
from labkit.links import Link, Network
from labkit.units import format_rate, format_share


@dataclass(frozen=True)
class Gpu:
    """A GPU in a node of several: its datasheet, and which share of it is reached.

    Attributes:
        name: for tables and figures.
        flops_per_s: of dense bfloat16 products, at most.
        memory_bytes, memory_bytes_per_s: of its own memory.
        nvlink_bytes_per_s: to the other GPUs of the node, in one direction.
        network_bytes_per_s: to other nodes, for each GPU, in one direction.
        node_size: GPUs in a node.
        source: of the figures above.
        nvlink_latency_s, network_latency_s: of one hop of a ring. The defaults are those that
            NCCL plans with (src/graph/tuning.cc, ring, Simple protocol).
        compute_share: of ``flops_per_s`` that forward and backward passes reach, with all that
            is not a product, and without waiting for others. An assumption: with it, `predict`
            gives 0.75 to 1.25 times what was reached in the published runs that
            tests/test_scaling.py lists; small models reach less, large ones more.
        bandwidth_share: of the three bandwidths that is reached. An assumption.
        memory_share: of the memory that tensors may take; the rest is for the CUDA context,
            NCCL's buffers and gaps. An assumption.

    >>> print(H100.network.inside)
    latency 3.40 µs, 360 GB/s
    """

    name: str
    flops_per_s: float
    memory_bytes: float
    memory_bytes_per_s: float
    nvlink_bytes_per_s: float
    network_bytes_per_s: float
    node_size: int = 8
    source: str = ""
    nvlink_latency_s: float = 3.4e-6
    network_latency_s: float = 14e-6
    compute_share: float = 0.55
    bandwidth_share: float = 0.8
    memory_share: float = 0.95

    def __post_init__(self) -> None:
        check_count("node_size", self.node_size)
        for word in ("flops_per_s", "memory_bytes", "memory_bytes_per_s"):
            if not getattr(self, word) > 0:
                raise ValueError(f"{word}={getattr(self, word)}: give a number above 0")
        for word in ("compute_share", "bandwidth_share", "memory_share"):
            if not 0 < getattr(self, word) <= 1:
                raise ValueError(f"{word}={getattr(self, word)}: give a share above 0, at most 1")
        _ = self.network  # the links say what is wrong with their numbers

    @property
    def network(self) -> Network:
        """What connects the GPUs, at the share of its bandwidth that is reached."""
        return Network(
            Link(self.nvlink_latency_s, self.nvlink_bytes_per_s * self.bandwidth_share),
            Link(self.network_latency_s, self.network_bytes_per_s * self.bandwidth_share),
            self.node_size,
        )

    @property
    def limit_bytes(self) -> float:
        """What tensors may take."""
        return self.memory_bytes * self.memory_share

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What a prediction for this GPU takes for granted."""
        return (
            (
                f"{self.name}: {format_share(self.compute_share)} of "
                f"{format_rate(self.flops_per_s, 'FLOP/s')} in forward and backward passes; "
                f"{format_share(self.memory_share)} of {gigabytes(self.memory_bytes)} for tensors; "
                f"{format_share(self.bandwidth_share)} of the links' datasheet is reached"
            ),
            *self.network.assumptions,
        )


A100 = Gpu(
    *("A100 80GB SXM", 312e12, 80e9, 2.039e12, 300e9, 25e9),
    source="NVIDIA A100 datasheet (NVLink 600 GB/s, both directions); DGX A100: 200 Gbit/s a GPU",
)
H100 = Gpu(
    *("H100 SXM", 989e12, 80e9, 3.35e12, 450e9, 50e9),
    source="NVIDIA H100 datasheet (NVLink 900 GB/s, both directions); DGX H100: 400 Gbit/s a GPU",
)
H200 = Gpu(
    *("H200 SXM", 989e12, 141e9, 4.8e12, 450e9, 50e9),
    source="NVIDIA H200 datasheet (NVLink 900 GB/s, both directions); DGX H200: 400 Gbit/s a GPU",
)
