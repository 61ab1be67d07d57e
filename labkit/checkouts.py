"""Two revisions of one project in one process, each with modules of its own.

Two variants are measured side by side only if they run in one process, and there a name such as
``project.model`` can mean one module. So the modules of a revision, its folders on the path and its
working directory are in place while it is evaluated, and set aside when the other one has its
turn, which is at most once in a sample. What a function imports while it runs comes from its own
revision, too.

Where that cannot be kept apart it is refused, and nothing is measured: modules that came from
elsewhere, such as an installed copy of the project.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.errors import LabkitError
from labkit.experiments import Experiment
from labkit.relocation import relocated
from labkit.variants import Variant, as_variants

if TYPE_CHECKING:
    from types import ModuleType

# What a function of its own, and not a dict or an experiment, is called.
ONLY = "call"


class CheckoutError(LabkitError, ImportError):
    """What a revision was to bring is not there, or is not its own."""


@dataclass(frozen=True)
class Checkout:
    """A revision of a project in a folder of its own.

    Attributes:
        root: the folder.
        repository: the project's own working tree, from which nothing may come.
        paths: folders below the root that hold its packages.
    """

    root: str
    repository: str
    paths: tuple[str, ...] = (".", "src")

    def folders(self, file: str) -> list[str]:
        """What is put before ``sys.path`` for a file, as for a script that is run."""
        found = [Path(self.root, file).parent, *(Path(self.root, p) for p in self.paths)]
        return list(dict.fromkeys(os.path.normpath(p) for p in found))


@dataclass(frozen=True)
class Target:
    """Something to measure: a name in a file of a checkout."""

    checkout: Checkout
    file: str
    name: str

    def __str__(self) -> str:
        return f"{self.file}:{self.name}"

    def variant(self, name: str, *, flops: float | None, bytes_moved: float | None) -> Variant:
        """One of its variants, which is made in the worker."""
        prepare = partial(_prepare, self, name)
        return Variant(
            _evaluate, setup=prepare, metrics=_metrics, flops=flops, bytes_moved=bytes_moved
        )

    def load(self) -> Any:
        """Import the file and look the name up; its modules are in place afterwards.

        Raises:
            CheckoutError: there is no such file or name, or what is imported is not its own.
        """
        path = Path(self.checkout.root, self.file)
        if not path.is_file():
            raise CheckoutError(f"there is no {self.file}")
        shelf = _enter(self)
        # No name that the project or a library could have.
        alias = f"labkit_target_{path.stem}"
        if alias not in shelf.modules:
            _refuse_shadows(self)
            spec = importlib.util.spec_from_file_location(alias, path)
            if spec is None or spec.loader is None:
                raise CheckoutError(f"{self.file} is no Python file")
            module = importlib.util.module_from_spec(spec)
            sys.modules[alias] = shelf.modules[alias] = module
            try:
                spec.loader.exec_module(module)
                _refuse_foreign(self)
            except BaseException:
                del shelf.modules[alias]
                raise
        module = shelf.modules[alias]
        if not hasattr(module, self.name):
            there = [n for n in vars(module) if not n.startswith("_")]
            raise CheckoutError(f"{self.file} has no {self.name!r}; it has {', '.join(there)}")
        return getattr(module, self.name)

    def variants(self) -> dict[str, Variant]:
        """What the name stands for: an experiment at its defaults, functions by name, a function.

        Raises:
            CheckoutError: it is none of these; and as `load`.
        """
        found = self.load()
        if isinstance(found, Experiment):
            return found()
        try:
            return as_variants(found if isinstance(found, Mapping) else {ONLY: found})
        except TypeError as error:
            raise CheckoutError(f"{self}: {error}") from None


@dataclass
class _Shelf:
    """What is in place only while a target is evaluated."""

    path: list[str]
    modules: dict[str, ModuleType] = field(default_factory=dict)


class _Watch:
    """A finder that finds nothing: it hears what is imported, at whatever moment."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> None:
        self.names.add(name)


_shelves: dict[Target, _Shelf] = {}
_watch = _Watch()
_present: Target | None = None
_outside: list[str] = []


def _enter(target: Target) -> _Shelf:
    """Put a target's modules, folders and directory in place, and the other's away."""
    global _present  # noqa: PLW0603  (so is sys.modules)
    if _watch not in sys.meta_path:
        sys.meta_path.insert(0, _watch)
        _outside[:] = [p for p in sys.path if not _inside(p, target.checkout.repository)]
    if target not in _shelves:
        _shelves[target] = _Shelf([*target.checkout.folders(target.file), *_outside])
    if _present is not target:
        if _present is not None:
            _set_aside(_present)
        shelf = _shelves[target]
        sys.modules.update(shelf.modules)
        sys.path[:] = shelf.path
        os.chdir(target.checkout.root)
        _present = target
    return _shelves[target]


