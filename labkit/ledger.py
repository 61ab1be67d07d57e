"""Where the memory of training goes: weights, gradients, optimizer state, activations.

The same training steps are run twice. Once on torch's "meta" device, where tensors have shapes and
no data: that is the prediction. Once for real, with the allocator's own records: that is the
measurement.
"""

from __future__ import annotations

import gc
import json
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from labkit import kineto
from labkit.eager import without_compiler
from labkit.units import format_bytes, format_share

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

PARTS = ("weights", "gradients", "optimizer state", "activations")
_MARK = "labkit ledger: "


@dataclass(frozen=True)
class Ledger:
    """Bytes by part.

    Attributes:
        weights_bytes: parameters and buffers.
        gradients_bytes: after the backward pass.
        optimizer_bytes: what the optimizer keeps from step to step.
        activations_bytes: what the forward pass keeps for the backward pass.
        peak_bytes: the most at any moment, with what an operator holds while it runs.
        timeline: (phase, bytes in all) after each phase.

    The batch is left out everywhere.
    """

    weights_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int
    peak_bytes: int = 0
    timeline: tuple[tuple[str, int], ...] = ()

    @property
    def parts(self) -> dict[str, int]:
        """Bytes by the name of the part."""
        numbers = (
            self.weights_bytes,
            self.gradients_bytes,
            self.optimizer_bytes,
            self.activations_bytes,
        )
        return dict(zip(PARTS, numbers, strict=True))

    @property
    def total_bytes(self) -> int:
        """All four: what training needs at least."""
        return sum(self.parts.values())


@dataclass(frozen=True, repr=False)
class MemoryLedger:
    """The prediction and the measurement of the same training steps, side by side.

    Attributes:
        predicted: from the shapes.
        measured: from the allocator.
        device: where it was measured.
    """

    predicted: Ledger
    measured: Ledger
    device: str

    @property
    def error(self) -> float:
        """By what share the prediction of all four together is off."""
        return abs(self.predicted.total_bytes / max(1, self.measured.total_bytes) - 1)

    def _rows(self) -> list[list[str]]:
        pairs = [(n, self.predicted.parts[n], self.measured.parts[n]) for n in PARTS]
        pairs.append(("all four", self.predicted.total_bytes, self.measured.total_bytes))
        pairs.append(("peak", self.predicted.peak_bytes, self.measured.peak_bytes))
        return [
            [name, format_bytes(one), format_bytes(two), _off(one, two)] for name, one, two in pairs
        ]

    def to_frame(self) -> pd.DataFrame:
        """One row a part: part, predicted_bytes, measured_bytes."""
        import pandas as pd

        return pd.DataFrame(
            {
                "part": PARTS,
                "predicted_bytes": list(self.predicted.parts.values()),
                "measured_bytes": list(self.measured.parts.values()),
            }
        )

    def plot(self) -> Figure:
        """Predicted and measured bytes of each part, and all of them over the steps."""
        from functools import partial

        from labkit import descriptions
        from labkit.figures import GRID, new_figure, style
        from labkit.scales import set_bytes_axis

        figure = new_figure(9.0, 3.6, partial(descriptions.ledger, self))
        parts, times = figure.subplots(1, 2)
        names = list(self.predicted.parts)
        largest = max(*self.predicted.parts.values(), *self.measured.parts.values(), 2**20)
        for number, (label, side) in enumerate(
            (("predicted", self.predicted), ("measured", self.measured)), start=1
        ):
            colour, marker, line = style(number)
            rows = [row + 0.4 * (number - 1.5) for row in range(len(names))]
            parts.barh(rows, list(side.parts.values()), height=0.36, color=colour, label=label)
            held = [n for _, n in side.timeline]
            if number == 1:
                # Broad and pale, so that it shows below a measurement that lies on it.
                times.plot(held, color=colour, linewidth=7, alpha=0.75)
            else:
                times.plot(held, line, marker=marker, color=colour, markersize=5)
        parts.set_yticks(range(len(names)), names)
        parts.invert_yaxis()
        parts.set_xlim(0, largest * 1.05)
        set_bytes_axis(parts.xaxis, largest, 2)
        top = max(n for side in (self.predicted, self.measured) for _, n in side.timeline)
        times.set_ylim(0, top * 1.1)
        set_bytes_axis(times.yaxis, top, 2)
        phases = [phase for phase, _ in self.measured.timeline]
        times.set_xticks(range(len(phases)), phases, rotation=45, ha="right", fontsize="small")
        times.set_ylabel("held after the phase")
        for axes in (parts, times):
            axes.grid(**GRID)
            axes.set_axisbelow(True)
        figure.legend(
            *parts.get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False
        )
        return figure

    def __repr__(self) -> str:
        # The same from run to run, so that a notebook's output stays comparable.
        return f"MemoryLedger({self.device})"

    def __str__(self) -> str:
        from labkit import tables

        return tables.text_table(_HEAD, self._rows())

    def _repr_html_(self) -> str:
        from labkit import tables

        return tables.result_html(_HEAD, self._rows(), f"Memory of training ({self.device})")


_HEAD = ["part", "predicted from shapes", "measured", "off by"]


def _off(predicted: int, measured: int) -> str:
    if not measured:
        return "" if predicted else format_share(0.0)
    return format_share(round(predicted / measured - 1, 3) + 0.0)


