"""Put the claims of executed notebooks side by side: one column for each kind of machine.

    python tools/expected_numbers.py "two cores=notebooks" "half a core=/tmp/half/notebooks"
    python tools/expected_numbers.py --intervals "my laptop=notebooks/00-start-here.ipynb"

What is read are the lines that claims print (`comparison.claim`, `lab.check`), from the saved
outputs. Nothing is run: execute a copy of `notebooks/` and `data/` on each kind of machine first,
with tools/execute_notebooks.py, or take notebooks that somebody has run and saved. The tables are
Markdown; docs/teaching.md has the ones that were made for it.
"""

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat

# As labkit/claims.py prints them; two spaces stand before the state, and only there.
CLAIM = re.compile(
    r"(?P<subject>.+?): (?P<seen>.*)  "
    r"(?P<state>CONFIRMED|REFUTED|INCONCLUSIVE|NOT HERE): (?P<sentence>.+)"
)
HEADING = re.compile(r"#{2,} (?P<title>.+)", re.MULTILINE)
MACHINE = re.compile(r"^machine: (.+)$", re.MULTILINE)


class ReadError(Exception):
    """What was named holds no claims."""


@dataclass(frozen=True)
class Line:
    """A claim as a saved notebook has it.

    Attributes:
        notebook: the name of the file, without its ending.
        section: the last heading before the cell.
        cell: the number in brackets beside it.
        subject: what the claim is about.
        seen: the measured numbers, which differ from machine to machine.
        state: CONFIRMED, REFUTED, INCONCLUSIVE or NOT HERE.
        sentence: what is claimed, with its threshold.
    """

    notebook: str
    section: str
    cell: int
    subject: str
    seen: str
    state: str
    sentence: str

    @property
    def claim(self) -> str:
        """What stays the same on every machine."""
        return f"{self.subject}: {self.sentence}"


@dataclass(frozen=True)
class Kind:
    """The claims of one kind of machine.

    Attributes:
        name: as the column is headed.
        machines: the lines that describe where it was run, each once.
        lines: the claims, in the order of the notebooks.
    """

    name: str
    machines: tuple[str, ...]
    lines: tuple[Line, ...]

    def keyed(self) -> dict[tuple[str, str, int], Line]:
        """The claims by notebook, words, and how often these words came before."""
        found: dict[tuple[str, str, int], Line] = {}
        before: Counter[tuple[str, str]] = Counter()
        for line in self.lines:
            words = line.notebook, line.claim
            found[*words, before[words]] = line
            before[words] += 1
        return found


def printed(cell: Mapping) -> str:
    """Give what a cell has printed."""
    texts = (out["text"] for out in cell.get("outputs", []) if out["output_type"] == "stream")
    return "".join(texts)


def claims_of(path: Path) -> list[Line]:
    """Read the claims of one notebook."""
    lines, section = [], ""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            headings = HEADING.findall(cell.source)
            section = headings[-1] if headings else section
        elif cell.cell_type == "code":
            for text in printed(cell).splitlines():
                if match := CLAIM.fullmatch(text):
                    number = cell.execution_count or 0
                    lines.append(Line(path.stem, section, number, **match.groupdict()))
    return lines


def machines_of(path: Path) -> list[str]:
    """Read on which machine a notebook was run."""
    cells = nbformat.read(path, as_version=4).cells
    return MACHINE.findall("".join(printed(c) for c in cells if c.cell_type == "code"))


def read_kind(text: str) -> Kind:
    """Read what an argument names: NAME=FOLDER, or NAME=NOTEBOOK.

    Raises:
        ReadError: it is of another form, there is no such file, or no claim was printed there.
    """
    name, _, where = text.partition("=")
    if not (name.strip() and where):
        raise ReadError(f"{text!r}: write NAME=FOLDER, such as 'two cores=notebooks'")
    path = Path(where)
    if not path.exists():
        raise ReadError(f"{where}: there is no such notebook or folder")
    paths = sorted(path.glob("*.ipynb")) if path.is_dir() else [path]
    lines = [line for each in paths for line in claims_of(each)]
    if not lines:
        raise ReadError(f"{where}: no claim was printed there; run the notebooks first")
    machines = dict.fromkeys(line for each in paths for line in machines_of(each))
    return Kind(name.strip(), tuple(machines), tuple(lines))


def escaped(text: str) -> str:
    """A text that does not end a column."""
    return text.replace("|", "\\|")


def shown(line: Line | None) -> str:
    """One field: the numbers, and the state where it is not CONFIRMED."""
    if line is None:
        return "not run"
    if line.state == "NOT HERE":
        return line.state
    state = "" if line.state == "CONFIRMED" else f"**{line.state}**"
    return escaped(" ".join(filter(None, (line.seen, state)))) or "yes"


def tables(kinds: Sequence[Kind], *, intervals: bool = False) -> str:
    """Write one table for each notebook, in Markdown.

    Args:
        kinds: the columns, from left to right; a claim stands where the first that has it has it.
        intervals: leave out what is no speed-up with an interval on any of them.
    """
    keyed = [kind.keyed() for kind in kinds]
    rows: dict[tuple[str, str, int], Line] = {}
    for each in keyed:
        rows |= {key: line for key, line in each.items() if key not in rows}
    if intervals:
        measured = {key for each in keyed for key, line in each.items() if "[" in line.seen}
        rows = {key: line for key, line in rows.items() if key in measured}
    head = ["cell", "claim", *(escaped(kind.name) for kind in kinds)]
    parts = []
    for notebook in sorted({line.notebook for line in rows.values()}):
        parts += [f"### {notebook}", "", table_row(head), table_row(["---"] * len(head))]
        for key, line in rows.items():
            if line.notebook == notebook:
                found = (shown(each.get(key)) for each in keyed)
                parts.append(table_row([f"[{line.cell}]", escaped(line.claim), *found]))
        parts.append("")
    return "\n".join(parts)


def table_row(fields: Iterable[str]) -> str:
    """Write a row of a Markdown table."""
    return f"| {' | '.join(fields)} |"


def summary(kinds: Sequence[Kind]) -> str:
    """Write where each kind was run and how many claims are in which state; name the refuted."""
    parts = []
    for kind in kinds:
        states = Counter(line.state for line in kind.lines)
        counts = ", ".join(f"{number} {state}" for state, number in states.most_common())
        parts.append(f"- **{kind.name}**: {counts}. {'; '.join(kind.machines)}.")
        parts += [
            f"  - REFUTED: {line.notebook}, cell [{line.cell}] ({line.section}): {line.claim}; "
            f"seen: {line.seen}"
            for line in kind.lines
            if line.state == "REFUTED"
        ]
    return "\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables of what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kinds", nargs="+", metavar="NAME=FOLDER", help="a column, and its source")
    parser.add_argument(
        "--intervals", action="store_true", help="only speed-ups that have an interval"
    )
    given = parser.parse_args(arguments)
    try:
        kinds = [read_kind(text) for text in given.kinds]
    except (ReadError, nbformat.reader.NotJSONError) as error:
        print(error, file=sys.stderr)
        return 1
    print(tables(kinds, intervals=given.intervals))
    print(summary(kinds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
