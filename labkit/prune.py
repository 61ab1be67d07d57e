"""Pruning: less to store and, where whole channels go, less to do. Model to model.

Every function takes a model, leaves it as it is, and returns another one. ``train``, where it is
given, trains the model that it gets in place (fine-tuning); weights that were pruned stay zero
meanwhile.

What the words mean: *unstructured* pruning sets single weights to zero, wherever they are small;
*structured* pruning removes whole channels or heads, so that the layers really become smaller.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import prune as torch_prune

from labkit import flops
from labkit.errors import DoesNotApplyError
from labkit.layers import (
    LINEAR,
    check_choice,
    check_inputs,
    check_layers,
    check_modules,
    named_layers,
)
from labkit.machines import machine
from labkit.optional import need, quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from labkit.layers import Inputs

PRUNED: tuple[type[nn.Module], ...] = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
SCOPES = ("global", "layer")
IMPORTANCES = ("l1", "l2", "taylor")
LAYOUTS = ("csr", "bsr")


@dataclass(frozen=True)
class Counts:
    """What a model has and does.

    Attributes:
        parameters: numbers in its weights, zeros included.
        nonzero: those that are not zero.
        flops: of one evaluation, by torch.utils.flop_counter: products, convolutions, attention.
    """

    parameters: int
    nonzero: int
    flops: int

    @property
    def sparsity(self) -> float:
        """The share of zeros.

        >>> Counts(parameters=100, nonzero=25, flops=0).sparsity
        0.75
        """
        return 1 - self.nonzero / self.parameters


def count(model: nn.Module, example_inputs: Inputs) -> Counts:
    """Count parameters and operations.

    Args:
        model: any.
        example_inputs: a tuple of tensors as the model is called with.

    >>> count(nn.Linear(10, 5, bias=False), (torch.ones(1, 10),))
    Counts(parameters=50, nonzero=50, flops=100)
    """
    check_inputs(example_inputs)
    # Fused kernels of attention, and of whole blocks, are not known to the counter on every device.
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            operations = flops.count(lambda: model(*example_inputs))
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    parameters = list(model.parameters())
    return Counts(
        sum(p.numel() for p in parameters),
        sum(int(torch.count_nonzero(p)) for p in parameters),
        operations,
    )


def magnitude(
    model: nn.Module,
    sparsity: float,
    train: Callable[[nn.Module], Any] | None = None,
    *,
    scope: str = "global",
    exclude: Collection[str] = (),
) -> nn.Module:
    """Set the smallest weights of linear and convolutional layers to zero, all at once.

    Args:
        model: see above.
        sparsity: the share of these weights that becomes zero, from 0 to 1.
        train: see above.
        scope: "global" takes the smallest of all layers together, "layer" the same share of each.
        exclude: names of modules that are left alone.

    Raises:
        ValueError: a share that is none, an unknown scope or module.
        DoesNotApplyError: there is no layer to prune.

    Source: torch.nn.utils.prune; Han, Pool, Tran and Dally, "Learning both weights and
    connections for efficient neural networks", 2015.

    >>> layer = nn.Linear(10, 10)
    >>> half = magnitude(layer, 0.5)
    >>> int((half.weight == 0).sum()), int((layer.weight == 0).sum())
    (50, 0)
    """
    return gradual(model, sparsity, train or _nothing, turns=1, scope=scope, exclude=exclude)


def cubic(progress: float, final: float) -> float:
    """The sparsity on the way to the final one: fast at first, slow at the end.

    Args:
        progress: from 0 (nothing is pruned) to 1.
        final: the sparsity at the end.

    Source: Zhu and Gupta, "To prune, or not to prune: exploring the efficacy of pruning for
    model compression", 2017.

    >>> [round(cubic(p, 0.9), 3) for p in (0, 0.25, 0.5, 1)]
    [0.0, 0.52, 0.787, 0.9]
    """
    return final * (1 - (1 - progress) ** 3)


def gradual(
    model: nn.Module,
    sparsity: float,
    train: Callable[[nn.Module], Any],
    *,
    turns: int = 8,
    scope: str = "global",
    exclude: Collection[str] = (),
) -> nn.Module:
    """Prune a little, train, prune a little more: the cubic schedule of Zhu and Gupta (2017).

    Args:
        model: see above.
        sparsity: the share of the weights that is zero at the end, from 0 to 1.
        train: called after every turn; see above.
        turns: how often weights are pruned.
        scope: as in `magnitude`.
        exclude: as in `magnitude`.

    Raises:
        ValueError: a share that is none, an unknown scope or module, no turns.
        DoesNotApplyError: there is no layer to prune.

    >>> model = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 10))
    >>> pruned = gradual(model, 0.9, lambda part: None, turns=3, scope="layer")
    >>> [int((layer.weight == 0).sum()) for layer in pruned]
    [90, 90]
    """
    _check_share(sparsity, "sparsity")
    check_choice(scope, SCOPES, "scope")
    if turns < 1:
        raise ValueError(f"turns={turns}: give at least 1")
    check_layers(model, PRUNED, exclude)
    result = copy.deepcopy(model)
    layers = _layers(result, PRUNED, exclude)
    for turn in range(1, turns + 1):
        _mask(layers, cubic(turn / turns, sparsity), scope)
        try:
            train(result)
        finally:
            for layer in layers:
                torch_prune.remove(layer, "weight")  # type: ignore[no-untyped-call]
    return result


def sparse(
    model: nn.Module, layout: str = "csr", *, block: int = 16, exclude: Collection[str] = ()
) -> nn.Module:
    """Linear layers that store and multiply only what is not zero.

    Args:
        model: with zeros in its weights.
        layout: "csr" stores single numbers, "bsr" square blocks that hold any.
        block: rows and columns of a block, for "bsr".
        exclude: names of modules that are left alone.

    Raises:
        ValueError: an unknown layout or module, or a layer that blocks do not fill.
        DoesNotApplyError: there is no linear layer.

    Source: https://docs.pytorch.org/docs/stable/sparse.html

    >>> layer = magnitude(nn.Linear(64, 64), 0.9)
    >>> x = torch.ones(2, 64)
    >>> torch.allclose(sparse(layer)(x), layer(x), atol=1e-5)
    True
    """
    check_choice(layout, LAYOUTS, "layout")
    check_layers(model, LINEAR, exclude)
    for name, part in named_layers(model, LINEAR, exclude):
        sides = part.weight.shape
        if layout == "bsr" and any(side % block for side in sides):
            raise ValueError(
                f"block={block} does not divide the sides of {name or 'the layer'!r}, "
                f"{sides[0]} x {sides[1]}; give another one, or name the layer in exclude="
            )
    return _replaced(model, LINEAR, exclude, lambda part: SparseLinear(part, layout, block))


class SparseLinear(nn.Module):
    """A linear layer with a sparse weight.

    Args:
        layer: what it is made from.
        layout: see `sparse`.
        block: see `sparse`.
    """

    def __init__(self, layer: nn.Linear, layout: str, block: int) -> None:
        super().__init__()
        weight = layer.weight.detach()
        with quiet():
            stored = (
                weight.to_sparse_csr() if layout == "csr" else weight.to_sparse_bsr((block, block))
            )
        self.register_buffer("weight", stored)
        # A layer may have none, whatever its type says.
        self.bias: Any = copy.deepcopy(layer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The product with every row of ``x``, and the bias."""
        # Sparse products take the sparse matrix first, and two dimensions.
        rows = (self.weight @ x.reshape(-1, x.shape[-1]).T).T  # type: ignore[operator]
        result = rows.reshape(*x.shape[:-1], -1)
        return result if self.bias is None else result + self.bias


