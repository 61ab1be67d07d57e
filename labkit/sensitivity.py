"""Which layers can bear a change: each changed alone, the rest left as it is."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from labkit.usage import return_free_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pandas as pd
    from matplotlib.figure import Figure

KINDS = (nn.Linear, nn.Conv2d)


@dataclass(frozen=True)
class Change:
    """Something that can be done to a layer.

    Attributes:
        apply: from a layer to its replacement; the layer given may be changed in place.
        share: of the layer's weight bytes that are left, such as 4 / 32 for 4 bits.
    """

    apply: Callable[[nn.Module], nn.Module]
    share: float

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share={self.share}: give a number above 0 and at most 1")


@dataclass(frozen=True)
class Sensitivity:
    """The quality of a model with one layer changed, for each layer and change.

    Attributes:
        quality: of the model as it is.
        alone: quality by layer, then by name of the change.
        bytes_of: bytes of weights by layer, as they are.
        shares: by name of the change.
    """

    quality: float
    alone: Mapping[str, Mapping[str, float]]
    bytes_of: Mapping[str, int]
    shares: Mapping[str, float]

    def within(self, lost: float) -> dict[str, str | None]:
        """For each layer the change that leaves the fewest bytes and alone costs at most ``lost``.

        Args:
            lost: quality, in the units of ``evaluate``.

        Returns:
            The name of a change by layer; None where every change costs more.
        """
        chosen: dict[str, str | None] = {}
        for layer, found in self.alone.items():
            fine = [name for name, quality in found.items() if self.quality - quality <= lost]
            chosen[layer] = min(fine, key=lambda name: self.shares[name], default=None)
        return chosen

    def bytes_with(self, chosen: Mapping[str, str | None]) -> float:
        """Bytes of weights that are left with these changes."""
        left = 0.0
        for layer, whole in self.bytes_of.items():
            name = chosen.get(layer)
            left += whole * (1.0 if name is None else self.shares[name])
        return left

    def to_frame(self) -> pd.DataFrame:
        """One row a layer: its bytes, and the quality lost by each change."""
        import pandas as pd

        rows = [
            {
                "layer": layer,
                "weight_bytes": self.bytes_of[layer],
                **{f"lost: {name}": self.quality - quality for name, quality in found.items()},
            }
            for layer, found in self.alone.items()
        ]
        return pd.DataFrame(rows).set_index("layer")

    def plot(self) -> Figure:
        """The quality with one layer changed: a line for each change, over the layers."""
        from functools import partial

        from labkit import descriptions
        from labkit.figures import COLOURS, GRID, new_figure, style
        from labkit.scales import cut
        from labkit.units import format_bytes

        figure = new_figure(7.0, 3.6, partial(descriptions.sensitivity, self))
        axes = figure.add_subplot()
        layers = list(self.alone)
        axes.axhline(self.quality, color=COLOURS[0], linewidth=1.2, label="nothing changed")
        for number, name in enumerate(self.shares, start=1):
            colour, marker, line = style(number)
            found = [self.alone[layer][name] for layer in layers]
            axes.plot(found, line, marker=marker, color=colour, label=name)
        labels = [f"{cut(n, 14)}\n{format_bytes(self.bytes_of[n])}" for n in layers]
        axes.set_xticks(range(len(layers)), labels, fontsize="small")
        axes.set_xlabel("the layer that is changed, and its weights")
        axes.set_ylabel("quality")
        axes.grid(**GRID)
        figure.legend(loc="outside upper center", ncols=min(4, 1 + len(self.shares)), frameon=False)
        return figure


def sensitivity(
    model: nn.Module,
    changes: Mapping[str, Change],
    evaluate: Callable[[nn.Module], float],
    *,
    kinds: tuple[type[nn.Module], ...] = KINDS,
) -> Sensitivity:
    """Change one layer at a time and evaluate.

    Args:
        model: left as it is.
        changes: by name.
        evaluate: from a model to its quality; more is better.
        kinds: of layers that are changed.

    Raises:
        ValueError: no changes, or no layers of these kinds.

    >>> import torch
    >>> def zeroed(layer):
    ...     torch.nn.init.zeros_(layer.weight)
    ...     return layer
    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    >>> found = sensitivity(
    ...     model, {"zero": Change(zeroed, 0.1)}, lambda m: float(m[0].weight.norm() > 0)
    ... )
    >>> found.alone
    {'0': {'zero': 0.0}, '1': {'zero': 1.0}}
    >>> found.within(0.5)
    {'0': None, '1': 'zero'}
    """
    layers = {name: part for name, part in model.named_modules() if isinstance(part, kinds)}
    if not changes:
        raise ValueError("changes={}: give at least one")
    if not layers:
        words = ", ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"the model has no layer of {words}")
    alone: dict[str, dict[str, float]] = {}
    for layer in layers:
        alone[layer] = {name: evaluate(changed(model, changes, {layer: name})) for name in changes}
        return_free_memory(collect=False)
    return Sensitivity(
        evaluate(model),
        alone,
        {name: _weight_bytes(layer) for name, layer in layers.items()},
        {name: change.share for name, change in changes.items()},
    )


def changed(
    model: nn.Module, changes: Mapping[str, Change], chosen: Mapping[str, str | None]
) -> nn.Module:
    """A copy of the model with these layers changed.

    Args:
        model: left as it is.
        changes: by name.
        chosen: the name of a change by layer; None leaves a layer alone.
    """
    result = copy.deepcopy(model)
    for layer, name in chosen.items():
        if name is None:
            continue
        replacement = changes[name].apply(result.get_submodule(layer))
        if layer == "":
            # The model is a single layer.
            result = replacement
        else:
            result.set_submodule(layer, replacement)
    return result


def _weight_bytes(layer: nn.Module) -> int:
    weight = layer.weight
    return int(weight.numel() * weight.element_size())  # type: ignore[operator]