def _set_aside(target: Target) -> None:
    shelf = _shelves[target]
    if _watch.names:
        _refuse_foreign(target)
        for name in _watch.names:
            module = sys.modules.get(name)
            if module is not None and _inside(_file(module), target.checkout.root):
                shelf.modules[name] = module
        _watch.names.clear()
    for name in shelf.modules:
        sys.modules.pop(name, None)


def _inside(path: str, root: str) -> bool:
    """Whether a path is below a folder; what is installed below it belongs to nobody's tree."""
    if not path:
        return False
    real, base = os.path.realpath(path), os.path.realpath(root)
    below = real == base or real.startswith(base + os.sep)
    return below and "site-packages" not in real[len(base) :]


def _file(module: ModuleType) -> str:
    file = getattr(module, "__file__", None)
    # A folder without __init__.py is a module as well.
    return file or next(iter(getattr(module, "__path__", ())), "")


def _refuse_shadows(target: Target) -> None:
    """A module that this process has already would be taken for both revisions."""
    for folder in target.checkout.folders(target.file):
        here = {p.stem for p in Path(folder).glob("*.py")}
        here |= {p.parent.name for p in Path(folder).glob("*/__init__.py")}
        for name in sorted(here - set(sys.stdlib_module_names)):
            module = sys.modules.get(name)
            if module is not None and not _inside(_file(module), target.checkout.root):
                raise CheckoutError(
                    f"the revision has a module {name!r}, and the process that measures has one "
                    "already, which it cannot have twice: keep records in a checkout of each, and "
                    "compare them with labkit compare-records"
                )


def _refuse_foreign(target: Target) -> None:
    """What was imported must not be another copy of what the revision has."""
    root = target.checkout.root
    tops = {name.partition(".")[0] for name in _watch.names} - set(sys.stdlib_module_names)
    for name in sorted(tops & sys.modules.keys()):
        file = _file(sys.modules[name])
        if not file or _inside(file, root):
            continue
        folder = _packages(root).get(name)
        if _inside(file, target.checkout.repository) or folder is not None:
            raise CheckoutError(
                f"{name!r} was imported from outside the revision ({Path(file).name} of an "
                "installed copy, or of the working tree), so both revisions would be the same: "
                f"name the folder that holds it, as in --path {folder or 'FOLDER'}"
            )


@cache
def _packages(root: str) -> dict[str, str]:
    """The packages of a checkout that are in no other, with the folder that holds each."""
    found = (p.parent for p in Path(root).rglob("__init__.py"))
    tops = [p for p in found if not (p.parent / "__init__.py").exists()]
    return {p.name: str(p.parent.relative_to(root)) for p in tops}


@dataclass
class _Prepared:
    """An evaluation of a revision that has been set up."""

    target: Target
    variant: Variant
    given: tuple[Any, ...]
    original: Callable[[], Any]
    call: Callable[[], Any]


def _prepare(target: Target, name: str) -> _Prepared:
    variant = target.variants()[name]
    given = () if variant.setup is None else (variant.setup(),)
    call = partial(variant.call, *given) if given else variant.call
    return _Prepared(target, variant, given, call, call)


def _evaluate(prepared: _Prepared) -> Any:
    if _present is not prepared.target:
        _enter(prepared.target)
        # As `labkit.timing` does in every round with functions that it is given directly.
        prepared.call = relocated(prepared.original)
    return prepared.call()


def _metrics(prepared: _Prepared) -> Mapping[str, float]:
    metrics = prepared.variant.metrics
    if not callable(metrics):
        return metrics
    _enter(prepared.target)
    return metrics(*prepared.given)


def describe(target: Target) -> dict[str, Any]:
    """The variants of a target, and what is known of them without running them."""
    found = target.variants()
    known = target.load()
    defaults = known.defaults if isinstance(known, Experiment) else {}
    return {
        "title": known.name if isinstance(known, Experiment) else "",
        "settings": {
            k: v
            for k, v in defaults.items()
            if (k == "threads" and type(v) is int) or (k == "device" and isinstance(v, str))
        },
        "variants": {
            name: {"flops": v.flops, "bytes_moved": v.bytes_moved} for name, v in found.items()
        },
    }


def main(request: str, answer: str) -> None:
    """Describe a target in a process of its own: importing a project may do anything."""
    data = json.loads(request)
    checkout = Checkout(**{**data["checkout"], "paths": tuple(data["checkout"]["paths"])})
    try:
        found = describe(Target(checkout, data["file"], data["name"]))
    except CheckoutError as error:
        found = {"error": str(error)}
    except (Exception, SystemExit) as error:
        missing = (getattr(error, "name", None) or "").partition(".")[0]
        folder = _packages(checkout.root).get(missing)
        hint = f"; name the folder that holds it, as in --path {folder}" if folder else ""
        found = {"error": f"{type(error).__name__}: {error}{hint}"}
    Path(answer).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    # Under its own name, so that pickles and `isinstance` mean the same classes.
    from labkit.checkouts import main as described

    described(*sys.argv[1:])
