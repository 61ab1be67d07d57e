"""Weights that share values, and the bytes that a model takes when it is coded well.

The three steps of Han, Mao and Dally, "Deep compression: compressing deep neural networks with
pruning, trained quantization and Huffman coding", 2015, in pieces that can be combined: pruning
is in `labkit.prune`, shared values are `clustered`, and `pack` codes whatever comes out.
"""

from __future__ import annotations

import copy
import io
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from labkit.layers import check_layers, named_layers
from labkit.optional import need
from labkit.prune import PRUNED
from labkit.usage import return_free_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from numpy.typing import NDArray

# Weights are counted in this many bins before their means are looked for: a million numbers
# would only make it slower.
_BINS = 4096
# With more distinct values than this a codebook costs more than it saves.
_MOST_VALUES = 4096
_HEAD = struct.Struct("<cIII")  # kind, numbers, values in the codebook, words of code


def clustered(
    model: nn.Module,
    bits: int,
    train: Callable[[nn.Module], Any] | None = None,
    *,
    exclude: Collection[str] = (),
) -> nn.Module:
    """Let the weights of each layer share 2**bits values, found by k-means.

    Zeros stay zero and have a value of their own, so that a pruned model stays pruned.

    Args:
        model: left as it is.
        bits: for the number of a value, from 1 to 8.
        train: trains the module that it is given, in place: the shared values move, and which
            weight has which stays.
        exclude: names of modules that are left alone.

    Raises:
        ValueError: bits out of range, or an unknown module.
        DoesNotApplyError: there is no linear or convolutional layer.

    >>> layer = clustered(nn.Linear(100, 100), bits=4)
    >>> len(layer.weight.unique())
    16
    """
    if type(bits) is not int or not 1 <= bits <= 8:
        raise ValueError(f"bits={bits!r}: give a whole number from 1 to 8")
    check_layers(model, PRUNED, exclude)
    result = copy.deepcopy(model)
    layers = [layer for _, layer in named_layers(result, PRUNED, exclude)]
    for layer in layers:
        shared = _Shared(*_codebook(layer.weight.detach(), 2**bits))
        parametrize.register_parametrization(layer, "weight", shared, unsafe=True)
    try:
        if train is not None:
            train(result)
    finally:
        for layer in layers:
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    return_free_memory(collect=False)
    return result


