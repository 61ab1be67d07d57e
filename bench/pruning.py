"""What pruning gains on this machine: time where channels go, bytes where zeros are coded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

import labkit as lab
from bench.digits import cnn, digits
from bench.report import Part, Row

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from labkit.results import Comparison

_WIDTHS = {"half width": (0.5, 3.0), "quarter width": (0.25, 6.0)}
# Channels of the four convolutions, and outputs of the dense layer: 2 million weights each.
_NETWORKS = (((64, 64, 128, 256), 384), ((32, 128, 256, 256), 256))


class _Digits:
    """The data, and what is done with them."""

    def __init__(self) -> None:
        self.train = digits("train")
        self.test = digits("test")
        self.one = (self.test[0][:1],)

    def tune(self, model: nn.Module, steps: int = 120, rate: float = 1e-3) -> None:
        lab.training.fit(model, *self.train, steps=steps, rate=rate)

    def loss(self, model: nn.Module) -> torch.Tensor:
        images, labels = self.train
        return lab.training.cross_entropy(model, images[:256], labels[:256])

    def accuracy(self, model: nn.Module) -> float:
        return lab.training.accuracy(model, *self.test)


def pruning(*, quick: bool = False) -> Part:
    """Speed, size and accuracy of two CNNs of 2 million weights, pruned."""
    data = _Digits()
    rows = []
    for widths, dense in _NETWORKS:
        torch.manual_seed(0)
        model, name = cnn(widths, dense), "-".join(map(str, widths))
        data.tune(model, rate=2e-3)
        rows += _channel_rows(name, model, data, 3.0 if quick else 15.0)
        if not quick:
            rows += _coded_rows(name, model, data)
    notes = (
        "Against eager float32 of the full width in the same rounds, with as many threads as "
        "there are usable cores. Channels by first-order importance, with 120 steps of training. "
        "Pooling shrinks with the width, products with its square: the larger its share, the "
        "further the time saved is from the FLOPs saved. Weights and images in channels_last: in "
        "the other order, pooling takes half of the time of a narrow network. Where the full "
        "width gets its memory anew from the operating system in every evaluation (results of "
        "8 MB; whether it does depends on what the process has allocated before), it takes up to "
        "twice as long, and the narrow networks, which do not, save more than their FLOPs say. "
        "Where the last column names a narrow one, too, its gain is the smaller for it, and "
        "another run may find another figure."
    )
    return Part("Pruning", tuple(rows), notes)


def _channel_rows(name: str, model: nn.Module, data: _Digits, budget_s: float) -> list[Row]:
    settings: Mapping[str, Any] = {"importance": "taylor", "loss": data.loss}
    made = {"full width": model} | {
        label: lab.prune.channels(model, data.one, width, data.tune, **settings)
        for label, (width, _) in _WIDTHS.items()
    }
    for pruned in made.values():
        pruned.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = data.test[0][:32].to(memory_format=torch.channels_last)
    found = _compare(made, images, budget_s)
    exact, whole = data.accuracy(model), lab.prune.count(model, data.one)
    paged = [caveat.variant for caveat in found.caveats if caveat.kind == "page faults"]
    rows = []
    for label, (_, least) in _WIDTHS.items():
        ratio, counts = found[label], lab.prune.count(made[label], data.one)
        lost = 100 * (exact - data.accuracy(made[label]))
        what = f"CNN {name}, {label}"
        peers = {
            "FLOPs": f"{whole.flops / counts.flops:.1f}x fewer",
            "parameters": f"{whole.parameters / counts.parameters:.1f}x fewer",
            "memory anew": ", ".join(filter(None, paged)) or "none",
        }
        seen = f"{ratio.speedup:.2f}x {ratio.interval_text}"
        rows.append(
            Row(f"{what}, batch 32", f"at least {least:g}x", seen, ratio.speedup >= least, peers)
        )
        rows.append(_lost(what, lost, exact))
    return rows


def _compare(models: Mapping[str, nn.Module], images: torch.Tensor, budget_s: float) -> Comparison:
    def answer(model: nn.Module) -> Any:
        with torch.no_grad():
            return model(images)

    return lab.compare(
        {
            name: lab.Variant(answer, setup=lambda model=model: model)  # type: ignore[misc]
            for name, model in models.items()
        },
        threads=lab.machine().usable_threads,
        budget_s=budget_s,
        resolution=0.05,
        trace=False,
    )


def _coded_rows(name: str, model: nn.Module, data: _Digits) -> list[Row]:
    gradual = lab.prune.gradual(model, 0.7, lambda part: data.tune(part, 80), turns=4)
    small = lab.clusters.clustered(gradual, 5)
    packed = lab.clusters.pack(small)
    smaller = lab.quantize.size_bytes(model) / len(packed)
    exact = data.accuracy(model)
    lost = 100 * (exact - data.accuracy(lab.clusters.unpack(packed, model)))
    what = f"CNN {name}, 70 % zeros, 5 bits, coded"
    return [
        Row(what, "at least 10x smaller", f"{smaller:.1f}x", smaller >= 10, {}),
        _lost(what, lost, exact),
    ]


def _lost(what: str, lost: float, exact: float) -> Row:
    seen = f"{lost:+.1f} points of {exact:.1%}"
    return Row(f"{what}, accuracy lost", "at most 1 point", seen, lost <= 1, {})
