"""Which cells a cell needs, from its code alone."""

import textwrap

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools.slice_notebook import dependent, needed, panels_in, slice_to_panels


def need(*cells):
    """What the last cell needs."""
    return list(needed([textwrap.dedent(cell) for cell in cells], [len(cells) - 1]))


def test_a_name_needs_the_cell_that_bound_it_last():
    assert need("x = 1", "y = 2", "x = 3", "z = x", "print(z, y)") == [1, 2, 3, 4]


def test_a_cell_that_binds_a_name_first_needs_no_other():
    assert need("x = 1", "x = 2\nprint(x)") == [1]
    assert need("x = 1", "x += 1") == [0, 1]


@pytest.mark.parametrize(
    "change",
    [
        "x.append(1)",
        "x.weight.data = 0",
        "x['a'] = 0",
        "del x[0]",
        "x += [1]",
        "fit(x, y, steps=3)",
        "await fit(x)",
        "for part in parts:\n    x.append(part)",
        "if y:\n    x = 3",
        "with lock:\n    fit(x)",
        "try:\n    fit(x)\nfinally:\n    pass",
        "%load_ext thing\nfit(x)",
        "gather([x, y])",
    ],
)
def test_a_cell_that_may_change_a_thing_is_needed_with_it(change):
    assert need("x = []", change, "print(x)") == [0, 1, 2]


@pytest.mark.parametrize(
    "harmless",
    [
        "print(x)",
        "lab.check('it is', x > 1)",
        "x.claim('a')",
        "x.plot()",
        "y = f(x)",
        "fit(y, x)",
        "[x for x in parts]",
        "def f(x):\n    x.append(1)",
        "f = lambda: x.append(1)",
    ],
)
def test_a_cell_that_only_looks_is_not_needed(harmless):
    assert need("x = []", harmless, "print(x)") == [0, 2]


def test_functions_are_looked_into():
    cells = [
        "def twice(x):\n    return factor * x",
        "other = 3",
        "factor = 2",
        "twice(1)",
    ]
    assert need(*cells) == [0, 2, 3]
    assert need("factor = 2", *cells[:2], "factor = 3", "twice(1)") == [0, 1, 3, 4]


def test_names_of_a_function_are_its_own():
    assert need("x = 1", "y = 2", "def f(x):\n    y = x\n    return [y for y in x]", "f(3)") == [
        2,
        3,
    ]


def test_a_function_that_changes_a_thing_outside_is_needed_where_it_is_called():
    define = "seen = []\ndef remember(x):\n    seen.append(x)"
    assert need(define, "remember(1)", "y = 2", "print(seen)") == [0, 1, 3]


def test_a_class_runs_at_once_and_its_methods_later():
    cell = "class Counter:\n    start = first\n    def step(self):\n        return by"
    assert need("first = 1", "by = 1", "other = 1", cell, "Counter()") == [0, 1, 3, 4]


def test_an_experiment_reads_its_parameters_at_once():
    cell = "@lab.experiment(size=sizes)\ndef sorting(size):\n    return variants(size)"
    cells = ["import labkit as lab", "sizes = [1]", cell, "def variants(size): ..."]
    assert need(*cells, "sorting.panel()") == [0, 1, 2, 3, 4]


def test_seeds_and_threads_stay_with_their_library():
    cells = ["import torch", "torch.manual_seed(0)", "x = 1"]
    assert need(*cells, "torch.rand(3)") == [0, 1, 3]
    assert need(*cells, "print(x)") == [2, 3]


def test_what_is_for_the_whole_process_is_always_needed():
    assert need("import os\nos.environ['A'] = '1'", "y = 2", "x = 1", "print(x)") == [0, 2, 3]
    assert need("%%bash\necho", "from math import *", "y = 1", "print(x)") == [0, 1, 3]


def test_the_package_itself_is_changed_by_nobody():
    cells = ["import labkit as lab", "lab.training.fit(model, rows)", "lab.machine()"]
    assert need(*cells) == [0, 2]


def test_magics_are_read():
    cells = ["%load_ext line_profiler", "def f(): ...", "y = 1", "stats = %lprun -r -f f f()"]
    assert need(*cells, "stats") == [0, 1, 3, 4]


