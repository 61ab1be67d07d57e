"""Results as files: sealed with a checksum, written whole or not at all, never overwritten."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import re
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

# 1: no checksum. 2: "sha256" over everything else, "person" if somebody gave a name.
SCHEMA_VERSION = 2
# What a file holds about itself, beside the result.
ENVELOPE = ("schema_version", "kind", "sha256", "person")

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
# Texts that others wrote: exceptions, tracebacks, torch's reasons. They name files.
_FOREIGN = ("message", "details", "skipped", "graph_breaks", "error", "text")
_QUOTED_PATH = re.compile(r"""(["'])(?:~|[A-Za-z]:)?[\\/](?:[^"'\n]*[\\/])""")
_PATH = re.compile(r"""(?<![\w.~…/\\:])(?:~|[A-Za-z]:)?[\\/](?:[^\s"'<>|:;,()\\/]+[\\/])+""")


def folder_above(name: Path) -> Path | None:
    """A folder of this name in the current one, or in the nearest above it that has one.

    >>> folder_above(Path("no", "such folder")) is None
    True
    """
    here = Path.cwd()
    return next((up / name for up in (here, *here.parents) if (up / name).is_dir()), None)


def records_folder() -> Path:
    """Where records are kept: what LABKIT_RECORDS names, or "records" where the work is done."""
    return Path(os.environ.get("LABKIT_RECORDS", "").strip() or "records")


def save_new(
    data: Mapping[str, Any], path: str | Path | None, *, person: str | None = None
) -> Path:
    """Write a result as a new file.

    Args:
        data: of `Comparison.to_dict` or `Sweep.to_dict`.
        path: of the new file; a folder: a name that nobody else uses is made up; None: so in
            `records_folder`, which is made if it is missing.
        person: who measured; None: what LABKIT_NAME says, which is nobody if it is not set.

    Raises:
        FileExistsError: results are never overwritten.
        FileNotFoundError: there is no such folder.
        OSError: the disk is full or the folder must not be written to; nothing is left there.
    """
    if path is None:
        path = records_folder()
        with contextlib.suppress(OSError):  # writing will say what is wrong
            path.mkdir()
        target = path / new_name(data.get("title", ""))
    else:
        path = Path(path)
        target = path / new_name(data.get("title", "")) if path.is_dir() else path
    return write_new(target, seal(data, person=person))


def new_name(title: str) -> str:
    """A file name that no other process makes up: the time, chance, the experiment.

    >>> new_name("matrix product") == new_name("matrix product")
    False
    """
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    about = re.sub(r"[^A-Za-z0-9]+", "-", title).strip("-")[:40] or "comparison"
    return f"{now}-{secrets.token_hex(8)}-{about}.json"


def write_new(path: Path, text: str) -> Path:
    """Write a new file whole or not at all.

    The text goes to a temporary file beside it, is forced to the disk, and then linked under
    its name, which fails if the name is taken. A process that is killed on the way leaves at
    most the temporary file, whose name begins with a dot and ends with ".tmp".

    Raises:
        FileExistsError: the file is there already.
        FileNotFoundError: the folder is not.
        OSError: the disk is full, or the folder must not be written to.
    """
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        try:
            # Not by tempfile: its files are for their owner alone, and a class shares a folder.
            with temporary.open("x", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            _link(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
    except OSError as error:
        raise _explained(error, path) from error
    _sync_folder(path.parent)
    return path


def _link(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)
    except FileExistsError:
        # A network file system may do it, lose the answer, and be asked again.
        if temporary.stat().st_nlink != 2:
            raise
    except OSError:
        # A file system without hard links: take the name first, so that no other's is replaced.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        try:
            temporary.replace(path)
        except OSError:
            path.unlink()
            raise


def _sync_folder(folder: Path) -> None:
    """So that the name survives a power cut, too; not every system can do that to a folder."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _explained(error: OSError, path: Path) -> OSError:
    """The same error, with the way out."""
    other = "give another path, or name another folder in the environment variable LABKIT_RECORDS"
    folder = path.parent
    if isinstance(error, FileExistsError):
        text = f"{path} exists; results are never overwritten: give another name"
    elif isinstance(error, FileNotFoundError | NotADirectoryError):
        text = f"there is no folder {folder}: make it (mkdir -p {folder}), or {other}"
    elif error.errno in _FULL:
        text = (
            f"no room for {path.name} in {folder} ({error.strerror}); nothing was written: free "
            f"some space there, or {other}"
        )
    elif error.errno in _FORBIDDEN:
        text = f"{folder} must not be written to ({error.strerror}); nothing was written: {other}"
    else:
        text = f"{path.name} was not written to {folder} ({error.strerror or error}): {other}"
    return OSError(error.errno, text) if error.errno is not None else OSError(text)


def seal(data: Mapping[str, Any], *, person: str | None = None) -> str:
    """As JSON with a checksum, and without paths or the host's name in what others wrote.

    The checksum is of the JSON with sorted keys and without spaces. It finds accidents, not
    forgers.

    >>> text = seal({"schema_version": 2, "kind": "comparison", "title": "x"})
    >>> unseal(text)["title"]
    'x'
    >>> unseal(text.replace('"x"', '"y"'))
    Traceback (most recent call last):
    ...
    ValueError: the checksum does not fit: the file was changed after it was written
    """
    who = os.environ.get("LABKIT_NAME", "") if person is None else person
    extra = {"person": who.strip()} if who.strip() else {}
    # What JSON makes of it is what will be read: tuples are lists, all keys are texts.
    plain = json.loads(json.dumps({**_without_places(data), **extra}))
    return json.dumps({**plain, "sha256": digest(plain)})


def unseal(text: str) -> dict[str, Any]:
    """Read what `seal` wrote, or an older version of labkit.

    Raises:
        ValueError: it is cut off, was changed, or is no result of labkit.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"cut off, or not JSON ({error})") from None
    if not isinstance(data, dict) or "kind" not in data:
        raise ValueError("not a result saved by labkit")
    version = data.get("schema_version")
    if type(version) is not int:
        raise ValueError(f"schema_version is {version!r}: not a result saved by labkit")
    if version > SCHEMA_VERSION:
        raise ValueError(
            f"schema_version is {version}, this labkit reads up to {SCHEMA_VERSION}: update labkit"
        )
    if ("sha256" in data or version >= 2) and data.get("sha256") != digest(data):
        raise ValueError("the checksum does not fit: the file was changed after it was written")
    return data


def digest(data: Mapping[str, Any]) -> str:
    """The checksum of everything but the checksum."""
    plain = {name: value for name, value in data.items() if name != "sha256"}
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _without_places(value: Any, *, foreign: bool = False) -> Any:
    if isinstance(value, str):
        return _scrubbed(value) if foreign else value
    if isinstance(value, list | tuple):
        return [_without_places(item, foreign=foreign) for item in value]
    if isinstance(value, dict):
        return {
            _without_places(key, foreign=foreign): item
            # Parameters and metrics are what the person chose to give.
            if key in ("parameters", "metrics")
            else _without_places(item, foreign=foreign or key in _FOREIGN)
            for key, item in value.items()
        }
    return value


def _scrubbed(text: str) -> str:
    """Without folders and the host's name; the last part of a path stays.

    >>> _scrubbed('File "/users/Jane Doe/nets/model.py", line 3, then /srv/x/y.bin: 4 images/s')
    'File "…/model.py", line 3, then …/y.bin: 4 images/s'
    """
    text = _QUOTED_PATH.sub(r"\1…/", text).replace(str(Path.home()), "…")
    text = _PATH.sub("…/", text)
    host = platform.node()
    return re.sub(rf"(?<!\w){re.escape(host)}(?!\w)", "(host)", text) if host else text
