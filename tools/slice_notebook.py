"""Make a copy of a notebook with its panels, the cells that they need, and no others.

    python -m tools.slice_notebook notebooks/05-pruning.ipynb panels.ipynb

What a cell needs is found in the code, without running it:

* a name that is read needs the cell that bound it last, and those that changed it since;
* what a function reads may also be bound later, before somebody calls it;
* a call whose result is dropped (`model.eval()`, `fit(model, digits)`) changes its object and its
  first argument, and so does an assignment to an attribute or an element;
* a call into Python's own library (`os.chdir(...)`) is for all cells, and always needed.

A call whose result is kept (`losses = fit(model)`) is taken to change nothing, and an object to
have one name. Who writes otherwise is found out: the claims in a copy have to hold.

A cell that is needed for its definitions alone (functions, classes, imports, names of things that
no call makes) gives these, and does not run what else it has. The panels' cells are as they were.
"""

import argparse
import ast
import copy
import itertools
import re
import symtable
import sys
import uuid
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

# Calls that show something, and change nothing although nobody keeps their results.
SHOWING = {"print", "display", "check", "claim", "recorded", "plot", "pareto", "explain", "panel"}
COMPREHENSIONS = {"listcomp", "setcomp", "dictcomp", "genexpr"}
MAGICS = {"run_line_magic", "run_cell_magic"}
NAME = re.compile(r"[A-Za-z_]\w*")

Function = ast.FunctionDef | ast.AsyncFunctionDef
Loop = ast.For | ast.AsyncFor
With = ast.With | ast.AsyncWith


@dataclass
class Facts:
    """What the code of a cell does with names.

    Attributes:
        reads: names that must be there when it runs.
        reads_later: names that its functions read when they are called.
        binds: names that stand for something else from here on.
        changes: names that may be bound here, or of things that may be changed.
        changes_later: by function, names of things outside it that a call may change.
        modules: by name of an imported module (or of what was taken from it), the module.
        for_all: whether it changes what all cells share.
    """

    reads: set[str] = field(default_factory=set)
    reads_later: set[str] = field(default_factory=set)
    binds: set[str] = field(default_factory=set)
    changes: set[str] = field(default_factory=set)
    changes_later: dict[str, set[str]] = field(default_factory=dict)
    modules: dict[str, str] = field(default_factory=dict)
    for_all: bool = False


@dataclass
class Piece:
    """Statements of a cell that are taken together: a definition, or all between two of them.

    Attributes:
        cell: number of the cell.
        statements: its statements.
        defines: whether it is a definition, which can be taken without the rest of the cell.
        facts: what it does with names.
    """

    cell: int
    statements: list[ast.stmt]
    defines: bool
    facts: Facts


def pieces_of(sources: Iterable[str]) -> list[Piece]:
    """Take the code of cells apart."""
    pieces = []
    for number, source in enumerate(sources):
        for defines, group in itertools.groupby(_parsed(source), _defines):
            statements = list(group)
            parts = [[one] for one in statements] if defines else [statements]
            pieces += [Piece(number, part, defines, facts_of(part)) for part in parts]
    return pieces


def facts_of(statements: list[ast.stmt]) -> Facts:
    """Read statements in order."""
    facts = Facts()
    _read_block(statements, facts, set(), certain=True)
    return facts


def _defines(statement: ast.stmt) -> bool:
    """Whether a statement only gives names, to functions or to what no call makes."""
    if isinstance(statement, ast.Assign):
        calls = ast.Call | ast.Await | ast.NamedExpr
        stored = all(isinstance(target, ast.Name) for target in statement.targets)
        return stored and not any(isinstance(part, calls) for part in ast.walk(statement.value))
    return isinstance(statement, Function | ast.ClassDef | ast.Import | ast.ImportFrom)


def _parsed(source: str) -> list[ast.stmt]:
    return ast.parse(TransformerManager().transform_cell(source)).body


def _read_block(
    statements: Iterable[ast.stmt], facts: Facts, bound: set[str], *, certain: bool
) -> None:
    """Read statements in order; ``bound`` are names that the cell itself has bound before."""
    for statement in statements:
        head = _head(statement)
        table = symtable.symtable(ast.unparse(head), "cell", "exec")
        now, later = _names_read(table)
        if isinstance(head, ast.AugAssign):
            now |= _names(head.target)
        facts.reads |= (now | set(_names_in_magics(head))) - bound
        facts.reads_later |= later
        facts.changes |= _changed(head)
        names = {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported()}
        for_sure = certain and not isinstance(statement, Loop | ast.Delete | ast.Match)
        (facts.binds if for_sure else facts.changes).update(names)
        _read_kind(statement, later, facts)
        inside = bound | names
        for body in _bodies(statement):
            if isinstance(statement, With) and certain:
                _read_block(body, facts, bound := inside, certain=True)
            else:
                _read_block(body, facts, set(inside), certain=False)
        if for_sure or not certain:
            bound |= names


