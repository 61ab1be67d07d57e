"""What one evaluation of a variant did inside torch: the evidence that `explain` weighs."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from labkit.machines import from_plain

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class OperatorUse:
    """All calls of one operator with the same shapes and dtypes.

    Attributes:
        name: as torch names it, such as "aten.addmm".
        dtype: of its first floating-point or quantized tensor, such as "float32"; empty if it
            takes none.
        device: of its first tensor.
        shapes: of its tensors, such as "8x64, 64x64".
        calls: how many of them one evaluation makes.
        time_s: all calls together, seconds.
        bytes_moved: tensors read and written, all calls together; nothing for a view.
    """

    name: str
    dtype: str
    device: str
    shapes: str
    calls: int
    time_s: float
    bytes_moved: int

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Equal for work that is the same."""
        return self.name, self.dtype, self.device, self.shapes


@dataclass(frozen=True)
class Trace:
    """One evaluation, seen operator by operator.

    A compiled function is seen as the operators that it was compiled from.

    Attributes:
        operators: in the order of their first call.
        flops: by torch.utils.flop_counter (products, convolutions, attention).
        working_set_bytes: all tensors that were touched, each once.
        transfer_bytes, transfer_s: copies between devices.
        dispatch_s: what torch needs for an operator on one number, on this device.
        threads: that torch used on the host.
        cpu_share: processor time over wall time of an evaluation; well below 1 means waiting.
        graphs: how many graphs torch.compile made for it.
        graph_breaks: reasons why it was compiled in pieces, with their number.
        skipped: why there is no trace, if there is none.
    """

    operators: tuple[OperatorUse, ...] = ()
    flops: int = 0
    working_set_bytes: int = 0
    transfer_bytes: int = 0
    transfer_s: float = 0.0
    dispatch_s: float = 0.0
    threads: int = 0
    cpu_share: float = 1.0
    graphs: int = 0
    graph_breaks: dict[str, int] = field(default_factory=dict, hash=False)
    skipped: str = ""

    @property
    def calls(self) -> int:
        """Operators that one evaluation runs."""
        return sum(o.calls for o in self.operators)

    @property
    def time_s(self) -> float:
        """Inside operators, seconds."""
        return sum(o.time_s for o in self.operators)

    @property
    def bytes_moved(self) -> int:
        """Read and written by all operators; what a compiler fuses away is counted."""
        return sum(o.bytes_moved for o in self.operators)

    @property
    def dtype(self) -> str:
        """In which most of the time is spent; empty without operators."""
        return self._most_time("dtype")

    @property
    def device(self) -> str:
        """On which most of the time is spent; empty without operators."""
        return self._most_time("device")

    def _most_time(self, attribute: str) -> str:
        times: dict[str, float] = {}
        for use in self.operators:
            if value := getattr(use, attribute):
                times[value] = times.get(value, 0.0) + use.time_s
        return max(times, key=lambda name: times[name], default="")

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Trace:
        """Read what `to_dict` wrote; unknown keys are ignored.

        Raises:
            ValueError: a value is missing or not of its type.
        """
        return from_plain(cls, data, "trace")  # type: ignore[no-any-return]


class CompileWatch:
    """What torch.compile did for each variant, from torch's own counters.

    Called as ``on_step`` is: with a name and a stage when somebody's code begins to run, and
    with None when it has ended.
    """

    _STAGES = ("setup", "agreement", "warm-up")

    def __init__(self) -> None:
        self.graphs: Counter[str] = Counter()
        self.breaks: dict[str, Counter[str]] = {}
        self._name: str | None = None
        self._graphs_before = 0
        self._breaks_before: Counter[str] = Counter()

    def __call__(self, name: str | None, stage: str) -> None:
        """A stage of a variant begins, or with None ends."""
        if self._name is None and stage not in self._STAGES:
            return
        graphs, breaks = _compiled()
        if self._name is not None:
            self.graphs[self._name] += graphs - self._graphs_before
            self.breaks.setdefault(self._name, Counter()).update(breaks - self._breaks_before)
        self._name = name if stage in self._STAGES else None
        self._graphs_before, self._breaks_before = graphs, breaks

    def add_to(self, trace: Trace, name: str) -> Trace:
        """The trace of a variant, with what torch.compile did for it.

        For a variant that was not watched (in a process that may have compiled it long ago) the
        graphs are those of the whole process: it may be compiled.
        """
        if name not in self.breaks:
            return replace(trace, graphs=_compiled()[0])
        breaks = dict(self.breaks[name])
        return replace(trace, graphs=self.graphs[name], graph_breaks=breaks)


def _compiled() -> tuple[int, Counter[str]]:
    """Graphs and graph breaks of this process so far."""
    module = sys.modules.get("torch._dynamo.utils")
    if module is None:
        return 0, Counter()
    counters = module.counters
    breaks = Counter({str(k).strip(): int(v) for k, v in counters["graph_break"].items()})
    return int(counters["stats"]["unique_graphs"]), breaks
