"""What the teacher's guide says of the notebooks, files and commands is so."""

import re
from functools import cache
from pathlib import Path

import nbformat
import pytest

from tools.expected_numbers import claims_of

ROOT = Path(__file__).resolve().parent.parent
GUIDE = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")
BOOKS = {path.name[:2]: path for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))}

# 00 § 2 [4]-[7]; a section without cells, and a cell without a section, are references, too.
REFERENCE = re.compile(r"\b(0\d)(?: § (\d+))?(?: \[(\d+)\](?:-\[(\d+)\])?)?(?![\d-])")
BREAKS = ("break", "lunch")
PLANS = {"Two hours": [120], "Half a day": [240], "Two days": [390, 390]}


def part(title):
    """The text under a heading of the guide."""
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", GUIDE, re.MULTILINE | re.DOTALL)[1]


def tables(text):
    """Its tables: lists of rows, each a list of fields, without the heads."""
    found = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    return [[fields(row) for row in table.splitlines()[2:]] for table in found]


def fields(row):
    """What stands between the bars; a bar after a backslash is part of the text."""
    return [field.strip() for field in re.split(r"(?<!\\)\|", row)[1:-1]]


@cache
def sections(book):
    """Of a notebook: section to its text, with code, and to the numbers of its cells."""
    texts, cells, section = {"": ""}, {"": []}, ""
    for cell in nbformat.read(BOOKS[book], as_version=4).cells:
        if cell.cell_type == "code":
            cells[section].append(cell.execution_count)
            texts[section] += cell.source
            continue
        for piece in re.split(r"^(?=## )", cell.source, flags=re.MULTILINE):
            heading = re.match(r"## (\d+)\. ", piece)
            if heading:
                section = heading[1]
                texts[section], cells[section] = "", []
            texts[section] += piece
    return texts, cells


def plan_rows():
    found = [(title, row) for title in PLANS for table in tables(part(title)) for row in table]
    return [pytest.param(*row, id=f"{title} {row[0]}") for title, row in found]


def test_the_plans_leave_no_gap_and_fill_their_time():
    for title, lengths in PLANS.items():
        found = tables(part(title))
        assert len(found) == len(lengths)
        for table, length in zip(found, lengths, strict=True):
            times = [tuple(map(int, row[0].split("-"))) for row in table]
            assert [start for start, _ in times] == [0, *(end for _, end in times[:-1])]
            assert times[-1][1] == length
            pauses = [t for t, row in zip(times, table, strict=True) if row[1][:5] in BREAKS]
            starts, ends = zip(*pauses, strict=True)
            work = zip([0, *ends], [*starts, length], strict=True)
            assert max(end - start for start, end in work) <= 75  # minutes without a break


def test_every_reference_is_to_a_section_and_to_cells_in_it():
    found = [m for m in REFERENCE.finditer(GUIDE) if m[2] or m[3]]
    assert len(found) > 80
    for match in found:
        book, section, first, last = match.groups()
        _, cells = sections(book)
        wanted = {int(n) for n in (first, last) if n}
        assert wanted <= set(cells[section or ""]), match[0]


@pytest.mark.parametrize(("minute", "what", "where", "predicts", "shows"), plan_rows())
def test_a_step_of_a_plan_is_in_its_notebook(minute, what, where, predicts, shows):
    books = [match.groups()[:2] for match in REFERENCE.finditer(where)]
    texts = [sections(book)[0][section or ""] for book, section in books]
    if predicts and books and "own" not in predicts:
        assert any(re.search("[Pp]redict|Write down", text) for text in texts)
    everything = "".join("".join(sections(book)[0].values()) for book, _ in books)
    for name in re.findall(r"`([^`]+)`", shows):
        # A panel's title is the name of the function.
        assert f"def {name.replace(' ', '_')}(" in everything


def test_minutes_are_those_of_the_notebooks():
    (table,) = tables(part("What each notebook is for"))
    assert [row[0] for row in table] == [path.stem for path in BOOKS.values()]
    for name, minutes, *_ in table:
        assert f"\n{minutes} minutes." in sections(name[:2])[0][""], name


def test_what_settles_a_belief_is_a_claim_of_that_section():
    (table,) = tables(part("What people believe, and where they meet it"))
    assert {row[1][:2] for row in table} == set(BOOKS)
    for _, where, settles in table:
        book, number, title = re.fullmatch(r"(\d\d) § (\d+), \*(.+)\*", where).groups()
        first = sections(book)[0][number]
        assert f"## {number}. {title}" in first.replace("*", ""), where
        claim = re.match(r"`([^`]+)`", settles)[1]
        cells = sections(book)[1][number]
        said = {line.claim for line in claims_of(BOOKS[book]) if line.cell in cells}
        assert claim in said, (where, claim)


def test_every_expected_number_is_of_a_claim_that_is_made():
    names, expected = re.findall(r"^### (\d\d)-", GUIDE, re.MULTILINE), part("Expected numbers")
    found = [table for table in tables(expected) if table[0][0].startswith("[")]
    assert names == sorted(set(BOOKS) & set(names))
    assert len(found) == len(names)
    for book, table in zip(names, found, strict=True):
        made = {line.claim for line in claims_of(BOOKS[book])}
        assert {row[1].replace("\\|", "|") for row in table} <= made


def test_files_commands_and_names_of_the_guide_are_there():
    links = re.findall(r"\]\(([^)#]+)\)", GUIDE)
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"`make ([a-z]+)", GUIDE)) <= set(targets)
    for path in re.findall(r"\b(?:tools|teacher|data|docs)/[\w./-]+\w", GUIDE):
        assert (ROOT / path).exists(), path
    code = "".join(path.read_text() for path in (ROOT / "labkit").glob("*.py"))
    for name in {"LABKIT_RECORDS", "LABKIT_NAME"} | set(re.findall(r"LABKIT_[A-Z]+", GUIDE)):
        assert f'"{name}"' in code, name


def test_public_names_of_the_guide_are_public():
    # Without importing them: that takes seconds.
    import labkit as lab

    names = set(re.findall(r"`lab\.(\w+)", GUIDE))
    assert names
    assert names <= {*lab._HOMES, *lab._MODULES}


def test_anchors_are_headings():
    anchors = set(re.findall(r"\]\(#([^)]+)\)", GUIDE))
    headings = re.findall(r"^## (.+)$", GUIDE, re.MULTILINE)
    known = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert anchors
    assert anchors <= known