def two_of_four(model: nn.Module, *, exclude: Collection[str] = ()) -> nn.Module:
    """Of every four weights in a row of a linear layer, keep the two largest.

    What comes out runs everywhere, as a dense model with zeros; `semi_structured` stores it for
    the units of a GPU that skip them.

    Args:
        model: see above.
        exclude: names of modules that are left alone.

    Raises:
        DoesNotApplyError: there is no linear layer whose inputs come in fours.

    Source: Mishra et al., "Accelerating sparse deep neural networks", 2021.

    >>> layer = nn.Linear(8, 1, bias=False)
    >>> layer.weight.data = torch.tensor([[1.0, -4.0, 3.0, 2.0, 0.1, 0.2, 0.3, 0.4]])
    >>> [round(w, 1) for w in two_of_four(layer).weight[0].tolist()]
    [0.0, -4.0, 3.0, 0.0, 0.0, 0.0, 0.3, 0.4]
    """
    check_layers(model, LINEAR, exclude)
    result = copy.deepcopy(model)
    chosen = [p for p in _layers(result, LINEAR, exclude) if p.in_features % 4 == 0]
    if not chosen:
        raise DoesNotApplyError("no linear layer has inputs that come in fours")
    for layer in chosen:
        fours = layer.weight.data.reshape(-1, 4)
        small = fours.abs().argsort(dim=1)[:, :2]
        fours.scatter_(1, small, 0.0)
    return result


