"""A folder of kept results as one table."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.files import digest, records_folder, unseal
from labkit.results import Comparison
from labkit.sweeps import Sweep

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

# More would bury the table; all of them are in ``attrs``.
_NAMED_AT_MOST = 5
_COLUMNS = (
    *("file", "record", "started_utc", "person", "experiment", "parameters", "variant"),
    *("baseline", "prediction", "speedup", "speedup_low", "speedup_high", "verdict", "median_s"),
    *("fastest_s", "rounds", "evaluations_per_sample", "peak_bytes", "failure", "ended"),
    *("caveats", "confidence", "resolution", "device", "threads", "machine"),
    *("machine_fingerprint", "processor", "usable_cores", "memory_bytes", "accelerators"),
    *("labkit_version", "torch_version"),
)


@dataclass(frozen=True)
class Record:
    """One kept result.

    Attributes:
        file: its name.
        id: the first digits of its checksum; a copy under another name has the same.
        person: who measured it, if they gave a name.
        result: with its raw samples.
    """

    file: str
    id: str
    person: str
    result: Comparison | Sweep

    @property
    def comparisons(self) -> list[Comparison]:
        """The comparison, or those of the points of a sweep."""
        return self.result.comparisons if isinstance(self.result, Sweep) else [self.result]


def read_record(path: str | Path) -> Record:
    """Read one file that `Comparison.save` or `Sweep.save` wrote.

    Raises:
        OSError: it cannot be read.
        ValueError: it is cut off, was changed, is of a newer version, or no result of labkit.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        # Reading a pipe would wait for ever.
        raise ValueError("not a plain file")
    text = path.read_text(encoding="utf-8")
    data = unseal(text)
    kind = Sweep if data["kind"] == "sweep" else Comparison
    try:
        result: Comparison | Sweep = kind.from_dict(data)
    except (KeyError, TypeError, AttributeError) as error:
        # From before there were checksums, or from somebody else's hand.
        raise ValueError(f"not as labkit writes it ({type(error).__name__}: {error})") from None
    # The checksum that the file has was compared with its content.
    identity = str(data.get("sha256") or digest(data))
    return Record(path.name, identity[:12], str(data.get("person", "")), result)


