"""A search over hyperparameters: the same numbers from one process, from Dask and from Spark."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from labkit import tables
from labkit.clients import call_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pandas as pd


@dataclass(frozen=True)
class Row:
    """One point of the grid.

    Attributes:
        parameters: what the training was given.
        numbers: what it returned; empty if it did not.
        error: why there are none.
        machine_id: where it ran, see `labkit.clients.machine_id`.
    """

    parameters: Mapping[str, Any]
    numbers: Mapping[str, float] = field(default_factory=dict)
    error: str = ""
    machine_id: str = ""


@dataclass(frozen=True, repr=False)
class Search:
    """What each point of the grid gave, in the order of the grid."""

    rows: tuple[Row, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __repr__(self) -> str:
        # The same from run to run, so that a notebook's output stays comparable.
        return f"Search({len(self.rows)} points)"

    def best(self, quantity: str = "accuracy", *, least: bool = False) -> Row:
        """The row with the most of a quantity, the first of several.

        Args:
            quantity: a name that the training returned.
            least: the row with the least, as for a loss.

        Raises:
            KeyError: no row has it.
        """
        known = [r for r in self.rows if not math.isnan(r.numbers.get(quantity, math.nan))]
        if not known:
            names = list(dict.fromkeys(name for r in self.rows for name in r.numbers))
            raise KeyError(f"no row has {quantity!r}; there are {names}")
        choose = min if least else max
        return choose(known, key=lambda r: r.numbers[quantity])

    def agrees_with(self, other: Search) -> bool | None:
        """Whether both have the same numbers, wherever they were found.

        Returns:
            None where nothing differs, but a point has no numbers on one side or the other.

        >>> one = grid(lambda x: {"square": x * x}, {"x": [1, 2]})
        >>> one.agrees_with(one), one.agrees_with(grid(lambda x: {"square": x}, {"x": [1, 2]}))
        (True, False)
        """
        if [r.parameters for r in self.rows] != [r.parameters for r in other.rows]:
            return False
        pairs = list(zip(self.rows, other.rows, strict=True))
        known = [(one, two) for one, two in pairs if not (one.error or two.error)]
        if any(one.numbers != two.numbers for one, two in known):
            return False
        return True if len(known) == len(pairs) else None

    def _table(self) -> tuple[list[str], list[list[str]]]:
        parameters = list(self.rows[0].parameters)
        names = list(dict.fromkeys(name for r in self.rows for name in r.numbers))
        rows = [
            [
                *(str(r.parameters[name]) for name in parameters),
                *(f"{r.numbers[name]:.4g}" if name in r.numbers else "" for name in names),
                r.machine_id,
                r.error,
            ]
            for r in self.rows
        ]
        head = [*parameters, *names, "machine", "error"]
        if any(r.error for r in self.rows):
            return head, rows
        return head[:-1], [row[:-1] for row in rows]

    def to_frame(self) -> pd.DataFrame:
        """One row a point: parameters, numbers, machine, error."""
        import pandas as pd

        return pd.DataFrame(
            [
                {**r.parameters, **r.numbers, "machine": r.machine_id, "error": r.error}
                for r in self.rows
            ]
        )

    def __str__(self) -> str:
        return tables.text_table(*self._table())

    def _repr_html_(self) -> str:
        return tables.result_html(*self._table(), "hyperparameters")


def grid(
    train: Callable[..., Mapping[str, float]],
    parameters: Mapping[str, Sequence[Any]],
    *,
    client: Any = None,
    threads: int = 1,
) -> Search:
    """Train once at every point of a grid.

    Equal numbers need a training that sets its seeds, and machines of one kind: another processor
    may add in another order.

    Args:
        train: takes one value of each parameter, and returns numbers by name, such as
            ``{"accuracy": 0.97}``.
        parameters: the values to try, by name.
        client: a ``dask.distributed.Client`` or a ``pyspark.sql.SparkSession``, to train on the
            machines of a cluster; None: here, one after the other. A worker process trains one
            model at a time: for more at once, give it more processes.
        threads: of numerical libraries in each training. Sums depend on it in their last digits,
            so it is the same everywhere.

    Returns:
        A `Search`; a point that raises is kept with its reason.

    Raises:
        TypeError, ValueError: bad input, before anything is trained.
        WorkerError: Spark gave the job up.

    >>> found = grid(lambda rate: {"loss": (rate - 0.1) ** 2}, {"rate": [0.01, 0.1, 1.0]})
    >>> found.best("loss", least=True).parameters
    {'rate': 0.1}
    """
    if type(threads) is not int or threads < 1:
        raise ValueError(f"threads={threads!r}: give a whole number of at least 1")
    points = _points(train, parameters)

    def call(values: Mapping[str, Any]) -> dict[str, float]:
        with _threads(threads):
            return _numbers(train(**values))

    rows: dict[int, Row] = {}
    with contextlib.closing(call_on(client, call, points)) as outcomes:
        for found in outcomes:
            at = points[found.index]
            rows[found.index] = Row(at, found.value or {}, found.error, found.machine_id)
    return Search(tuple(rows[i] for i in range(len(points))))


def _points(train: Any, parameters: Any) -> list[dict[str, Any]]:
    if not callable(train):
        raise TypeError(f"train={train!r}: give a function of the parameters")
    if not isinstance(parameters, Mapping) or not parameters:
        raise ValueError(f'parameters={parameters!r}: give values by name, {{"rate": [0.1, 1.0]}}')
    for name, values in parameters.items():
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise ValueError(f"{name}={values!r}: give a list of at least one value")
    points = [
        dict(zip(parameters, values, strict=True))
        for values in itertools.product(*parameters.values())
    ]
    try:
        inspect.signature(train).bind(**points[0])
    except TypeError as error:
        name = getattr(train, "__name__", "train")
        raise TypeError(f"{name}() does not take {list(parameters)}: {error}") from None
    return points


def _numbers(returned: Any) -> dict[str, float]:
    if not isinstance(returned, Mapping) or not returned:
        raise TypeError(f'train returned {returned!r}: give numbers by name, {{"accuracy": 0.97}}')
    return {str(name): float(value) for name, value in returned.items()}


@contextlib.contextmanager
def _threads(number: int) -> Iterator[None]:
    """Numerical libraries with this many threads, loaded or yet to be imported."""
    import threadpoolctl
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        with threadpoolctl.threadpool_limits(number):
            yield
    finally:
        torch.set_num_threads(before)