def _read_kind(statement: ast.stmt, later: set[str], facts: Facts) -> None:
    """What is peculiar to imports, functions and cell magics."""
    match statement:
        case ast.Import(names=names):
            facts.modules |= {n.asname or n.name.partition(".")[0]: n.name for n in names}
        case ast.ImportFrom(module=module, names=names):
            facts.modules |= {n.asname or n.name: module or "" for n in names}
            facts.for_all |= any(n.name == "*" for n in names)
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            inner = (part for part in ast.walk(statement) if isinstance(part, ast.stmt))
            changed = set().union(*(_changed(_head(part)) for part in inner))
            facts.changes_later[name] = changed & later
    for call in ast.walk(statement):
        if isinstance(call, ast.Call) and _called(call) == "run_cell_magic":
            facts.for_all = True


def _head(statement: ast.stmt) -> ast.stmt:
    """A compound statement without its blocks; a function, a class or a `match` is one piece."""
    if isinstance(statement, ast.Try | ast.TryStar):
        return ast.Pass()
    if not list(_bodies(statement)):
        return statement
    head = copy.copy(statement)
    head.body, head.orelse = [ast.Pass()], []
    return head


def _bodies(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    if isinstance(statement, Function | ast.ClassDef | ast.Match):
        return
    for name in ("body", "orelse", "finalbody"):
        if block := getattr(statement, name, None):
            yield block
    for handler in getattr(statement, "handlers", []):
        # The name of the exception is bound here, and gone afterwards.
        name = [ast.parse(f"{handler.name} = None").body[0]] if handler.name else []
        kind = [ast.Expr(handler.type)] if handler.type else []
        yield [*kind, *name, *handler.body]


def _names_read(table: symtable.SymbolTable) -> tuple[set[str], set[str]]:
    """Names of the notebook that are read at once, and those that functions read."""
    now, later = set(), set()

    def collect(part: symtable.SymbolTable, names: set[str]) -> None:
        for symbol in part.get_symbols():
            if symbol.is_referenced() and (part is table or symbol.is_global()):
                names.add(symbol.get_name())
        for child in part.get_children():
            at_once = child.get_type() == "class" or child.get_name() in COMPREHENSIONS
            collect(child, names if at_once else later)

    collect(table, now)
    return now, later


def _names_in_magics(head: ast.stmt) -> Iterator[str]:
    for call in ast.walk(head):
        if isinstance(call, ast.Call) and _called(call) in MAGICS:
            for text in call.args:
                yield from NAME.findall(text.value)


def _changed(head: ast.stmt) -> set[str]:
    """Names of what a statement may change in place."""
    changed = set()
    for part in ast.walk(head):
        if isinstance(part, ast.Attribute | ast.Subscript) and not isinstance(part.ctx, ast.Load):
            changed |= _names(part.value)
    if isinstance(head, ast.Expr):
        value = head.value.value if isinstance(head.value, ast.Await) else head.value
        if isinstance(value, ast.Call) and _called(value) not in SHOWING:
            changed |= _names(value)
    return changed


def _called(call: ast.Call) -> str:
    """The last part of the name of what is called; "" if it has none."""
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def _names(expression: ast.AST) -> set[str]:
    """Names of what an expression is a part of; of a call, its object and its first argument."""
    match expression:
        case ast.Name(id=name):
            return {name}
        case ast.Attribute(value=ast.Call(func=ast.Name(id=name)) as call):
            return {name} | _names(call)
        case ast.Attribute(value=inner) | ast.Subscript(value=inner) | ast.Starred(value=inner):
            return _names(inner)
        case ast.Call(func=function, args=given):
            first = given[0] if given and not isinstance(given[0], ast.Call) else None
            return _names(first) | (set() if isinstance(function, ast.Name) else _names(function))
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            return set().union(*map(_names, parts))
    return set()


def needed(sources: list[str], targets: Collection[int]) -> dict[int, str]:
    """The code that some cells need, and of these themselves, in order, by the cell's number.

    Args:
        sources: the code of all cells; "" for a cell without.
        targets: numbers of the cells that are wanted, whole.
    """
    pieces = pieces_of(sources)
    _look_into_calls(pieces)
    modules = {name for piece in pieces for name in piece.facts.modules}
    facts = [piece.facts for piece in pieces]

    def before(name: str, number: int) -> Iterator[int]:
        for earlier in range(number - 1, -1, -1):
            if name in facts[earlier].changes | facts[earlier].binds:
                yield earlier
            if name in facts[earlier].binds:
                return

    wanted = {n for n, piece in enumerate(pieces) if piece.cell in targets}
    last = max(wanted)
    waiting = wanted | {number for number in range(last) if facts[number].for_all}
    found: set[int] = set()
    while waiting:
        found.add(number := waiting.pop())
        piece = pieces[number]
        for name in piece.facts.reads | (piece.facts.reads_later - piece.facts.binds):
            waiting |= set(before(name, number)) - found
        for name in piece.facts.reads_later - modules:
            after = range(number + 1, last)
            waiting |= {n for n in after if name in facts[n].changes | facts[n].binds} - found
        if not piece.defines:
            cell = {n for n, p in enumerate(pieces) if p.cell == piece.cell and not p.defines}
            waiting |= cell - found
    return {
        cell: _code(sources[cell], [(piece, n in found) for n, piece in group])
        for cell, group in _by_cell(pieces)
        if any(n in found for n, _ in group)
    }


def _by_cell(pieces: list[Piece]) -> Iterator[tuple[int, list[tuple[int, Piece]]]]:
    for cell, group in itertools.groupby(enumerate(pieces), lambda numbered: numbered[1].cell):
        yield cell, list(group)


def _code(source: str, pieces: list[tuple[Piece, bool]]) -> str:
    """The code of a cell, as it is where all pieces are taken."""
    if all(taken for _, taken in pieces):
        return source
    taken = [statement for piece, taken in pieces if taken for statement in piece.statements]
    return "\n".join(map(ast.unparse, taken))


def _look_into_calls(pieces: list[Piece]) -> None:
    """Add what functions of the notebook change when they are called, and what modules are."""
    modules: dict[str, str] = {}
    changes_later: dict[str, set[str]] = {}
    for facts in (piece.facts for piece in pieces):
        modules |= facts.modules
        changes_later |= facts.changes_later
        for name in facts.reads & changes_later.keys():
            facts.changes |= changes_later[name] - modules.keys()
        known = {name: modules[name].partition(".")[0] for name in facts.changes & modules.keys()}
        facts.for_all |= not sys.stdlib_module_names.isdisjoint(known.values())
        facts.changes -= {name for name, module in known.items() if module == "labkit"}


def dependent(sources: list[str], number: int, name: str) -> list[int]:
    """Numbers of the cells after one that use what a name stands for there, or what was made of it.

    Args:
        sources: as in `needed`.
        number: of the cell that binds the name last.
        name: such as "experiment"; in `experiment = sorting` both names count.
    """
    names = {name}
    for statement in _parsed(sources[number]):
        match statement:
            case ast.Assign(targets=[ast.Name(id=target)], value=ast.Name(id=other)):
                names |= {other} if target == name else set()
    found = []
    for later in range(number + 1, len(sources)):
        facts = facts_of(_parsed(sources[later]))
        if names.isdisjoint(facts.reads | facts.reads_later):
            names -= facts.binds
        else:
            found.append(later)
            names |= facts.binds | facts.changes
    return found


def sources_of(notebook: NotebookNode) -> list[str]:
    """The code of all cells, "" for a cell of text."""
    return [cell.source if cell.cell_type == "code" else "" for cell in notebook.cells]


def panels_in(cell: NotebookNode) -> int:
    """How many panels a cell has shown when it was saved."""
    shown = [output.get("data", {}).get("text/plain", "") for output in cell.get("outputs", [])]
    return sum(text.startswith("Panel(") for text in shown)


def with_cells(notebook: NotebookNode, cells: Iterable[tuple[int | None, str]]) -> NotebookNode:
    """A notebook with copies of its cells, counted as if they had been run in this order.

    Args:
        notebook: where the cells are.
        cells: number of a cell, or None for a new one, and its code. Where that is not the cell's
            own, nothing is known of its outputs.
    """
    result = copy.copy(notebook)
    result.cells = []
    for count, (number, code) in enumerate(cells, start=1):
        cell = new_code_cell() if number is None else copy.deepcopy(notebook.cells[number])
        if cell.source != code:
            cell.source, cell.outputs = code, []
            cell.metadata.tags = [*cell.metadata.get("tags", []), "nbval-ignore-output"]
        # A cell may be there twice, its name may not.
        cell.execution_count, cell.id = count, uuid.uuid4().hex[:8]
        result.cells.append(cell)
    return result


def slice_to_panels(notebook: NotebookNode) -> NotebookNode:
    """A copy of a notebook that has its panels and what they need.

    Raises:
        ValueError: there is no panel.
    """
    panels = [number for number, cell in enumerate(notebook.cells) if panels_in(cell)]
    if not panels:
        raise ValueError("no cell has shown a panel: run the notebook and save it")
    return with_cells(notebook, needed(sources_of(notebook), panels).items())


def main() -> None:
    """Read one notebook, write the other."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("copy", type=Path)
    arguments = parser.parse_args()
    nbformat.write(slice_to_panels(nbformat.read(arguments.notebook, 4)), arguments.copy)


if __name__ == "__main__":
    main()