def semi_structured(model: nn.Module, *, exclude: Collection[str] = ()) -> nn.Module:
    """A model from `two_of_four`, in float16, as the sparse units of an NVIDIA GPU take it.

    Args:
        model: on a CUDA device of compute capability 8.0 or later.
        exclude: names of modules that stay dense.

    Raises:
        DoesNotApplyError: the model is elsewhere, or the device too old.

    Source: https://docs.pytorch.org/docs/stable/sparse.html#sparse-semi-structured-tensors
    """
    check_layers(model, LINEAR, exclude)
    place = next(model.parameters()).device
    if place.type != "cuda" or torch.cuda.get_device_capability(place) < (8, 0):
        missing = machine().missing("cuda")
        raise DoesNotApplyError(
            f"2:4 sparsity is skipped by NVIDIA GPUs since compute capability 8.0; the model is on "
            f"{place}. {missing or ''}".rstrip()
        )
    result = copy.deepcopy(model).half()
    for layer in _layers(result, LINEAR, exclude):
        layer.weight = nn.Parameter(torch.sparse.to_sparse_semi_structured(layer.weight.detach()))
    return result


def channels(
    model: nn.Module,
    example_inputs: Inputs,
    width: float,
    train: Callable[[nn.Module], Any] | None = None,
    *,
    importance: str = "l2",
    loss: Callable[[nn.Module], torch.Tensor] | None = None,
    scope: str = "layer",
    exclude: Collection[str] = (),
    multiple: int = 8,
) -> nn.Module:
    """Remove the least important channels of every layer, with all that depends on them.

    A channel that goes takes along the weights that read it, its normalization, and the channels
    that are added to it: layers become smaller, and nothing is left to skip. The layers that give
    the model's answer keep their outputs.

    Args:
        model: see above; what is done in ``forward`` must be traceable by autograd.
        example_inputs: a tuple of tensors as the model is called with.
        width: the share of channels that is left, above 0 and below 1.
        train: see above.
        importance: "l1" or "l2" by the norm of a channel's weights; "taylor" by how much the loss
            would change without it, to first order.
        loss: from a model to a loss, for "taylor".
        scope: "layer" leaves the same share in every layer, "global" takes the least important
            of all layers.
        exclude: names of modules whose outputs are left alone.
        multiple: channels are left in multiples of this: kernels work on whole vectors.

    Raises:
        ValueError: a share that is none, an unknown importance, scope or module, "taylor" without
            a loss.
        MissingPackageError: torch-pruning is not installed.
        DoesNotApplyError: there is no layer to prune.

    Source: Fang et al., "DepGraph: towards any structural pruning", 2023
    (https://github.com/VainF/Torch-Pruning); Molchanov et al., "Importance estimation for neural
    network pruning", 2019, for "taylor".

    >>> model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 10))
    >>> channels(model, (torch.ones(1, 8),), 0.5)
    Sequential(
      (0): Linear(in_features=8, out_features=32, bias=True)
      (1): ReLU()
      (2): Linear(in_features=32, out_features=10, bias=True)
    )
    """
    _check_share(width, "width")
    check_choice(scope, SCOPES, "scope")
    check_layers(model, PRUNED, exclude)
    tp, result, score = _scored(model, example_inputs, importance, loss)
    kept = [result.get_submodule(name) for name in (*exclude, *_answering(model, example_inputs))]
    with quiet():
        pruner = tp.BasePruner(
            result,
            example_inputs,
            score,
            global_pruning=scope == "global",
            pruning_ratio=1 - width,
            round_to=multiple,
            ignored_layers=kept,
            # By default these are dictionaries that all pruners share, and write to.
            in_channel_groups={},
            out_channel_groups={},
            num_heads={},
        )
        pruner.step()
    return _tuned(result, train)