def test_processes_that_are_closed_at_the_end_of_a_section():
    cells = [
        "client = Client()",
        "sweep = experiment.sweep(client=client)",
        "client.close()",
        "other.panel()",
    ]
    assert need(*cells) == [3]
    assert need(*cells[:2], "sweep.panel()") == [0, 1, 2]
    # Who uses it once more finds it as it is in the whole notebook: closed.
    assert need(*cells[:3], "client.panel()") == [0, 2, 3]


def test_a_with_block_is_one_cell():
    cells = [
        "def task(rank):\n    return size * rank",
        "size = 3",
        "with lab.parallel.Ranks(2) as ranks:\n    found = ranks.run(task)",
        "print('other')",
    ]
    assert need(*cells, "print(found)") == [0, 1, 2, 4]
    assert need(*cells[:3], "with ranks:\n    ranks.run(task)") == [0, 1, 2, 3]


def test_the_name_of_an_exception_is_bound_in_its_handler():
    assert need("why = 1", "try:\n    f()\nexcept ValueError as why:\n    print(why)") == [1]


MIXED = """\
import time

sizes = [1, 2]


def close(one, other):
    # Nearly.
    return abs(one - other) < tolerance

found = measure(sizes)
tolerance = 0.1
print(found)"""


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("sizes", "sizes = [1, 2]"),
        (
            "close(1, 2)",
            "def close(one, other):\n    return abs(one - other) < tolerance\ntolerance = 0.1",
        ),
        ("found", "sizes = [1, 2]\nfound = measure(sizes)\nprint(found)"),
        ("found, close(1, 2), time", MIXED),
    ],
)
def test_definitions_are_taken_without_what_else_their_cell_runs(target, code):
    assert needed([MIXED, target], [1])[0] == code


def test_calls_of_one_cell_stay_together():
    cell = "model = network()\ndef accuracy(model): ...\nlosses = fit(model)"
    assert needed([cell, "model"], [1])[0] == "model = network()\nlosses = fit(model)"


def test_a_cell_that_is_cut_is_not_compared():
    cells = [new_code_cell("x = 1\nprint(x)"), panel("show(x)")]
    cells[0].outputs = [new_output("stream", text="1")]
    part = slice_to_panels(new_notebook(cells=cells)).cells
    assert part[0].source == "x = 1"
    assert (part[0].outputs, part[0].metadata.tags) == ([], ["nbval-ignore-output"])
    assert part[1].outputs == cells[1].outputs
    assert "tags" not in part[1].metadata


def test_several_targets_and_cells_without_code():
    cells = ["x = 1", "", "y = 1", "print(x)", "print(y)"]
    assert needed(cells, [3, 4]) == {n: cells[n] for n in (0, 2, 3, 4)}


def test_what_is_about_an_experiment():
    cells = [
        "@lab.experiment()\ndef sorting(): ...\nexperiment = sorting",
        "found = experiment.run()",
        "other = lab.compare(variants)",
        "other.claim('a')",
        "found.claim('a')",
        "sorting.sweep()",
        "found = 1",
        "print(found)",
    ]
    assert dependent(cells, 0, "experiment") == [1, 4, 5]


def panel(source):
    data = {"text/plain": "Panel(sorting)", "application/vnd.jupyter.widget-view+json": {}}
    return new_code_cell(source, outputs=[new_output("display_data", data)])


def test_a_copy_has_the_panels_as_they_are_and_what_they_need():
    cells = [
        new_markdown_cell("# A question"),
        new_code_cell("x = 1", execution_count=1),
        new_code_cell("y = 1", execution_count=2),
        panel("show(x)"),
        new_code_cell("z = 1"),
    ]
    whole = new_notebook(cells=cells, metadata={"about": "sorting"})
    part = slice_to_panels(whole)
    assert [cell.source for cell in part.cells] == ["x = 1", "show(x)"]
    assert [cell.execution_count for cell in part.cells] == [1, 2]
    assert sum(map(panels_in, part.cells)) == 1
    assert part.metadata == whole.metadata
    nbformat.validate(part)
    assert len(whole.cells) == 5


def test_a_notebook_without_a_panel_is_refused():
    with pytest.raises(ValueError, match="no cell has shown a panel"):
        slice_to_panels(new_notebook(cells=[new_code_cell("x = 1")]))
