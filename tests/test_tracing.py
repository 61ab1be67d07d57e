"""What one evaluation does inside torch: operators, bytes, FLOPs, transfers."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from labkit.tracing import trace_call  # noqa: E402

N = 1000
X = torch.ones(N)
OUT = torch.empty(N)
FLOAT = 4


def only(call):
    (use,) = trace_call(call).operators
    return use


def test_an_addition_reads_two_vectors_and_writes_one():
    use = only(lambda: X + OUT)
    assert (use.name, use.dtype, use.device, use.calls) == ("aten.add", "float32", "cpu", 1)
    assert use.bytes_moved == 3 * N * FLOAT
    assert use.shapes == "1000, 1000"


def test_what_is_written_through_out_is_not_read():
    assert only(lambda: torch.add(X, X, out=OUT)).bytes_moved == 3 * N * FLOAT


def test_an_addition_in_place_reads_and_writes_its_target():
    assert only(lambda: OUT.add_(X)).bytes_moved == 3 * N * FLOAT


def test_a_copy_reads_its_source_and_writes_its_target():
    assert only(lambda: OUT.copy_(X)).bytes_moved == 2 * N * FLOAT


def test_a_fill_only_writes():
    assert only(lambda: OUT.fill_(1.0)).bytes_moved == N * FLOAT


def test_a_view_moves_nothing():
    assert only(lambda: X.view(10, 100)).bytes_moved == 0


def test_an_expanded_tensor_is_read_once():
    one = torch.ones(1)
    uses = trace_call(lambda: X + one.expand(N)).operators
    assert sum(use.bytes_moved for use in uses) == 2 * N * FLOAT + FLOAT


def test_a_look_up_reads_the_rows_that_it_returns():
    table, rows = torch.ones(10_000, 8), torch.tensor([1, 2, 3])
    use = only(lambda: torch.nn.functional.embedding(rows, table))
    assert use.bytes_moved == 2 * 3 * 8 * FLOAT


def test_calls_with_the_same_shapes_are_one_line():
    def call():
        for _ in range(5):
            X + OUT

    use = only(call)
    assert use.calls == 5
    assert use.bytes_moved == 5 * 3 * N * FLOAT


def test_flops_are_those_of_the_products():
    x = torch.ones(8, 16)
    assert trace_call(lambda: x @ x.t()).flops == 2 * 8 * 16 * 8


def test_the_backward_pass_is_seen_too():
    weights = torch.ones(8, 8, requires_grad=True)
    x = torch.ones(4, 8)

    def step():
        weights.grad = None
        (x @ weights).sum().backward()

    names = [use.name for use in trace_call(step).operators]
    assert names.count("aten.mm") == 2


def test_the_working_set_counts_every_tensor_once():
    def call():
        torch.add(X, X, out=OUT)
        torch.mul(X, OUT, out=OUT)

    assert trace_call(call).working_set_bytes == 2 * N * FLOAT


def test_operators_inside_of_inference_mode_are_seen():
    layer = torch.nn.Linear(8, 4)
    x = torch.ones(2, 8)

    def call():
        with torch.inference_mode():
            return layer(x)

    found = trace_call(call)
    assert found.operators
    assert found.flops == 2 * 2 * 8 * 4


def test_a_compiled_function_is_seen_as_the_operators_it_was_made_of():
    compiled = torch.compile(lambda x: (x + 1) * 2, backend="eager")
    compiled(X)
    assert [use.name for use in trace_call(lambda: compiled(X)).operators] == [
        "aten.add",
        "aten.mul",
    ]


def test_sparse_and_small_integer_tensors_do_not_stop_it():
    sparse = torch.eye(4).to_sparse()
    packed = torch.ones(4, 4, dtype=torch.int8)
    found = trace_call(lambda: (torch.sparse.mm(sparse, torch.ones(4, 4)), packed + packed))
    assert {"float32", "int8"} <= {use.dtype for use in found.operators}


def test_work_without_torch_has_no_operators_and_a_busy_processor():
    found = trace_call(lambda: sum(range(10_000)), evaluations=10)
    assert not found.operators
    assert found.cpu_share > 0.3
