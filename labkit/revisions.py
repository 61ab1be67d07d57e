"""Two git revisions of a project, measured as two variants of one comparison."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.api import compare
from labkit.changes import Regressions
from labkit.checkouts import ONLY, Checkout, CheckoutError, Target
from labkit.errors import ResolutionError
from labkit.regressions import paired

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_DESCRIBE_S = 120.0


def compare_revisions(
    base: str,
    head: str,
    targets: Sequence[str],
    *,
    repository: str | Path = ".",
    paths: Sequence[str] = (".", "src"),
    confidence: float = 0.95,
    resolution: float = 0.05,
    memory: bool = True,
    **settings: Any,
) -> Regressions:
    """Measure two revisions of a project side by side, and say what became worse.

    Each revision is checked out into a temporary folder (`git worktree`), which is removed at the
    end. Base and head are two variants of one comparison, in one worker, round by round, each
    with its own modules: see `labkit.checkouts`. What is not in git is not measured, and a
    relative path is one below the checkout.

    Limits: packages that have to be built (extensions in C) are only found where git has the
    built files; what the two revisions need of other packages is what is installed now; state
    that libraries keep for a process (threads of torch, registered operators) is shared. Each
    switch from one revision to the other, at most once in a sample, takes some microseconds.

    Args:
        base: a revision as git knows it: a branch, a tag, "HEAD~1".
        head: the other, newer one.
        targets: "path/to/file.py:name", where the name is an experiment (at its defaults), a
            `labkit.Variant`, a function without arguments, or functions by name.
        repository: a folder of it; paths of targets are relative to it.
        paths: folders in the repository that hold its packages.
        confidence: probability that all intervals hold.
        resolution: differences below this share do not matter.
        memory: also compare peak memory.
        **settings: of `labkit.compare`, for each pair of variants.

    Raises:
        ValueError: git does not know a revision, a target is missing or cannot be imported, or
            what was to be compared with fails.
    """
    if not targets:
        raise ValueError("targets is empty: give at least one, such as bench/model.py:inference")
    places = [_split(target) for target in targets]
    root = Path(_git(repository, "rev-parse", "--show-toplevel"))
    here = Path(os.path.realpath(repository)).relative_to(os.path.realpath(root))
    commits = [_commit(root, revision) for revision in (base, head)]
    found: list[Regressions] = []
    skipped: list[str] = []
    with _checked_out(root, commits) as folders:
        checkouts = [Checkout(str(f), str(root), tuple(paths)) for f in folders]
        pairs = []
        for file, name in places:
            path = os.path.normpath(here / file)
            both = [Target(checkout, path, name) for checkout in checkouts]
            pairs += _pairs(both, (base, head), skipped)
        for subject, given, variants in pairs:
            try:
                measured = compare(
                    variants,
                    confidence=1 - (1 - confidence) / len(pairs),
                    resolution=resolution,
                    memory=memory,
                    **{**given, **settings},
                )
            except ResolutionError as error:
                # A busy moment of one pair; the others are not lost.
                skipped.append(f"{subject}: {error}")
                continue
            mixed = [f for f in measured.failures.values() if CheckoutError.__name__ in f.message]
            if mixed:
                skipped.append(f"{subject}: {mixed[0].message}")
            else:
                found.append(paired(measured, subject))
    if not found:
        raise ValueError(f"nothing to compare: {'; '.join(skipped)}")
    return Regressions(
        tuple(change for each in found for change in each.changes),
        tuple(skipped),
        tuple(note for each in found for note in each.notes),
    )


def _split(target: str) -> tuple[str, str]:
    file, colon, name = target.rpartition(":")
    if not colon or not file.endswith(".py") or not name.isidentifier():
        raise ValueError(f"{target!r} is no target: write path/to/file.py:name")
    return file, name


def _git(folder: str | Path, *args: str) -> str:
    # Hooks of the project are for people who check out, not for a measurement.
    command = ["git", "-c", f"core.hooksPath={os.devnull}", "-C", str(folder), *args]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ValueError("git is not installed, and revisions come from it") from None
    if done.returncode:
        raise ValueError(f"git {args[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


def _commit(root: Path, revision: str) -> str:
    try:
        wanted = f"{revision}^{{commit}}"
        return _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", wanted)
    except ValueError:
        raise ValueError(
            f"git knows no revision {revision!r} here; a shallow clone has only the last ones: "
            "git fetch --unshallow (fetch-depth: 0 where a CI service checks out)"
        ) from None


@contextlib.contextmanager
def _checked_out(root: Path, commits: Sequence[str]) -> Iterator[list[Path]]:
    with tempfile.TemporaryDirectory(prefix="labkit-") as temporary:
        folders = [Path(temporary) / name for name in ("base", "head")]
        try:
            for folder, commit in zip(folders, commits, strict=True):
                _git(root, "worktree", "add", "--detach", "--quiet", str(folder), commit)
            yield folders
        finally:
            for folder in folders:
                with contextlib.suppress(ValueError):
                    _git(root, "worktree", "remove", "--force", str(folder))


def _pairs(
    both: Sequence[Target], revisions: Sequence[str], skipped: list[str]
) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Base and head of each variant that both have, with the experiment's own settings."""
    about = []
    for target, revision in zip(both, revisions, strict=True):
        found = _described(target)
        if "error" in found:
            skipped.append(f"{target} of {revision}: {found['error']}")
            continue
        about.append(found)
    if len(about) < 2:
        return []
    old, new = (found["variants"] for found in about)
    for name in [n for n in {**old, **new} if (n in old) != (n in new)]:
        only = revisions[0] if name in old else revisions[1]
        skipped.append(f"{both[0]}: {name}: only in {only}")
    pairs = []
    for name in [n for n in old if n in new]:
        subject = str(both[0]) if name == ONLY else f"{both[0]}: {name}"
        pair = zip(("base", "head"), both, about, strict=True)
        variants = {
            role: target.variant(name, **found["variants"][name]) for role, target, found in pair
        }
        pairs.append((subject, about[1]["settings"], variants))
    return pairs


def _described(target: Target) -> dict[str, Any]:
    request = {"checkout": asdict(target.checkout), "file": target.file, "name": target.name}
    with tempfile.TemporaryDirectory(prefix="labkit-") as folder:
        answer = Path(folder) / "answer.json"
        path = os.pathsep.join(str(Path(p).resolve()) for p in sys.path)
        try:
            done = subprocess.run(
                # Without -P the checkout, where it runs, would come before labkit itself.
                [sys.executable, "-P", "-m", "labkit.checkouts", json.dumps(request), str(answer)],
                cwd=target.checkout.root,
                env={**os.environ, "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_DESCRIBE_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return {"error": f"importing it took more than {_DESCRIBE_S:g} s"}
        if not answer.exists():
            return {"error": f"importing it ended the process: {done.stderr.strip()[-300:]}"}
        found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
        return found
