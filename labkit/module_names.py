"""Names of modules, as torch writes them: the path of attributes, with dots between."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

# Where torch.export notes which calls of modules a node lies in; its own name comes last.
SCOPES = "pkg.torch.onnx.name_scopes"


def is_within(name: str, modules: Collection[str]) -> bool:
    """Whether a module is one of these, or inside one.

    >>> is_within("head.0", ["head"]), is_within("header", ["head"]), is_within("head", [""])
    (True, False, True)
    """
    return any(outer in ("", name) or name.startswith(f"{outer}.") for outer in modules)


def owner_of(path: str, modules: Collection[str]) -> str | None:
    """The module that a node of a traced program comes from; None if it could be several, or none.

    Tracing names a node by the modules whose calls it lies in, each without what stands before the
    last part of its name that is no number, and then by its operator: "/body/body.0/linear/Gemm".
    The second call of a module has a number at its name: "/linear_1/Gemm".

    Args:
        path: the name of the node.
        modules: all names of the model's modules.

    >>> owner_of("/body/body.0/linear/Gemm", ["", "body", "body.0", "body.0.linear", "linear"])
    'body.0.linear'
    >>> owner_of("/Add", ["", "body"])
    ''
    >>> print(owner_of("/linear/Gemm", ["", "one.linear", "other.linear"]))
    None
    >>> print(owner_of("/linear_1/Gemm", ["", "linear", "linear_1"]))
    None
    """
    if "/" not in path:
        return None
    _, *calls, _ = path.split("/")
    if not calls:
        return ""
    names = {_short(name) for name in modules}
    again = (re.fullmatch(r"(.+)_\d+", call) for call in calls)
    if any(match and match[1] in names for match in again):
        return None
    found = [
        name
        for name in modules
        if _short(name) == calls[-1] and _in_order(calls[:-1], _outer(name), modules)
    ]
    return found[0] if len(found) == 1 else None


def _outer(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


def _short(name: str) -> str:
    """As torch.onnx does it."""
    parts = name.split(".")
    words = [i for i, part in enumerate(parts) if not part.isnumeric()]
    return ".".join(parts[words[-1] :]) if words else name


def _in_order(calls: list[str], outer: list[str], modules: Collection[str]) -> bool:
    """Whether these calls are of some of the modules around one, from the outside in."""
    left = iter([_short(name) for name in outer if name in modules])
    return all(call in left for call in calls)