def memory_ledger(
    model: Callable[[], torch.nn.Module],
    optimizer: Callable[[Iterator[torch.nn.Parameter]], torch.optim.Optimizer],
    batch: Callable[[], Any],
    loss: Callable[[torch.nn.Module, Any], torch.Tensor],
    *,
    steps: int = 2,
    device: str = "cpu",
) -> MemoryLedger:
    """Predict and measure the memory of some training steps.

    Args:
        model: makes the model; called with ``device`` as torch's default device, so it need not
            name one.
        optimizer: makes the optimizer from the parameters.
        batch: makes one batch; it is not counted.
        loss: runs the model on a batch and gives the loss.
        steps: at least 2: the first one makes the optimizer's state.
        device: where to measure.

    Raises:
        ValueError: fewer than 2 steps.

    >>> from torch import nn
    >>> found = memory_ledger(
    ...     model=lambda: nn.Linear(1000, 1000, bias=False),
    ...     optimizer=torch.optim.Adam,
    ...     batch=lambda: torch.ones(8, 1000),
    ...     loss=lambda model, x: model(x).sum(),
    ... )
    >>> found.predicted.weights_bytes, found.predicted.optimizer_bytes >= 8_000_000
    (4000000, True)
    >>> found.error < 0.05
    True
    """
    if steps < 2:
        raise ValueError(f"steps={steps}: give at least 2; the first makes the optimizer's state")

    def run(mark: Callable[[str], Any], place: str) -> None:
        with torch.device(place):
            with mark("batch"):
                data = batch()
            with mark("weights"):
                made = model()
            steered = optimizer(made.parameters())
            for _ in range(steps):
                with mark("forward"):
                    value = loss(made, data)
                with mark("backward"):
                    value.backward()  # type: ignore[no-untyped-call]
                with mark("optimizer"):
                    steered.step()
                with mark("zero"):
                    steered.zero_grad()
                    del value

    predicted = _with_live_storages(run)
    if torch.device(device).type == "cpu":
        measured = _with_profiler(run)
    else:
        measured = _with_allocator(run, device)
    return MemoryLedger(_ledger(predicted), _ledger(measured), device)


_Run = Callable[[Callable[[str], Any], str], None]
# (phase, bytes that it added) for each phase, and the most bytes at any moment, the batch included.
_Seen = tuple[list[tuple[str, int]], int]


def _ledger(seen: _Seen) -> Ledger:
    """From what each phase added to the four parts."""
    phases, peak_bytes = seen
    added: dict[str, list[int]] = {}
    timeline, total = [], 0
    for phase, amount in phases:
        added.setdefault(phase, []).append(amount)
        if phase != "batch":
            total += amount
            timeline.append((phase, total))
    activations = added["forward"][-1]
    return Ledger(
        weights_bytes=added["weights"][0],
        # The backward pass frees the activations while it makes the gradients.
        gradients_bytes=added["backward"][-1] + activations,
        optimizer_bytes=sum(added["optimizer"]),
        activations_bytes=activations,
        peak_bytes=peak_bytes - added["batch"][0],
        timeline=tuple(timeline),
    )


class _LiveStorages(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all tensors that were made below it and still live."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0
        self.peak_bytes = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.device.type == "meta":
                self._watch(leaf.untyped_storage())
        return result

    def _watch(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()  # noqa: SLF001
        if key in self._seen:
            return
        self._seen.add(key)
        self.bytes += size
        self.peak_bytes = max(self.peak_bytes, self.bytes)

        def gone() -> None:
            self._seen.discard(key)
            self.bytes -= size

        weakref.finalize(storage, gone)


def _with_live_storages(run: _Run) -> _Seen:
    phases = []
    without_compiler(_LiveStorages.__torch_dispatch__)
    storages = _LiveStorages()

    @contextmanager
    def mark(name: str) -> Iterator[None]:
        before = storages.bytes
        yield
        phases.append((name, storages.bytes - before))

    with storages:
        run(mark, "meta")
    return phases, storages.peak_bytes


def _with_profiler(run: _Run) -> _Seen:
    """The host has no counter of what torch holds; the profiler records every allocation."""
    kineto.quiet()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as seen:
        run(lambda name: record_function(_MARK + name), "cpu")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        seen.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    amounts = sorted((e["ts"], e["args"]["Bytes"]) for e in events if e.get("name") == "[memory]")
    spans = sorted(
        (e["ts"], e["ts"] + e["dur"], e["name"].removeprefix(_MARK))
        for e in events
        if str(e.get("name", "")).startswith(_MARK) and "dur" in e
    )
    held = accumulate(n for t, n in amounts if t >= spans[0][0])
    phases = [(name, sum(n for t, n in amounts if a <= t <= b)) for a, b, name in spans]
    return phases, max(held)


def _with_allocator(run: _Run, device: str) -> _Seen:
    phases = []

    @contextmanager
    def mark(name: str) -> Iterator[None]:
        before = torch.accelerator.memory_allocated(device)
        yield
        torch.accelerator.synchronize(device)
        phases.append((name, torch.accelerator.memory_allocated(device) - before))

    gc.collect()
    torch.accelerator.reset_peak_memory_stats(device)
    before_bytes = torch.accelerator.memory_allocated(device)
    run(mark, device)
    return phases, torch.accelerator.max_memory_allocated(device) - before_bytes
