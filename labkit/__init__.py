"""labkit: which optimization pays, for this model, on this machine, and can I believe it?

>>> import labkit as lab
>>> trial = lab.measure(lambda: sorted(range(100)), budget_s=0.05)
>>> trial.median_s < 1e-3
True
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Where each public name lives. Nothing is imported until it is used: `import labkit` must not
# cost a notebook the seconds that torch, pandas and matplotlib take.
_HOMES = {
    "measure": "api",
    "compare": "api",
    "peak_memory": "api",
    "experiment": "experiments",
    "Experiment": "experiments",
    "Variant": "variants",
    "Comparison": "results",
    "Failure": "trials",
    "PeakMemory": "trials",
    "Ratio": "results",
    "Sweep": "sweeps",
    "Trial": "trials",
    "Verdict": "statistics",
    "Caveat": "caveats",
    "Claim": "claims",
    "check": "claims",
    "Panel": "panel",
    "history": "records",
    "board": "boards",
    "compare_records": "regressions",
    "compare_functions": "regressions",
    "compare_revisions": "revisions",
    "recorded": "recordings",
    "Machine": "machines",
    "machine": "machines",
    "Device": "inventory",
    "devices": "inventory",
    "on_each_device": "inventory",
    "Explanation": "explaining",
    "measure_peaks": "peaks",
    "memory_ledger": "ledger",
    "quiz": "quizzes",
    "summary": "summaries",
    "LabkitError": "errors",
    "AgreementError": "errors",
    "ResolutionError": "errors",
    "UnpicklableError": "errors",
    "WorkerError": "errors",
    "RankError": "errors",
    "MissingPackageError": "errors",
    "DoesNotApplyError": "errors",
}
# Modules that are used by their own name: lab.quantize.try_all(...).
_MODULES = (
    *("clients", "clusters", "datasets", "distill", "inference", "laws", "parallel", "plots"),
    *("progress", "prune"),
    *("quantize", "runtimes", "scaling", "search", "seeds", "sensitivity", "training", "units"),
)

if TYPE_CHECKING:
    from labkit import clients as clients
    from labkit import clusters as clusters
    from labkit import datasets as datasets
    from labkit import distill as distill
    from labkit import inference as inference
    from labkit import laws as laws
    from labkit import parallel as parallel
    from labkit import plots as plots
    from labkit import progress as progress
    from labkit import prune as prune
    from labkit import quantize as quantize
    from labkit import runtimes as runtimes
    from labkit import scaling as scaling
    from labkit import search as search
    from labkit import seeds as seeds
    from labkit import sensitivity as sensitivity
    from labkit import training as training
    from labkit import units as units
    from labkit.api import compare as compare
    from labkit.api import measure as measure
    from labkit.api import peak_memory as peak_memory
    from labkit.boards import board as board
    from labkit.caveats import Caveat as Caveat
    from labkit.claims import Claim as Claim
    from labkit.claims import check as check
    from labkit.errors import AgreementError as AgreementError
    from labkit.errors import DoesNotApplyError as DoesNotApplyError
    from labkit.errors import LabkitError as LabkitError
    from labkit.errors import MissingPackageError as MissingPackageError
    from labkit.errors import RankError as RankError
    from labkit.errors import ResolutionError as ResolutionError
    from labkit.errors import UnpicklableError as UnpicklableError
    from labkit.errors import WorkerError as WorkerError
    from labkit.experiments import Experiment as Experiment
    from labkit.experiments import experiment as experiment
    from labkit.explaining import Explanation as Explanation
    from labkit.inventory import Device as Device
    from labkit.inventory import devices as devices
    from labkit.inventory import on_each_device as on_each_device
    from labkit.ledger import memory_ledger as memory_ledger
    from labkit.machines import Machine as Machine
    from labkit.machines import machine as machine
    from labkit.panel import Panel as Panel
    from labkit.peaks import measure_peaks as measure_peaks
    from labkit.quizzes import quiz as quiz
    from labkit.recordings import recorded as recorded
    from labkit.records import history as history
    from labkit.regressions import compare_functions as compare_functions
    from labkit.regressions import compare_records as compare_records
    from labkit.results import Comparison as Comparison
    from labkit.results import Ratio as Ratio
    from labkit.revisions import compare_revisions as compare_revisions
    from labkit.statistics import Verdict as Verdict
    from labkit.summaries import summary as summary
    from labkit.sweeps import Sweep as Sweep
    from labkit.trials import Failure as Failure
    from labkit.trials import PeakMemory as PeakMemory
    from labkit.trials import Trial as Trial
    from labkit.variants import Variant as Variant


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"labkit.{name}")
    if name not in _HOMES:
        raise AttributeError(f"labkit has no {name!r}; it has {', '.join(sorted(_HOMES))}")
    value = getattr(importlib.import_module(f"labkit.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*_HOMES, *_MODULES, "__version__"])
