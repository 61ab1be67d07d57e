"""Distillation: a small model learns from a large one. Model to model."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from labkit import training
from labkit.layers import check_modules

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.utils.hooks import RemovableHandle


def mixed_loss(
    answers: torch.Tensor,
    teacher: torch.Tensor,
    labels: torch.Tensor,
    *,
    temperature: float = 4.0,
    share: float = 0.9,
) -> torch.Tensor:
    """Learn the teacher's opinion and the labels together.

    Args:
        answers: logits of the student, of shape (rows, classes).
        teacher: logits of the teacher, of the same shape.
        labels: of shape (rows,).
        temperature: both logits are divided by it before softmax: the higher, the more the small
            probabilities count, which tell what resembles what.
        share: of the teacher's opinion, from 0 (labels alone) to 1.

    Raises:
        ValueError: a temperature that is not above 0, or a share that is none.

    Source: Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015; the
    square of the temperature keeps the gradients of both parts in proportion.

    >>> right = torch.tensor([[9.0, 0.0]])
    >>> float(mixed_loss(right, right, torch.tensor([0]), share=1.0))
    0.0
    """
    if not temperature > 0:
        raise ValueError(f"temperature={temperature}: give a number above 0")
    if not 0 <= share <= 1:
        raise ValueError(f"share={share}: give a number from 0 to 1")
    soft = nn.functional.kl_div(
        torch.log_softmax(answers / temperature, dim=1),
        torch.log_softmax(teacher / temperature, dim=1),
        log_target=True,
        reduction="batchmean",
    )
    hard = nn.functional.cross_entropy(answers, labels)
    return share * temperature**2 * soft + (1 - share) * hard


def distill(
    student: nn.Module,
    teacher: nn.Module,
    inputs: torch.Tensor,
    labels: torch.Tensor,
    *,
    temperature: float = 4.0,
    share: float = 0.9,
    features: tuple[str, str] | None = None,
    feature_share: float = 1.0,
    **settings: Any,
) -> nn.Module:
    """Train a copy of a student with a teacher's answers beside the labels.

    Args:
        student: where the training starts from; left as it is.
        teacher: answers, and learns nothing.
        inputs: of shape (rows, ...).
        labels: of shape (rows,).
        temperature: as in `mixed_loss`.
        share: as in `mixed_loss`.
        features: names of a module of the student and one of the teacher whose outputs are to
            match as well, after a linear map that is learned and thrown away; None: answers
            alone.
        feature_share: weight of that match beside `mixed_loss`.
        **settings: of `labkit.training.fit` (``steps``, ``rate``, ``batch``, ``seed``).

    Raises:
        ValueError: an unknown module, or as `mixed_loss` and `labkit.training.fit`.

    Source: Hinton, Vinyals and Dean, 2015; Romero et al., "FitNets: hints for thin deep nets",
    2014, for the features.

    >>> x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    >>> teacher = nn.Linear(8, 3).eval()
    >>> labels = teacher(x).argmax(1)
    >>> taught = distill(nn.Linear(8, 3), teacher, x, labels, steps=200, rate=0.1)
    >>> training.accuracy(taught, x, labels) > 0.9
    True
    """
    result, guide = copy.deepcopy(student), copy.deepcopy(teacher).eval()
    extra = nn.ModuleDict()
    seen: dict[str, torch.Tensor] = {}
    hook: RemovableHandle | None = None
    if features is not None:
        check_modules(result, features[:1])
        check_modules(guide, features[1:])
        hook = result.get_submodule(features[0]).register_forward_hook(_keeper(seen, "student"))
        guide.get_submodule(features[1]).register_forward_hook(_keeper(seen, "teacher"))
        with torch.no_grad():
            result(inputs[:2]), guide(inputs[:2])
        sizes = [_pooled(seen[who]).shape[1] for who in ("student", "teacher")]
        extra["map"] = nn.Linear(sizes[0], sizes[1])

    def loss(both: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            opinion = guide(x)
        value = mixed_loss(
            both["student"](x),  # type: ignore[index]
            opinion,
            y,
            temperature=temperature,
            share=share,
        )
        if features is not None:
            mapped = both["map"](_pooled(seen["student"]))  # type: ignore[index]
            value = value + feature_share * nn.functional.mse_loss(mapped, _pooled(seen["teacher"]))
        return value

    extra["student"] = result
    training.fit(extra, inputs, labels, loss=loss, **{"title": "distilling", **settings})
    if hook is not None:
        hook.remove()
    return result


def _keeper(seen: dict[str, torch.Tensor], who: str) -> Callable[..., None]:
    def keep(_: nn.Module, __: Any, output: torch.Tensor) -> None:
        seen[who] = output

    return keep


def _pooled(features: torch.Tensor) -> torch.Tensor:
    """Channels, averaged over the picture or the sequence, and scaled to length one."""
    flat = features.flatten(2).mean(2) if features.dim() > 2 else features
    return nn.functional.normalize(flat, dim=1)
