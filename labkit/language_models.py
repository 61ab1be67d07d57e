"""What a transformer language model needs on paper: parameters, FLOPs, bytes.

Counts, not measurements. Those of the GPT family are the published ones (Narayanan et al.,
"Efficient large-scale language model training on GPU clusters using Megatron-LM", 2021, with all
biases; Korthikanti et al., "Reducing activation recomputation in large transformer models",
2022); those of the Llama family are counted in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from labkit.units import format_count, format_rate

Family = Literal["llama", "gpt"]
Recompute = Literal["none", "selective", "full"]
FAMILIES: tuple[Family, ...] = ("llama", "gpt")
RECOMPUTE: tuple[Recompute, ...] = ("none", "selective", "full")


@dataclass(frozen=True)
class LanguageModel:
    """The shape of a dense transformer.

    Attributes:
        layers, hidden, heads: of the transformer.
        vocabulary: number of tokens that it knows.
        sequence: number of tokens that it looks at.
        feed_forward: width of the feed-forward part; None: 4 ``hidden`` in the GPT family, 8/3
            of it, rounded up to a multiple of 256, in the Llama family.
        kv_heads: heads of keys and values; None: as many as ``heads``.
        family: "gpt" (biases, learned positions, the embedding is the output layer, too) or
            "llama" (a gated feed-forward part, an output layer of its own, no biases).
        name: for tables and figures.

    Raises:
        ValueError: a number below 1, heads that do not fit, or an unknown family.

    >>> LLAMA2_7B.parameters, GPT3_175B.parameters
    (6738415616, 174604259328)
    """

    layers: int
    hidden: int
    heads: int
    vocabulary: int = 32_000
    sequence: int = 4096
    feed_forward: int | None = None
    kv_heads: int | None = None
    family: Family = "llama"
    name: str = ""

    def __post_init__(self) -> None:
        for word in ("layers", "hidden", "heads", "vocabulary", "sequence"):
            check_count(word, getattr(self, word))
        if self.family not in FAMILIES:
            raise ValueError(f"family={self.family!r}: give one of {', '.join(FAMILIES)}")
        for word in ("feed_forward", "kv_heads"):
            if getattr(self, word) is not None:
                check_count(word, getattr(self, word))
        if self.hidden % self.heads or self.heads % self._kv_heads:
            raise ValueError(
                f"hidden={self.hidden}, heads={self.heads}, kv_heads={self._kv_heads}: heads "
                "must divide hidden, and kv_heads must divide heads"
            )

    @classmethod
    def of_size(cls, parameters: float, *, sequence: int = 4096) -> LanguageModel:
        """A model of about this many parameters.

        Heads of 128 numbers, as many heads as layers: the shapes of GPT-3 175B, Llama 7B and
        Llama 3 405B (nearly). How deep and how wide matters little for the loss (Kaplan et al.,
        "Scaling laws for neural language models", 2020).

        Args:
            parameters: about how many; at least a million.
            sequence: tokens that it looks at.

        Raises:
            ValueError: fewer than a million.

        >>> model = LanguageModel.of_size(7e9)
        >>> model.layers, model.hidden, model.heads
        (32, 4096, 32)
        """
        if not 1e6 <= parameters < 1e15:
            raise ValueError(f"{parameters:g} parameters: give a million (1e6) or more")
        depth = (parameters / (12 * 128**2)) ** (1 / 3)
        # Eights, so that stages of a pipeline and heads on ranks come out even.
        layers = 8 * round(depth / 8) if depth >= 12 else max(1, round(depth))
        name = f"{format_count(parameters)} parameters"
        return cls(layers, 128 * layers, layers, sequence=sequence, name=name)

    @property
    def _kv_heads(self) -> int:
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def _feed_forward(self) -> int:
        if self.feed_forward is not None:
            return self.feed_forward
        return 4 * self.hidden if self.family == "gpt" else -(-8 * self.hidden // 768) * 256

    @property
    def _layer_matrices(self) -> int:
        """Weights of a layer's matrix products."""
        attention = 2 * self.hidden**2 + 2 * self.hidden**2 * self._kv_heads // self.heads
        parts = 2 if self.family == "gpt" else 3
        return attention + parts * self.hidden * self._feed_forward

    @property
    def layer_parameters(self) -> int:
        """Parameters of one layer."""
        if self.family == "llama":
            return self._layer_matrices + 2 * self.hidden
        biases = 3 * self.hidden + 2 * self.hidden * self._kv_heads // self.heads
        return self._layer_matrices + biases + self._feed_forward + 4 * self.hidden

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the embedding, with the learned positions where there are any."""
        positions = self.sequence if self.family == "gpt" else 0
        return (self.vocabulary + positions) * self.hidden

    @property
    def head_parameters(self) -> int:
        """Parameters of the output layer, as many as its matrix has; also where it is shared."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All parameters; a shared matrix counts once."""
        last = 2 * self.hidden if self.family == "gpt" else self.hidden + self.head_parameters
        return self.layers * self.layer_parameters + self.embedding_parameters + last

    @property
    def attention_flops(self) -> int:
        """Forward FLOPs of one layer's scores and sums for a token: 4 s h.

        Counted for the whole square of scores, as the published utilizations do (Narayanan et
        al. 2021; Chowdhery et al., "PaLM", 2022); a causal kernel may leave out half.
        """
        return 4 * self.sequence * self.hidden

    @property
    def layer_flops(self) -> int:
        """Forward FLOPs of one layer for a token: 2 for each weight, and those of attention."""
        return 2 * self._layer_matrices + self.attention_flops

    @property
    def head_flops(self) -> int:
        """Forward FLOPs of the output layer for a token."""
        return 2 * self.head_parameters

    @property
    def flops_per_token(self) -> int:
        """FLOPs of training on one token: forward, and twice as many backward.

        About 6 for each parameter (Kaplan et al. 2020), and those of attention.

        >>> round(LLAMA2_7B.flops_per_token / (6 * LLAMA2_7B.parameters), 2)
        1.14
        """
        return 3 * (self.layers * self.layer_flops + self.head_flops)

    def executed_flops_per_token(self, recompute: Recompute = "none") -> int:
        """FLOPs of training on one token, with those that are done twice to save memory.

        Args:
            recompute: "none", "selective" (the scores again) or "full" (every layer's forward
                again: about 8 in place of 6 for each parameter).

        >>> GPT3_175B.executed_flops_per_token("full") / GPT3_175B.flops_per_token
        1.332...
        """
        return self.flops_per_token + self.layers * self.recomputed_flops(recompute)

    def recomputed_flops(self, recompute: Recompute) -> int:
        """FLOPs of one layer and token that recomputation adds."""
        check_recompute(recompute)
        return {"none": 0, "selective": self.attention_flops, "full": self.layer_flops}[recompute]

    @property
    def tokens(self) -> int:
        """Tokens to train on: 20 for each parameter.

        About what Hoffmann et al. ("Training compute-optimal large language models", 2022) found
        best for a given number of FLOPs. Models made to be used a lot see many more: Llama 3
        8B saw 15 T, almost 100 times as many.
        """
        return 20 * self.parameters

    def layer_activation_bytes(
        self,
        microbatch: int = 1,
        *,
        recompute: Recompute = "none",
        tensor: int = 1,
        sequence_parallel: bool = True,
    ) -> float:
        """Bytes that one layer keeps for its backward pass, with 2 bytes a number.

        GPT: s b h (34 + 5 a s / h), with dropout (Korthikanti et al. 2022, table 2). Llama: s b
        h (12 + 4 k/a + 8 f/h) and 2 a s² b of scores, with a/k heads of queries for each of
        keys; counted here.

        Args:
            microbatch: sequences b.
            recompute: "none"; "selective": without the scores, which are computed again, as
                FlashAttention does; "full": only the layer's input is kept.
            tensor: ranks that share the layer.
            sequence_parallel: they also share what tensor parallelism alone keeps on each.

        Raises:
            ValueError: an unknown way to recompute.

        >>> model = LanguageModel(96, 12288, 96, 50257, 2048, family="gpt")
        >>> model.layer_activation_bytes() == 2048 * 12288 * (34 + 5 * 96 * 2048 / 12288)
        True
        >>> model.layer_activation_bytes(recompute="full", sequence_parallel=False) == 2048 * 24576
        True
        """
        check_recompute(recompute)
        check_count("microbatch", microbatch)
        check_count("tensor", tensor)
        numbers = self.sequence * microbatch * self.hidden
        apart = tensor if sequence_parallel else 1
        if recompute == "full":
            return 2 * numbers / apart
        if self.family == "gpt":
            whole, shared, scores = 10.0, 24.0, 5
        else:
            keys = self._kv_heads / self.heads
            whole, shared, scores = 8.0, 4 + 4 * keys + 8 * self._feed_forward / self.hidden, 2
        kept = numbers * (whole / apart + shared / tensor)
        if recompute == "none":
            kept += scores * self.heads * self.sequence**2 * microbatch / tensor
        return kept

    def head_activation_bytes(self, microbatch: int = 1, tensor: int = 1) -> float:
        """Bytes that the output layer keeps: its inputs, and logits of 4 bytes.

        4 s b h (1 + V / h) / t (Korthikanti et al. 2022, section 4.3).
        """
        return 4 * self.sequence * microbatch * (self.hidden + self.vocabulary) / tensor

    def __str__(self) -> str:
        name = self.name or f"{format_count(self.parameters)} parameters"
        return (
            f"{name}: {self.layers} layers of {self.hidden}, {self.heads} heads, "
            f"{self.sequence} tokens at once"
        )


