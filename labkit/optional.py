"""Packages that only some techniques need: imported when they are used, named when missing."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from labkit.errors import MissingPackageError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Which extra of labkit brings a package.
EXTRAS = {
    "constriction": "prune",
    "dask": "cluster",
    "distributed": "cluster",
    "onnx": "quantize",
    "onnxruntime": "quantize",
    "onnxscript": "quantize",
    "pyspark": "spark",
    "torch_pruning": "prune",
    "torchao": "quantize",
}


def is_there(package: str) -> bool:
    """Whether a package is installed, without importing it.

    >>> is_there("torch"), is_there("no_such_package")
    (True, False)
    """
    return importlib.util.find_spec(package) is not None


def need(module: str) -> Any:
    """Import a module of a package that may be missing.

    Args:
        module: its full name, such as "onnxruntime.quantization".

    Raises:
        MissingPackageError: with the line that installs it.
    """
    check_there(module.partition(".")[0])
    with quiet():
        return importlib.import_module(module)


def check_there(package: str) -> None:
    """Refuse to go on without a package, and do not import it.

    Raises:
        MissingPackageError: with the line that installs it.
    """
    if not is_there(package):
        extra = EXTRAS.get(package)
        line = f"pip install 'labkit[{extra}]'" if extra else f"pip install {package}"
        raise MissingPackageError(f"this needs {package}, which is not installed: {line}")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep back what libraries log and warn of below an error.

    For calls whose outcome is checked: a page of warnings hides the one line that matters, and
    their text names files of this machine.
    """
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
