"""Results kept as files: written whole or not at all, never overwritten."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def write_new(path: Path, text: str) -> Path:
    """Write a new file whole or not at all.

    The text goes to a temporary file beside it, is forced to the disk, and then linked under
    its name, which fails if the name is taken.

    Raises:
        FileExistsError: the file is there already.
        FileNotFoundError: the folder is not.
    """
    if path.exists():
        raise FileExistsError(f"{path} exists; results are never overwritten: give another name")
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise FileExistsError(
                f"{path} exists; results are never overwritten: give another name"
            ) from None
        except OSError:
            # A file system without hard links: replacing is whole or not at all as well.
            Path(temporary).replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
    return path


def history(folder: str | Path | None = None) -> pd.DataFrame:
    """Stored comparisons of a folder, one row a variant.

    Args:
        folder: where `Comparison.save` wrote; None: the folder named by the environment
            variable LABKIT_RECORDS, or "records".

    Returns:
        The columns of `Comparison.to_frame`, after file, started_utc, title and machine. Files
        that cannot be read are listed in ``frame.attrs["skipped"]`` with the reason.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    import pandas as pd

    from labkit.results import Comparison

    place = Path(folder if folder is not None else os.environ.get("LABKIT_RECORDS", "records"))
    if not place.is_dir():
        raise FileNotFoundError(
            f"no folder {place}; comparison.save(path) fills one, LABKIT_RECORDS names it"
        )
    frames, skipped = [], {}
    for path in sorted(place.glob("*.json")):
        try:
            comparison = Comparison.load(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            skipped[path.name] = f"{type(error).__name__}: {error}"
            continue
        frame = comparison.to_frame()
        frame.insert(0, "file", path.name)
        frame.insert(1, "started_utc", comparison.started_utc)
        frame.insert(2, "title", comparison.title)
        line = comparison.machine.line() if comparison.machine else ""
        frame.insert(3, "machine", line)
        frames.append(frame)
    result = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    result.attrs["skipped"] = skipped
    return result
