"""Models as programs for ONNX Runtime: when a record of one call will do, and when not."""

import ast
import importlib.util
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")
for package in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(package)
from torch import nn  # noqa: E402

import labkit as lab  # noqa: E402
from labkit import child, onnx_export  # noqa: E402
from labkit.runtimes import OnnxModel  # noqa: E402


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """Exported in this process."""
    monkeypatch.setattr(child, "in_worker", True)


class Model(nn.Module):
    """Layers in containers that are called and that are not, and a function between them."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.ReLU()), nn.Linear(8, 8))
        self.heads = nn.ModuleList([nn.Linear(8, 4), nn.Linear(8, 4)])

    def forward(self, x):
        x = torch.tanh(self.body(x))
        return sum(head(x) for head in self.heads)


def convolutions():
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5)),
    )


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x, y):
        return self.other(x), self.one(x - y)


PLAIN = {
    "nested": (Model, [(1, 8)]),
    "convolutions": (convolutions, [(1, 1, 8, 8)]),
    "two inputs, two answers": (Two, [(2, 8), (2, 8)]),
}


def made(make, shapes):
    torch.manual_seed(0)
    return make().eval(), tuple(torch.randn(shape) for shape in shapes)


def answers(program, inputs):
    found = OnnxModel(program)(*inputs)
    return found if isinstance(found, tuple) else (found,)


def owners(program):
    """The modules of the layers, in the order in which they run."""
    import onnx

    found = []
    for node in onnx.load_from_string(program).graph.node:
        if node.op_type in ("Gemm", "MatMul", "Conv"):
            scopes = {p.key: p.value for p in node.metadata_props}[onnx_export.SCOPES]
            found.append((ast.literal_eval(scopes)[-2], node.op_type))
    return found


@pytest.mark.parametrize(("make", "shapes"), PLAIN.values(), ids=PLAIN)
def test_both_ways_give_the_same_layers_and_say_whose_they_are(make, shapes):
    model, inputs = made(make, shapes)
    inputs = onnx_export.widened(inputs)
    traced = onnx_export._traced(model, inputs)
    exported = onnx_export._by_torch_export(model, inputs)
    layers = [name for name, part in model.named_modules() if hasattr(part, "weight")]
    assert {owner for owner, _ in owners(traced)} <= set(layers)
    kinds = [kind for _, kind in owners(traced)]
    assert kinds == [kind for _, kind in owners(exported)]
    if make is not convolutions:  # there, torch.export names the normalization that it folded in
        assert owners(traced) == owners(exported)


@pytest.mark.parametrize("rows", [1, 2, 7])
@pytest.mark.parametrize(("make", "shapes"), PLAIN.values(), ids=PLAIN)
def test_any_number_of_rows_has_the_answers_of_the_model(make, shapes, rows):
    model, inputs = made(make, shapes)
    program = onnx_export.exported(model, inputs)
    others = tuple(torch.randn(rows, *shape[1:]) for shape in shapes)
    with torch.no_grad():
        expected = model(*others)
    expected = expected if isinstance(expected, tuple) else (expected,)
    for found, right in zip(answers(program, others), expected, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-5)


def test_a_plain_model_needs_nothing_of_what_torch_export_imports():
    script = (
        "import sys, torch\n"
        "from labkit import child, onnx_export\n"
        "child.in_worker = True\n"
        "model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU()).eval()\n"
        "onnx_export.exported(model, (torch.rand(1, 4),))\n"
        "print(sorted({'torch._dynamo', 'onnxscript', 'sympy'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout == "[]\n", done.stderr


class OfValues(nn.Module):
    def forward(self, x):
        return x + 1 if x.sum() > 0 else x - 1


class OfRows(nn.Module):
    def forward(self, x):
        return x / len(x)


class InPlace(nn.Module):
    def forward(self, x):
        y = x.clone()
        y[:, 0] = 0
        return y


class Noise(nn.Module):
    def forward(self, x):
        return x + torch.randn_like(x)


class Shapes(nn.Module):
    def forward(self, x):
        return x.view(x.shape[0], 2, -1)


class SameNames(nn.Module):
    """Neither container is called: a record has the name of the layers alone."""

    def __init__(self):
        super().__init__()
        self.one = nn.ModuleDict({"linear": nn.Linear(8, 8)})
        self.other = nn.ModuleDict({"linear": nn.Linear(8, 8)})

    def forward(self, x):
        return self.other["linear"](self.one["linear"](x))


class Again(nn.Module):
    """The second call of a layer has the name of another one."""

    def __init__(self):
        super().__init__()
        self.linear, self.linear_1 = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        return self.linear_1(self.linear(self.linear(x)))


class FirstRows(nn.Module):
    """As many rows as once are as many for ever."""

    def forward(self, x):
        return x * torch.ones(len(x.tolist()), 1)


def encoder():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)


DOUBTFUL = (OfValues, OfRows, InPlace, Noise, Shapes, SameNames, Again, FirstRows)


@pytest.mark.parametrize("rows", [2, 3])
@pytest.mark.parametrize("make", DOUBTFUL)
def test_a_record_of_one_call_is_not_taken_where_it_may_not_be_all(make, rows, capfd):
    model, (x,) = made(make, [(rows, 8)])
    assert onnx_export._traced(model, (x,)) is None
    assert capfd.readouterr() == ("", "")


def test_a_record_that_answers_otherwise_is_not_taken(monkeypatch):
    model, inputs = made(Model, [(2, 8)])
    assert onnx_export._traced(model, inputs)
    run = onnx_export._run
    monkeypatch.setattr(onnx_export, "_run", lambda *given: [1.01 * x for x in run(*given)])
    assert onnx_export._traced(model, inputs) is None


def test_without_the_runtime_nothing_is_traced(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name)
    )
    assert onnx_export._traced(*made(Model, [(2, 8)])) is None


def test_what_cannot_be_traced_is_exported_by_torch_export():
    model, (x,) = made(encoder, [(1, 3, 8)])
    assert onnx_export._traced(model, (torch.cat([x, x]),)) is None
    (found,) = answers(onnx_export.exported(model, (x,)), (x,))
    with torch.no_grad():
        torch.testing.assert_close(found, model(x), rtol=1e-4, atol=1e-5)


def test_what_torch_export_needs_is_named_where_it_is_missing(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name)
    )
    message = r"^this needs onnxscript, which is not installed: pip install 'labkit\[quantize\]'$"
    with pytest.raises(lab.MissingPackageError, match=message):
        onnx_export.exported(*made(encoder, [(1, 3, 8)]))