class _Shared(nn.Module):
    """The weight as values and the number of each one's value; gradients reach the values."""

    def __init__(self, values: torch.Tensor, codes: torch.Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(values)
        self.register_buffer("moving", (values != 0).to(values.dtype))
        self.register_buffer("codes", codes)

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        return (self.values * self.moving)[self.codes]  # type: ignore[operator,index]


def _codebook(weight: torch.Tensor, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Values, and for each weight the number of its own."""
    flat = weight.flatten().double().numpy()
    zeros = flat == 0
    rest = flat[~zeros]
    wanted = number - bool(zeros.any())
    distinct = np.unique(rest)
    if len(distinct) > wanted:
        counts, edges = np.histogram(rest, bins=_BINS)
        middles, full = (edges[:-1] + edges[1:]) / 2, counts > 0
        # Evenly spread over the range, as the paper found best: large weights matter.
        start = np.linspace(rest.min(), rest.max(), min(wanted, int(full.sum())))
        distinct = np.unique(_means(middles[full], counts[full], start))
    codes = np.searchsorted((distinct[:-1] + distinct[1:]) / 2, flat)
    if zeros.any():
        distinct = np.concatenate([[0.0], distinct])
        codes = np.where(zeros, 0, codes + 1)
    return (
        torch.from_numpy(distinct).to(weight.dtype),
        torch.from_numpy(codes.reshape(weight.shape)),
    )


def _means(
    numbers: NDArray[Any], counts: NDArray[Any], start: NDArray[Any], turns: int = 300
) -> NDArray[Any]:
    """k-means of numbers on a line, from these means on.

    Lloyd, "Least squares quantization in PCM", 1982. A mean that no number is nearest to takes
    the place of a number far from its own, as in scikit-learn; that would import 60 MB here.
    """
    means = start
    for _ in range(turns):
        nearest = np.searchsorted((means[:-1] + means[1:]) / 2, numbers)
        size = np.bincount(nearest, counts, len(means))
        moved = np.bincount(nearest, counts * numbers, len(means)) / np.maximum(size, 1)
        alone = size == 0
        far = np.argsort(np.abs(numbers - means[nearest]))[len(numbers) - alone.sum() :]
        moved[alone] = numbers[far]
        moved.sort()
        if np.allclose(moved, means, rtol=0, atol=1e-6 * np.ptp(numbers)):
            break
        means = moved
    return means


def pack(model: nn.Module) -> bytes:
    """A model's parameters and buffers, coded; `unpack` restores every one of them exactly.

    A tensor of few values becomes a codebook and a stream of numbers coded by their frequencies
    (asymmetric numeral systems: within a thousandth of the entropy). One with many zeros becomes
    the places of the others, coded, and their float32 values. Anything else stays as it is.

    Raises:
        MissingPackageError: constriction is not installed.

    Source: Duda, "Asymmetric numeral systems", 2013; https://bamler-lab.github.io/constriction/

    >>> layer = clustered(nn.Linear(256, 256, bias=False), bits=2)
    >>> len(pack(layer)) < 256 * 256 * 2.1 / 8
    True
    """
    buffer = io.BytesIO()
    # By name: the order of parameters is not the same after a parametrization.
    for _, value in sorted(model.state_dict().items()):
        _write(buffer, value.detach().cpu())
    return_free_memory(collect=False)
    return buffer.getvalue()


def unpack(data: bytes, model: nn.Module) -> nn.Module:
    """The model that `pack` coded.

    Args:
        data: what `pack` gave.
        model: one of the same architecture; left as it is.

    Raises:
        ValueError: the data belong to another architecture.

    >>> layer = clustered(nn.Linear(8, 8), bits=2)
    >>> again = unpack(pack(layer), nn.Linear(8, 8))
    >>> bool((again.weight == layer.weight).all())
    True
    """
    result = copy.deepcopy(model)
    buffer = io.BytesIO(data)
    state = result.state_dict()
    for name, value in sorted(state.items()):
        state[name] = _read(buffer, value, name)
    if buffer.read(1):
        raise ValueError("data: there is more in it than this model takes")
    result.load_state_dict(state)
    return result


def _write(buffer: io.BytesIO, tensor: torch.Tensor) -> None:
    flat = tensor.flatten().numpy()
    values, codes = np.unique(flat, return_inverse=True)
    nonzero = flat != 0
    if 1 < len(values) <= min(_MOST_VALUES, len(flat) // 4):
        words = _encoded(codes, len(values))
        buffer.write(_HEAD.pack(b"c", len(flat), len(values), len(words)))
        buffer.write(values.tobytes() + np.bincount(codes).astype("<u4").tobytes())
        buffer.write(words.tobytes())
    elif nonzero.mean() < 0.9 and len(flat) > 64:
        words = _encoded(nonzero.astype(np.int64), 2)
        rest = flat[nonzero]
        buffer.write(_HEAD.pack(b"s", len(flat), len(rest), len(words)))
        buffer.write(rest.tobytes() + words.tobytes())
    else:
        buffer.write(_HEAD.pack(b"r", len(flat), 0, 0) + flat.tobytes())


def _read(buffer: io.BytesIO, like: torch.Tensor, name: str) -> torch.Tensor:
    kind, numbers, values, words = _HEAD.unpack(buffer.read(_HEAD.size))
    if numbers != like.numel():
        raise ValueError(f"data: {numbers} numbers for {name!r}, which has {like.numel()}")
    dtype = like.cpu().numpy().dtype

    def taken(number: int, kind: Any) -> NDArray[Any]:
        return np.frombuffer(buffer.read(number * np.dtype(kind).itemsize), kind)

    if kind == b"c":
        book, counts = taken(values, dtype), taken(values, "<u4")
        flat = book[_decoded(taken(words, "<u4"), numbers, counts)]
    elif kind == b"s":
        rest = taken(values, dtype)
        counts = np.array([numbers - values, values])
        flat = np.zeros(numbers, dtype)
        flat[_decoded(taken(words, "<u4"), numbers, counts) == 1] = rest
    else:
        flat = taken(numbers, dtype)
    return torch.from_numpy(flat.copy()).reshape(like.shape)


def _encoded(codes: NDArray[Any], values: int) -> NDArray[np.uint32]:
    stream = need("constriction").stream
    coder = stream.stack.AnsCoder()
    coder.encode_reverse(codes.astype(np.int32), _frequencies(np.bincount(codes, minlength=values)))
    found: NDArray[np.uint32] = coder.get_compressed()
    return found.astype("<u4")


def _decoded(words: NDArray[Any], numbers: int, counts: NDArray[Any]) -> NDArray[Any]:
    stream = need("constriction").stream
    coder = stream.stack.AnsCoder(words.astype(np.uint32))
    found: NDArray[Any] = coder.decode(_frequencies(counts), numbers)
    return found


def _frequencies(counts: NDArray[Any]) -> Any:
    model = need("constriction").stream.model
    shares = counts.astype(np.float64) / counts.sum()
    return model.Categorical(shares, perfect=False)