def read_folder(folder: str | Path) -> tuple[list[Record], dict[str, str]]:
    """All records of a folder, and the reasons why other files are none, by file.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    place = Path(folder)
    if not place.is_dir():
        raise FileNotFoundError(
            f"no folder {place}; comparison.save({str(place)!r}) needs one, and so does the "
            "environment variable LABKIT_RECORDS, which names it"
        )
    found: dict[str, Record] = {}
    skipped = {}
    for path in sorted(place.glob("*.json")):
        try:
            about = path.stat()
            record = _read_once(str(path), about.st_ino, about.st_size, about.st_mtime_ns)
        except (OSError, ValueError) as error:
            skipped[path.name] = str(error)
            continue
        if record.id in found:
            skipped[path.name] = f"a copy of {found[record.id].file}"
        else:
            found[record.id] = record
    return list(found.values()), skipped


@functools.lru_cache(maxsize=1024)
def _read_once(path: str, _inode: int, _size: int, _mtime_ns: int) -> Record:
    """A board reads its folder every few seconds, and files are never written twice."""
    return read_record(path)


def history(folder: str | Path | None = None) -> pd.DataFrame:
    """Kept results as one tidy table, one row a variant and record.

    Files that cannot be read are skipped: they are named in a printed line and in
    ``frame.attrs["skipped"]``, with the reason. None is ever changed.

    Args:
        folder: where `Comparison.save` wrote; None: the folder named by the environment
            variable LABKIT_RECORDS, or "records".

    Returns:
        Columns: file, record (the same for a copy of the same file), started_utc, person,
        experiment, parameters (as text) and one ``parameter_NAME`` for each, variant,
        baseline, prediction (of the last variant's speed-up), speedup, speedup_low,
        speedup_high, verdict, median_s, fastest_s, rounds, evaluations_per_sample, peak_bytes,
        failure, ended, caveats, confidence, resolution, device, threads, machine,
        machine_fingerprint, processor, usable_cores, memory_bytes, accelerators,
        labkit_version, torch_version, and the variants' own metrics. What nobody measured is
        NaN. A sweep has a row for each point and variant.

    Raises:
        FileNotFoundError: there is no such folder.

    >>> import tempfile
    >>> from labkit.results import Comparison
    >>> from labkit.trials import Trial
    >>> times = {"a": (2e-3,) * 20, "b": (1e-3,) * 20}
    >>> trials = {name: Trial(name, t, tuple(range(20))) for name, t in times.items()}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Comparison(trials, title="halves").save(folder)
    ...     print(history(folder)[["experiment", "variant", "speedup", "verdict"]])
      experiment variant  speedup   verdict
    0     halves       a      1.0  baseline
    1     halves       b      2.0    faster
    """
    import pandas as pd

    records, skipped = read_folder(records_folder() if folder is None else folder)
    rows = [row for record in records for row in _rows(record)]
    names = dict.fromkeys([*_COLUMNS, *(name for row in rows for name in row)])
    frame = pd.DataFrame(rows, columns=list(names))
    frame["started_utc"] = pd.to_datetime(frame["started_utc"], utc=True, errors="coerce")
    frame.attrs["skipped"] = skipped
    for name in list(skipped)[:_NAMED_AT_MOST]:
        print(f"skipped {name}: {skipped[name]}")
    if len(skipped) > _NAMED_AT_MOST:
        print(f'skipped {len(skipped) - _NAMED_AT_MOST} more: frame.attrs["skipped"]')
    return frame


def parameters_text(parameters: Mapping[str, Any]) -> str:
    """For people and for grouping, in one order.

    >>> parameters_text({"size": 256, "fused": True})
    'fused=True, size=256'
    """
    return ", ".join(f"{name}={parameters[name]}" for name in sorted(parameters))


def _rows(record: Record) -> list[dict[str, Any]]:
    rows = [row for c in record.comparisons for row in _rows_of(c)]
    if isinstance(record.result, Sweep):
        rows += [
            {**_about(record.result.title, point.parameters), "failure": point.error}
            for point in record.result
            if point.comparison is None
        ]
    about = {"file": record.file, "record": record.id, "person": record.person}
    return [{**about, **row} for row in rows]


def _about(title: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    by_name = {f"parameter_{name}": value for name, value in parameters.items()}
    return {"experiment": title, "parameters": parameters_text(parameters), **by_name}


def _rows_of(comparison: Comparison) -> list[dict[str, Any]]:
    here = comparison.machine
    common = {
        **_about(comparison.title, comparison.parameters),
        "started_utc": comparison.started_utc or None,
        "ended": comparison.ended,
        "caveats": ", ".join(dict.fromkeys(c.kind for c in comparison.caveats)),
        "confidence": comparison.confidence,
        "resolution": comparison.resolution,
    }
    if here is not None:
        gpus = here.accelerators
        common |= {
            "machine": here.line(),
            "machine_fingerprint": here.fingerprint,
            "processor": here.processor,
            "usable_cores": here.usable_cores,
            "memory_bytes": here.usable_memory_bytes,
            "accelerators": None if gpus is None else ", ".join(g.name for g in gpus),
            "labkit_version": here.versions.get("labkit"),
            "torch_version": here.versions.get("torch"),
        }
    rows = []
    for row in comparison.to_frame().to_dict("records") if comparison.trials else ():
        trial = comparison.trials[row["variant"]]
        guessed = comparison.prediction if trial.name == comparison.names[-1] else None
        own = {"device": trial.device, "threads": trial.threads, "prediction": guessed}
        rows.append({**common, **row, "baseline": comparison.baseline, **own})
    return rows
