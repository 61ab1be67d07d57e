"""What techniques ask of a model and of what they are given, before anything is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from labkit.errors import DoesNotApplyError
from labkit.module_names import is_within
from labkit.runtimes import OnnxModel

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

Inputs = tuple[torch.Tensor, ...]
LINEAR: tuple[type[nn.Module], ...] = (nn.Linear,)
QUANTIZED: tuple[type[nn.Module], ...] = (nn.Linear, nn.Conv2d)


def check_choice(given: str, allowed: Sequence[str], word: str) -> None:
    """Refuse a word that is not one of those allowed.

    Raises:
        ValueError: with those that are.
    """
    if given not in allowed:
        raise ValueError(f"{word}={given!r}: give one of {', '.join(allowed)}")


def check_calibration(calibration: object) -> None:
    """Refuse what is no list of input tuples.

    Raises:
        ValueError: with an example of one.
    """
    batches = calibration if isinstance(calibration, list | tuple) else ()
    if not batches or not all(isinstance(batch, tuple) for batch in batches):
        raise ValueError(
            "calibration: give a list of input tuples, such as [(batch,) for batch in x.split(32)]"
        )


def check_inputs(example_inputs: object) -> None:
    """Refuse what is no tuple of tensors.

    Raises:
        ValueError: with an example of one.
    """
    inputs = example_inputs if isinstance(example_inputs, tuple) else ()
    if not inputs or not all(isinstance(x, torch.Tensor) and x.dim() for x in inputs):
        raise ValueError(
            "example_inputs: give a tuple of tensors, as the model is called with, such as (x,)"
        )


def widened(example_inputs: Inputs) -> Inputs:
    """Inputs of at least two rows, in memory of their own.

    An exporter takes a first dimension of 1 for a constant, and saves the whole tensor that an
    input is a part of.
    """
    return tuple(torch.cat([x, x]) if x.shape[0] == 1 else x.clone() for x in example_inputs)


def batch_is_free(example_inputs: Inputs) -> tuple[dict[int, Any], ...]:
    """For an exporter: the first dimension of every input may change."""
    return tuple({0: torch.export.Dim.AUTO} for _ in example_inputs)


def kinds_of(model: nn.Module) -> dict[str, type[nn.Module]]:
    """The modules of a model by name: for each the class of torch that it is, or comes from.

    Raises:
        ValueError: an ONNX model that does not know which modules it was made of.

    >>> [(name, kind.__name__) for name, kind in kinds_of(nn.Sequential(nn.ReLU())).items()]
    [('', 'Sequential'), ('0', 'ReLU')]
    """
    if not isinstance(model, OnnxModel):
        return {
            name: next(c for c in type(part).__mro__ if c.__module__.startswith("torch."))
            for name, part in model.named_modules()
        }
    if not model.kinds:
        raise ValueError(
            "this ONNX model is quantized already, or was not made here: give the model that it "
            "was made of, or what onnx_float32 makes of that"
        )
    return dict(model.kinds)


def check_modules(model: nn.Module, modules: Collection[str]) -> None:
    """Refuse names that no module of the model has.

    Raises:
        ValueError: with those that there are.
    """
    # The model itself has the empty name.
    known = list(kinds_of(model))
    for name in modules:
        if name not in known:
            raise ValueError(f"no module {name!r} in the model; it has {', '.join(known[1:])}")


def check_layers(
    model: nn.Module, kinds: tuple[type[nn.Module], ...], exclude: Collection[str]
) -> None:
    """Refuse a model in which a technique would change nothing.

    Args:
        model: what is to be changed.
        kinds: of layers that the technique changes.
        exclude: names of modules that it leaves alone.

    Raises:
        ValueError: a name that no module has.
        DoesNotApplyError: no layer is left.
    """
    check_modules(model, exclude)
    names = [name for name, kind in kinds_of(model).items() if issubclass(kind, kinds)]
    words = " or ".join(kind.__name__ for kind in kinds)
    if not names:
        raise DoesNotApplyError(f"this changes layers of {words}, and the model has none")
    if all(is_within(name, exclude) for name in names):
        raise DoesNotApplyError(f"exclude names every layer of {words}: {', '.join(names)}")


def named_layers(
    model: nn.Module, kinds: tuple[type[nn.Module], ...], exclude: Collection[str] = ()
) -> list[tuple[str, Any]]:
    """Layers of these kinds with their names, without those in ``exclude`` or inside them."""
    return [
        (name, part)
        for name, part in model.named_modules()
        if isinstance(part, kinds) and not is_within(name, exclude)
    ]


def of_one_size(batches: Sequence[Inputs]) -> list[Inputs]:
    """Batches as they are if all have as many rows, else one row each.

    >>> [x.shape[0] for (x,) in of_one_size([(torch.ones(2, 3),), (torch.ones(1, 3),)])]
    [1, 1, 1]
    """
    if len({x.shape[0] for batch in batches for x in batch}) == 1:
        return list(batches)
    return [
        tuple(x[row : row + 1] for x in batch) for batch in batches for row in range(len(batch[0]))
    ]
