"""Models that answer the same inputs, as variants to compare."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from labkit.variants import Variant

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def variants(
    models: Mapping[str, nn.Module | Callable[[], Any]],
    *inputs: torch.Tensor,
    metrics: Callable[[Any], Mapping[str, float]] | None = None,
) -> dict[str, Variant]:
    """One variant for each model: what it says to these inputs, without gradients.

    Args:
        models: by name, the first one the baseline: a module, or a function of nothing that makes
            one (compiles it, quantizes it, reads a file). It is called in the worker, before
            anything is timed.
        *inputs: what every model is called with, of any shape; often one tensor, the batch in
            its first dimension.
        metrics: from a model to numbers that are shown beside its time, such as
            ``{"accuracy": 0.97}``; worked out once in the worker.

    Raises:
        TypeError: a model that is neither, or an input that is no tensor.
        ValueError: no models, or no inputs.

    >>> import labkit as lab
    >>> narrow, wide = nn.Linear(64, 8), nn.Linear(64, 4096)
    >>> found = lab.compare(
    ...     variants({"wide": wide, "narrow": narrow}, torch.rand(8, 64)), budget_s=1, threads=1
    ... )
    >>> found["narrow"].verdict.value
    'faster'
    """
    if not models:
        raise ValueError("models={}: give at least one, by name")
    if not inputs:
        raise ValueError("give what the models are called with, such as variants(models, images)")
    for given in inputs:
        if not isinstance(given, torch.Tensor):
            raise TypeError(
                f"an input is a {type(given).__name__}: give tensors, as the models are called with"
            )
    # A slice brings along all that it was cut from when it is sent to the worker.
    answer = partial(_answer, tuple(given.clone() for given in inputs))
    return {
        name: Variant(answer, setup=_setup(name, model), metrics={} if metrics is None else metrics)
        for name, model in models.items()
    }


def _setup(name: str, model: Any) -> Callable[[], Any]:
    if isinstance(model, nn.Module):
        return partial(_itself, model)
    if not callable(model):
        raise TypeError(
            f"models[{name!r}] is a {type(model).__name__}: give a torch.nn.Module, or a function "
            "that makes one, such as lambda: quantized(model)"
        )
    return model  # type: ignore[no-any-return]


def _itself(model: nn.Module) -> nn.Module:
    return model


def _answer(inputs: tuple[torch.Tensor, ...], model: Any) -> Any:
    with torch.no_grad():
        return model(*inputs)