@dataclass(frozen=True)
class Memory:
    """Bytes on one rank, by what they are for.

    Attributes:
        weights, gradients, optimizer: of the model.
        activations: kept for the backward pass.
    """

    weights: float
    gradients: float
    optimizer: float
    activations: float = 0.0

    @property
    def parts(self) -> dict[str, float]:
        """Bytes by name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @property
    def total(self) -> float:
        """All of it."""
        return sum(self.parts.values())

    @property
    def by_parts(self) -> str:
        """The parts in words."""
        return ", ".join(f"{name} {gigabytes(n)}" for name, n in self.parts.items() if n)

    def __str__(self) -> str:
        return f"{gigabytes(self.total)}: {self.by_parts}"


def training_memory(
    parameters: float,
    data: int = 1,
    zero: int = 0,
    *,
    weight_bytes: float = 2,
    gradient_bytes: float = 2,
    optimizer_bytes: float = 12,
) -> Memory:
    """What parameters take on each rank in training, without activations.

    16 bytes for each with Adam in mixed precision: weight and gradient of 2 bytes, and 12 of the
    optimizer (a weight and two moments of 4). ZeRO shares them among the data-parallel ranks:
    stage 1 the optimizer's, stage 2 also the gradients, stage 3 (FSDP) also the weights.

    Source: Rajbhandari et al., "ZeRO: memory optimizations toward training trillion parameter
    models", 2020, figure 1, for 7.5 G parameters on 64 ranks:

    >>> [round(training_memory(7.5e9, 64, zero=stage).total / 1e9, 1) for stage in range(4)]
    [120.0, 31.4, 16.6, 1.9]

    Raises:
        ValueError: another stage than 0 to 3, or no ranks.
    """
    check_count("data", data)
    check_zero(zero)
    return Memory(
        weight_bytes * parameters / (data if zero >= 3 else 1),
        gradient_bytes * parameters / (data if zero >= 2 else 1),
        optimizer_bytes * parameters / (data if zero >= 1 else 1),
    )


def gigabytes(n: float) -> str:
    """Bytes as datasheets and papers give them: 1 GB is 1e9."""
    return format_rate(n, "B")


def check_count(word: str, number: int) -> None:
    """Refuse what is no whole number above 0."""
    if type(number) is not int or number < 1:
        raise ValueError(f"{word}={number!r}: give a whole number, 1 or more")


def check_zero(zero: int) -> None:
    """Refuse an unknown stage."""
    if zero not in (0, 1, 2, 3):
        raise ValueError(f"zero={zero!r}: give a stage from 0 (nothing is shared) to 3 (FSDP)")


def check_recompute(recompute: str) -> None:
    """Refuse an unknown way to recompute."""
    if recompute not in RECOMPUTE:
        raise ValueError(f"recompute={recompute!r}: give one of {', '.join(RECOMPUTE)}")


# Brown et al., "Language models are few-shot learners", 2020.
GPT3_175B = LanguageModel(96, 12288, 96, 50257, 2048, family="gpt", name="GPT-3 175B")
# Touvron et al., "Llama 2: open foundation and fine-tuned chat models", 2023.
LLAMA2_7B = LanguageModel(32, 4096, 32, feed_forward=11008, name="Llama 2 7B")
LLAMA2_70B = LanguageModel(80, 8192, 64, feed_forward=28672, kv_heads=8, name="Llama 2 70B")
# Grattafiori et al., "The Llama 3 herd of models", 2024.
LLAMA3_405B = LanguageModel(
    126, 16384, 128, 128_256, 8192, feed_forward=53248, kv_heads=8, name="Llama 3 405B"
)
