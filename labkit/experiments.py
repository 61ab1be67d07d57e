"""Parameters, and a function from them to variants."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any

from labkit.claims import missing_here
from labkit.clients import call_on, stop_if_unwanted
from labkit.machines import machine
from labkit.parameters import parse_all
from labkit.recorder import Settings
from labkit.results import Comparison
from labkit.samplers import check_device
from labkit.sweeps import Sweep, SweepPoint
from labkit.variants import Variant, as_variants
from labkit.worker import Run

if TYPE_CHECKING:
    from labkit.claims import Claim
    from labkit.panel import Panel

Variants = Mapping[str, "Callable[[], Any] | Variant"]


def experiment(**parameters: Any) -> Callable[[Callable[..., Variants]], Experiment]:
    """Make an experiment of a function that returns variants.

    Args:
        **parameters: what each parameter may be, in the abbreviations of
            `ipywidgets.interact`: a list of choices, ``(lowest, highest)``,
            ``(lowest, highest, step)``, a number, a text, or True / False. A parameter named
            ``threads`` or ``device`` also sets the worker's.

    Raises:
        TypeError, ValueError: they do not fit the function's signature.

    >>> @experiment(size=[100, 1000], reverse=False)
    ... def sorting(size, reverse):
    ...     numbers = list(range(size, 0, -1) if reverse else range(size))
    ...     return {"sorted": lambda: sorted(numbers), "copy": lambda: list(numbers)}
    >>> sorting
    Experiment(sorting: size, reverse)
    >>> sorting.defaults
    {'size': 100, 'reverse': False}
    >>> sorting.run(size=1000, budget_s=2)["copy"].speedup > 0
    True
    """

    def decorate(function: Callable[..., Variants]) -> Experiment:
        return Experiment(function, parameters)

    return decorate


class Experiment:
    """What `experiment` makes of a function. Call it to get its variants.

    Attributes:
        function: the function that was decorated.
        parameters: what each parameter may be.
        name: the function's name, with spaces.
        known_names: the variants that the last call returned, the baseline first; empty
            before the first.
    """

    def __init__(self, function: Callable[..., Variants], parameters: Mapping[str, Any]) -> None:
        if not callable(function):
            raise TypeError(f"{function!r} is no function: write @experiment(...) above a def")
        self.function = function
        self.parameters = parse_all(function, parameters)
        self.name = getattr(function, "__name__", "experiment").replace("_", " ")
        self.__doc__ = function.__doc__
        self.known_names: tuple[str, ...] = ()

    @property
    def defaults(self) -> dict[str, Any]:
        """The value of every parameter if none is given."""
        return {name: p.default for name, p in self.parameters.items()}

    def check(self, **given: Any) -> dict[str, Any]:
        """All parameters, checked, with defaults for those not given.

        Raises:
            TypeError: an unknown parameter.
            ValueError: a value that is not allowed.
        """
        for word in given:
            if word not in self.parameters:
                raise TypeError(
                    f"{self.name} has no parameter {word!r}; it has {list(self.parameters)}"
                )
        return {
            name: p.check(given[name]) if name in given else p.default
            for name, p in self.parameters.items()
        }

    def __call__(self, **given: Any) -> dict[str, Variant]:
        """The variants for these parameters."""
        variants = as_variants(self.function(**self.check(**given)))
        if len(variants) < 2:
            raise ValueError(
                f"{self.name} returned {len(variants)} variants: {list(variants)}; a comparison "
                "needs at least two"
            )
        self.known_names = tuple(variants)
        return variants

    def prepare(
        self,
        *,
        agree: Callable[[Any, Any], Any] | None = None,
        prediction: float | None = None,
        budget_s: float = 5.0,
        confidence: float = 0.95,
        resolution: float = 0.02,
        memory: bool = False,
        deadline_s: float = 60.0,
        trace: bool = True,
        at_once: int = 1,
        **given: Any,
    ) -> Run:
        """A `Run` that is ready to start; for callers that do not want to block.

        Args:
            agree: as in `labkit.compare`, and so are the next six.
            budget_s: seconds.
            confidence: a probability.
            resolution: a share.
            memory: also measure peak memory.
            deadline_s: seconds.
            trace: whether to look at the operators for `Comparison.explain`.
            at_once: how many runs that say so may be measured on this machine at the same time,
                on cores of their own; never more than there are cores for. 1: alone.
            prediction: the speed-up of the last variant that somebody expects.
            **given: parameters.
        """
        parameters = self.check(**given)
        threads, device = parameters.get("threads"), parameters.get("device")
        settings = Settings(
            budget_s=budget_s,
            confidence=confidence,
            resolution=resolution,
            memory=memory,
            deadline_s=deadline_s,
            trace=trace,
            at_once=at_once,
            threads=threads if isinstance(threads, int) else None,
            device=device if isinstance(device, str) else None,
        )
        check_device(settings.device)
        if prediction is not None and not prediction > 0:
            raise ValueError(f"prediction={prediction!r}: give a speed-up above 0, such as 2.0")
        about = {"parameters": parameters, "title": self.name, "prediction": prediction}
        return Run(self(**given), settings, agree=agree, about=about)

    def run(self, *, on_change: Callable[[Run], None] | None = None, **given: Any) -> Comparison:
        """Measure once, without a front end, in the worker; blocks until the end.

        Args:
            on_change: called with the `Run` whenever there is news.
            **given: parameters of the experiment and settings of `prepare`.

        Returns:
            A `Comparison` that knows its parameters.
        """
        return self.prepare(**given).wait(on_change)

    def sweep(
        self,
        *,
        client: Any = None,
        on_point: Callable[[SweepPoint], None] | None = None,
        **given: Any,
    ) -> Sweep:
        """Measure over a grid of parameters.

        Each point is measured whole on one machine, and says on which. On one machine points are
        measured one after the other, however many workers a client has there: ``at_once=2`` lets
        two of them share it, on half of the cores each, with a caveat that says so.

        A point whose worker is lost is measured again. Where it ends its worker time after time
        it is given up with the reason, and so is what a lost scheduler leaves over; all other
        points are kept. An interrupt cancels what is under way.

        Args:
            client: a ``dask.distributed.Client`` to spread the points over its workers; the
                machines need labkit, and each worker measures one point at a time. A script that
                starts a ``LocalCluster`` needs ``if __name__ == "__main__":``. A
                ``pyspark.sql.SparkSession`` works too; it gives all points at the end.
            on_point: called with each point when it is there, in the order of arrival.
            **given: a list (or other sequence) of values for each parameter to sweep over, a
                single value for the others, and settings of `prepare`.

        Returns:
            A `Sweep` in the order of the grid; a point that raises is kept with its reason.

        Raises:
            TypeError, ValueError: bad input, before anything is measured.
        """
        swept, grid, fixed = self.plan_sweep(**given)
        self._check_settings({k: v for k, v in fixed.items() if k not in self.parameters})
        points: dict[int, SweepPoint] = {}
        measure = functools.partial(_measure_point, self, fixed)
        with contextlib.closing(call_on(client, measure, grid)) as outcomes:
            for found in outcomes:
                point = SweepPoint(grid[found.index], found.value, found.error, found.machine_id)
                points[found.index] = point
                if on_point is not None:
                    on_point(point)
        return Sweep(swept, tuple(points[i] for i in range(len(grid))), title=self.name)

    def _check_settings(self, given: Mapping[str, Any]) -> None:
        """Refuse what `prepare` would, once and not at every point."""
        known = {p.name for p in signature(self.prepare).parameters.values()} - {"given"}
        self.check(**{name: value for name, value in given.items() if name not in known})
        others = ("agree", "prediction")
        Settings(**{name: v for name, v in given.items() if name in known and name not in others})

    def plan_sweep(
        self, **given: Any
    ) -> tuple[tuple[str, ...], list[dict[str, Any]], dict[str, Any]]:
        """Read what `sweep` is given, without measuring.

        Returns:
            The names that are swept over, the points of the grid (the swept values of each),
            and everything else that was given.

        Raises:
            TypeError, ValueError: as `sweep`.
        """
        swept = {
            name: list(values)
            for name, values in given.items()
            if name in self.parameters
            and isinstance(values, Sequence)
            and not isinstance(values, str)
        }
        if not swept:
            raise ValueError(
                "a sweep needs a list of values for at least one parameter, such as "
                f"{next(iter(self.parameters), 'size')}=[...]; run() measures one point"
            )
        for name, values in swept.items():
            if not values:
                raise ValueError(f"{name}=[]: give at least one value")
        fixed = {name: value for name, value in given.items() if name not in swept}
        grid = [
            dict(zip(swept, values, strict=True)) for values in itertools.product(*swept.values())
        ]
        chosen = {name: value for name, value in fixed.items() if name in self.parameters}
        for point in grid:
            self.check(**chosen, **point)
        return tuple(swept), grid, fixed

    def claim(
        self,
        name: str,
        *,
        faster_than: str | None = None,
        slower_than: str | None = None,
        same_as: str | None = None,
        less_memory_than: str | None = None,
        by: float | None = None,
        within: float | None = None,
        needs: str | tuple[str, ...] | None = None,
        **given: Any,
    ) -> Claim:
        """Measure once, as `run` does, and say whether a sentence about the result holds.

        Args:
            name: the variant that the sentence is about.
            faster_than: as in `labkit.Comparison.claim`, and so are the next six.
            slower_than: the other variant.
            same_as: the other variant.
            less_memory_than: the other variant; peak memory is measured for it.
            by: how many times at least.
            within: a share.
            needs: what the machine must have.
            **given: as in `run`.
        """
        if less_memory_than is not None:
            given.setdefault("memory", True)
        terms: dict[str, Any] = {
            "faster_than": faster_than,
            "slower_than": slower_than,
            "same_as": same_as,
            "less_memory_than": less_memory_than,
            "by": by,
            "within": within,
            "needs": needs,
        }
        here = machine(accelerators=True) if needs is not None else None
        if missing_here(here, needs)[1]:
            # Where the machine lacks what it takes, the variants could not even be made.
            return Comparison({}, machine=here).claim(name, **terms)
        return self.run(**given).claim(name, **terms)

    def panel(self, **given: Any) -> Panel:
        """The live face of this experiment; it does nothing until somebody presses Run.

        Args:
            **given: values that the controls start with, settings of `prepare` (``agree``,
                ``budget_s``, ``resolution``, ``memory``, ...), and ``predict=False`` for a
                panel that does not ask for a prediction first.
        """
        from labkit.panel import Panel

        return Panel(self, **given)

    def __repr__(self) -> str:
        return f"Experiment({self.name}: {', '.join(self.parameters)})"


def _measure_point(
    experiment: Experiment, settings: Mapping[str, Any], parameters: Mapping[str, Any]
) -> Comparison:
    """One point of a sweep, wherever it is measured."""
    return experiment.run(on_change=lambda _: stop_if_unwanted(), **{**settings, **parameters})
