"""The command `labkit`, for CI and a terminal.

The exit status says it all: 0: nothing became worse, or no problem was found; 1: something did, or
was; 2: bad input, or nothing that could be compared.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from labkit import doctor
from labkit.errors import LabkitError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from labkit.changes import Regressions

BAD_INPUT = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: without the name of the program; None: those of this process.

    Returns:
        The exit status.
    """
    given = _parser().parse_args(arguments)
    try:
        found: Regressions | int = given.run(given)
    except (LabkitError, ValueError, TypeError, OSError) as error:
        print(f"labkit {given.command}: {error}", file=sys.stderr)
        return BAD_INPUT
    if isinstance(found, int):
        return found
    print(found)
    return found.exit_status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="labkit", description=__doc__.partition("\n")[2])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    records = commands.add_parser(
        "compare-records",
        help="what became worse from one record, or folder of records, to another",
        description="Compare kept results of one machine: speed as each run's ratio to its own "
        "baseline; bytes, FLOPs and operators as they are. Exit status: 0: nothing became worse, "
        "1: something did, 2: bad input.",
    )
    records.add_argument("base", metavar="BASE", help="a record or a folder of records")
    records.add_argument("head", metavar="HEAD", help="the same, as it is now")
    records.add_argument(
        "--resolution",
        type=float,
        help="share below which a difference of speed does not matter (0.05 is 5 %%); left out: "
        "10 %% where a side has one run, else 5 %%",
    )
    records.set_defaults(run=_compare_records)

    revisions = commands.add_parser(
        "compare-revisions",
        help="what became worse from one git revision to another, measured side by side",
        description="Check two revisions out into temporary folders and measure them in one job, "
        "round by round. Exit status: 0: nothing became worse, 1: something did, 2: bad input.",
    )
    revisions.add_argument("base", metavar="BASE", help="a revision, such as main or HEAD~1")
    revisions.add_argument("head", metavar="HEAD", help="the newer one")
    revisions.add_argument(
        "targets",
        metavar="FILE.py:NAME",
        nargs="+",
        help="an experiment, a labkit.Variant, a function without arguments, or functions by name",
    )
    revisions.add_argument(
        "--path",
        action="append",
        metavar="FOLDER",
        help="a folder in the repository that holds its packages (left out: . and src)",
    )
    revisions.add_argument(
        "--budget", type=float, default=5.0, metavar="S", help="seconds for each pair (5)"
    )
    revisions.add_argument(
        "--resolution", type=float, default=0.05, help="share that does not matter (0.05: 5 %%)"
    )
    revisions.add_argument("--threads", type=int, help="of numerical libraries")
    revisions.add_argument("--no-memory", action="store_true", help="leave peak memory out")
    revisions.set_defaults(run=_compare_revisions)

    check = commands.add_parser(
        "doctor",
        help="whether this computer is ready for the notebooks",
        description=doctor.__doc__,
    )
    doctor.add_arguments(check)
    check.set_defaults(run=doctor.run)
    return parser


def _compare_records(given: argparse.Namespace) -> Regressions:
    from labkit.regressions import compare_records

    return compare_records(given.base, given.head, resolution=given.resolution)


def _compare_revisions(given: argparse.Namespace) -> Regressions:
    from labkit.revisions import compare_revisions

    threads = {} if given.threads is None else {"threads": given.threads}
    return compare_revisions(
        given.base,
        given.head,
        given.targets,
        paths=given.path or (".", "src"),
        budget_s=given.budget,
        resolution=given.resolution,
        memory=not given.no_memory,
        **threads,
    )