def heads(
    model: nn.Module,
    example_inputs: Inputs,
    keep: float,
    train: Callable[[nn.Module], Any] | None = None,
    *,
    layers: Mapping[str, int],
    importance: str = "l2",
    loss: Callable[[nn.Module], torch.Tensor] | None = None,
) -> nn.Module:
    """Remove the least important heads of attention layers.

    Args:
        model: whose ``forward`` takes the number of heads from the size of what it gets, such as
            ``q.unflatten(-1, (-1, head_size))``.
        example_inputs: a tuple of tensors as the model is called with.
        keep: the share of heads that is left, above 0 and below 1.
        train: see above.
        layers: the number of heads by name of the linear layers that make queries, keys and
            values.
        importance: as in `channels`.
        loss: as in `channels`.

    Raises:
        ValueError, MissingPackageError, DoesNotApplyError: as in `channels`.

    Source: Michel, Levy and Neubig, "Are sixteen heads really better than one?", 2019; as
    `channels`.
    """
    _check_share(keep, "keep")
    check_layers(model, LINEAR, ())
    check_modules(model, layers)
    if not layers:
        raise ValueError("layers={}: give the number of heads by name of layer")
    tp, result, score = _scored(model, example_inputs, importance, loss)
    with quiet():
        graph = tp.DependencyGraph().build_dependency(result, example_inputs=example_inputs)
    done: set[nn.Module] = set()
    for name, number in layers.items():
        layer: Any = result.get_submodule(name)
        if layer in done:
            continue
        rows = list(range(layer.out_features))
        # Queries, keys and values depend on each other: whoever comes first takes all along.
        whole = graph.get_pruning_group(layer, tp.prune_linear_out_channels, rows)
        done |= {dependency.target.module for dependency, _ in whole}
        worth = score(whole).view(number, -1).mean(1)
        gone = worth.argsort()[: number - max(1, round(keep * number))].tolist()
        size = layer.out_features // number
        rows = [row for head in gone for row in range(head * size, (head + 1) * size)]
        graph.get_pruning_group(layer, tp.prune_linear_out_channels, rows).prune()
    return _tuned(result, train)


def _scored(
    model: nn.Module,
    example_inputs: Inputs,
    importance: str,
    loss: Callable[[nn.Module], torch.Tensor] | None,
) -> tuple[Any, Any, Any]:
    """The library, a copy of the model, and what says how important a channel of it is."""
    check_choice(importance, IMPORTANCES, "importance")
    check_inputs(example_inputs)
    if importance == "taylor" and loss is None:
        raise ValueError('importance="taylor" needs loss=, a function from a model to its loss')
    tp = need("torch_pruning")
    result = copy.deepcopy(model)
    if loss is None or importance != "taylor":
        return tp, result, tp.importance.GroupMagnitudeImportance(p=int(importance[1]))
    result.zero_grad()
    torch.autograd.backward(loss(result))
    return tp, result, tp.importance.GroupTaylorImportance()


def _tuned(model: nn.Module, train: Callable[[nn.Module], Any] | None) -> nn.Module:
    model.zero_grad()
    if train is not None:
        train(model)
    return model


def _answering(model: nn.Module, example_inputs: Inputs) -> list[str]:
    """Names of the layers whose outputs are what the model answers."""
    # Outputs are kept: an address would be used again.
    seen: list[tuple[str, Any]] = []
    handles = [
        part.register_forward_hook(lambda _, __, out, name=name: seen.append((name, out)))
        for name, part in model.named_modules()
        if isinstance(part, PRUNED)
    ]
    try:
        with torch.no_grad():
            result = model(*example_inputs)
    finally:
        for handle in handles:
            handle.remove()
    results = result if isinstance(result, tuple | list) else [result]
    found = [name for name, out in seen if any(out is x for x in results)]
    # The answer may be worked out from a layer's output: then its last layer stands for it.
    return found or [name for name, _ in seen[-1:]]


def _nothing(_: nn.Module) -> None:
    """No fine-tuning."""


def _check_share(value: float, word: str) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{word}={value!r}: give a share above 0 and below 1")


def _layers(
    model: nn.Module, kinds: tuple[type[nn.Module], ...], exclude: Collection[str]
) -> list[Any]:
    return [part for _, part in named_layers(model, kinds, exclude)]


def _mask(layers: list[nn.Module], sparsity: float, scope: str) -> None:
    """Reparametrize weights so that the smallest are zero, and stay so in training."""
    for group in [layers] if scope == "global" else [[layer] for layer in layers]:
        weights = [layer.get_parameter("weight").detach() for layer in group]
        # Not by torch's own L1Unstructured: it views weights flat, which those of a model in
        # channels_last cannot be.
        scores = torch.cat([weight.abs().flatten() for weight in weights])
        kept = torch.ones_like(scores)
        kept[scores.topk(round(sparsity * len(scores)), largest=False).indices] = 0
        masks = torch.split(kept, [weight.numel() for weight in weights])
        for layer, weight, mask in zip(group, weights, masks, strict=True):
            torch_prune.custom_from_mask(  # type: ignore[no-untyped-call]
                layer, "weight", mask.view(weight.shape)
            )


def _replaced(
    model: nn.Module,
    kinds: tuple[type[nn.Module], ...],
    exclude: Collection[str],
    make: Callable[[Any], nn.Module],
) -> nn.Module:
    result = copy.deepcopy(model)
    for name, part in named_layers(result, kinds, exclude):
        if name == "":
            return make(part)
        result.set_submodule(name, make(part))
    return result
