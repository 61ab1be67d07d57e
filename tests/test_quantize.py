"""Every technique of quantization, for real, on models as small as they can be."""

import contextlib
import copy
import dataclasses
import importlib.util
import io
import math

import cloudpickle
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import labkit as lab  # noqa: E402
from labkit import child, quantize  # noqa: E402
from labkit.machines import machine  # noqa: E402
from labkit.optional import EXTRAS, is_there, need  # noqa: E402
from labkit.runtimes import Compiled  # noqa: E402

NEEDED = [package for package, extra in EXTRAS.items() if extra == "quantize"]
if missing := [package for package in NEEDED if not is_there(package)]:
    pytest.skip(f"needs {', '.join(missing)}", allow_module_level=True)

# Imported by the workers' server, once for all of them.
for module in ("pandas", "onnxruntime", "torchao", "torch._inductor.compile_fx"):
    need(module)

needs_compiler = pytest.mark.skipif(
    machine().compiler is None, reason="torch.compile needs a C++ compiler"
)

ROWS = 32
# How far answers may be from those in float32, as a share of their norm; and how far they have to
# be, or nothing was rounded.
EXACT, BFLOAT16, INT8, INT4 = (0.0, 1e-5), (1e-4, 0.01), (1e-3, 0.05), (0.03, 0.2)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    # What the processor says of its vector units is true; trying each of them takes ten seconds.
    with torch._inductor.config.patch({"cpp.vec_isa_ok": True}):
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", autouse=True)
def here():
    """What exports and quantizes does so in this process; test_apart.py has the other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(child, "in_worker", True)
        yield


def data(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return make().eval()


def dense():
    return nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))


def convolutions():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(72, 10),
    )


MODELS = {
    "dense": (seeded(dense), data(ROWS, 512)),
    "convolutions": (seeded(convolutions), data(ROWS, 1, 8, 8)),
}


def example(x):
    """One row: every answer for more rows is one for another batch size."""
    return (x[:1],)


def batches(x):
    return [(batch,) for batch in x.split(8)]


def uneven(x):
    """Batches of different sizes, as the last one of a data set often is."""
    return [(x[:20],), (x[20:],)]


def only_forward(x):
    """A training that changes nothing, so that what is left is the rounding."""

    def train(model):
        for batch in x.split(8):
            model(batch)

    return train


# By name: how to make it of (model, inputs), and how far its answers are from float32.
TECHNIQUES = {
    "compiled": (lambda m, _: quantize.compiled(m), EXACT),
    "bfloat16": (lambda m, _: quantize.bfloat16(m), BFLOAT16),
    "onnx_float32": (lambda m, x: quantize.onnx_float32(m, example(x)), EXACT),
    "onnx_dynamic_int8": (lambda m, x: quantize.onnx_dynamic_int8(m, example(x)), INT8),
    "onnx_static_int8 minmax": (
        lambda m, x: quantize.onnx_static_int8(m, example(x), batches(x)),
        INT8,
    ),
    "onnx_static_int8 percentile": (
        lambda m, x: quantize.onnx_static_int8(m, example(x), batches(x), method="percentile"),
        INT8,
    ),
    "onnx_static_int8 entropy": (
        lambda m, x: quantize.onnx_static_int8(m, example(x), uneven(x), method="entropy"),
        INT8,
    ),
    "onnx_int4_weights": (lambda m, x: quantize.onnx_int4_weights(m, example(x)), INT4),
    "pt2e_static_int8 histogram": (
        lambda m, x: quantize.pt2e_static_int8(m, example(x), batches(x)),
        INT8,
    ),
    # As the program that it is before it is compiled: the same operators are compiled above.
    "pt2e_static_int8 minmax": (
        lambda m, x: quantize.pt2e_static_int8(m, example(x), batches(x), observer="minmax").model,
        INT8,
    ),
    "pt2e_dynamic_int8": (lambda m, x: quantize.pt2e_dynamic_int8(m, example(x)), INT8),
    "pt2e_qat_int8": (lambda m, x: quantize.pt2e_qat_int8(m, example(x), only_forward(x)), INT8),
    "ao_int8_weights": (lambda m, _: quantize.ao_int8_weights(m), INT8),
    "ao_int4_weights": (lambda m, _: quantize.ao_int4_weights(m), INT4),
    "ao_dynamic_int8": (lambda m, _: quantize.ao_dynamic_int8(m), INT8),
}
COMPILED = ("compiled", "pt2e")
ON_CONVOLUTIONS = ("onnx_static_int8 minmax", "pt2e_static_int8 histogram", "bfloat16")


# All techniques on the dense model, some on the convolutions too.
PAIRS = [(name, "dense") for name in TECHNIQUES] + [(n, "convolutions") for n in ON_CONVOLUTIONS]
CASES = [
    pytest.param(
        *pair,
        id=f"{pair[0]} of {pair[1]}",
        marks=[needs_compiler] * pair[0].startswith(COMPILED),
    )
    for pair in PAIRS
]


@dataclasses.dataclass
class Made:
    """What a technique made of a model, and what happened to the model."""

    model: nn.Module
    answers: torch.Tensor
    left_alone: bool
    printed: str


def everything(model):
    """All that somebody who keeps the model could see."""
    return (
        {name: value.clone() for name, value in model.state_dict().items()},
        [(name, type(part), part.training) for name, part in model.named_modules()],
        [(name, id(p), p.requires_grad) for name, p in model.named_parameters()],
        [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules()],
    )


def same(one, other):
    weights, others = one[0], other[0]
    return one[1:] == other[1:] and all(torch.equal(weights[n], others[n]) for n in weights)


@pytest.fixture(scope="module")
def made():
    """Each technique's model, made and called once."""
    cache = {}

    def make(technique, kind):
        if (technique, kind) not in cache:
            model, x = MODELS[kind]
            before, printed = everything(model), io.StringIO()
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                quantized = TECHNIQUES[technique][0](model, x)
                answers = answer(quantized, x)
            unchanged = same(before, everything(model))
            cache[technique, kind] = Made(quantized, answers, unchanged, printed.getvalue())
        return cache[technique, kind]

    return make


def answer(model, x):
    with torch.no_grad():
        return model(x)


def error(answers, expected):
    return float((answers - expected).norm() / expected.norm())


def error_of(model, kind="dense", rows=ROWS):
    """Of the program before it is compiled, which takes seconds for every number of rows."""
    exact, x = MODELS[kind]
    inner = model.model if isinstance(model, Compiled) else model
    return error(answer(inner, x[:rows]), answer(exact, x[:rows]))


@pytest.mark.parametrize(("technique", "kind"), CASES)
def test_answers_are_as_close_to_float32_as_the_bits_allow(made, technique, kind):
    model, x = MODELS[kind]
    answers = made(technique, kind).answers
    assert answers.shape == (ROWS, 10)
    assert answers.dtype == torch.float32
    assert not answers.requires_grad
    least, most = TECHNIQUES[technique][1]
    assert least <= error(answers, answer(model, x)) <= most


@pytest.mark.parametrize(("technique", "kind"), CASES)
def test_the_model_that_was_given_is_left_as_it_was(made, technique, kind):
    assert made(technique, kind).left_alone


@pytest.mark.parametrize(("technique", "kind"), CASES)
def test_nothing_is_printed(made, technique, kind):
    assert made(technique, kind).printed == ""


@pytest.mark.parametrize(("technique", "kind"), CASES)
@pytest.mark.parametrize("rows", [1, 5])
def test_any_number_of_rows_will_do(made, technique, kind, rows):
    quantized = made(technique, kind).model
    least, most = TECHNIQUES[technique][1]
    # Few rows have few errors to take a mean of.
    assert least / 2 <= error_of(quantized, kind, rows) <= 2 * most


@pytest.mark.parametrize(("technique", "kind"), CASES)
def test_what_is_sent_to_another_process_answers_the_same_there(made, technique, kind):
    _, x = MODELS[kind]
    found = made(technique, kind)
    # After its first call: what that started must not travel.
    copied = cloudpickle.loads(cloudpickle.dumps(found.model))
    torch.testing.assert_close(answer(copied, x), found.answers)


@pytest.mark.parametrize(
    ("technique", "share"),
    [
        ("compiled", 1.0),
        ("bfloat16", 0.5),
        ("onnx_float32", 1.0),
        ("onnx_dynamic_int8", 0.25),
        ("onnx_static_int8 minmax", 0.25),
        # A quarter of a half, and a scale for 32 weights.
        ("onnx_int4_weights", 0.125 + 1 / 32),
        ("pt2e_static_int8 histogram", 0.25),
        ("pt2e_dynamic_int8", 0.25),
        ("pt2e_qat_int8", 0.25),
        ("ao_int8_weights", 0.25),
        ("ao_dynamic_int8", 0.25),
    ],
)
def test_the_size_on_disk_is_that_of_the_bits(made, technique, share):
    if technique.startswith("pt2e") and machine().compiler is None:
        pytest.skip("torch.compile needs a C++ compiler")
    # Of the numbers alone: torch's own file has some kilobytes around them, too.
    whole = sum(p.nbytes for p in MODELS["dense"][0].parameters())
    # The rest is the program itself, some ten kilobytes.
    assert share <= quantize.size_bytes(made(technique, "dense").model) / whole <= share + 0.05


def test_4_bits_by_torchao_are_no_larger_than_8(made):
    found = quantize.size_bytes(made("ao_int4_weights", "dense").model)
    assert found < 0.4 * quantize.size_bytes(MODELS["dense"][0])


@needs_compiler
def test_two_compiled_models_of_one_shape_answer_each_for_itself():
    # Of a shape that no other test here compiles.
    first, second = nn.Linear(7, 3).eval(), nn.Linear(7, 3).eval()
    x = data(4, 7)
    compiled = [quantize.compiled(first), quantize.compiled(second)]
    found = [answer(model, x) for model in compiled]
    torch.testing.assert_close(found[0], answer(first, x))
    torch.testing.assert_close(found[1], answer(second, x))


# What a technique leaves in float32 if it is asked to.
EXCLUDING = {
    "onnx_dynamic_int8": lambda m, x, e: quantize.onnx_dynamic_int8(m, example(x), exclude=e),
    "onnx_static_int8": lambda m, x, e: quantize.onnx_static_int8(
        m, example(x), batches(x), exclude=e
    ),
    "onnx_int4_weights": lambda m, x, e: quantize.onnx_int4_weights(m, example(x), exclude=e),
    "pt2e_static_int8": lambda m, x, e: quantize.pt2e_static_int8(
        m, example(x), batches(x), exclude=e
    ),
    "pt2e_dynamic_int8": lambda m, x, e: quantize.pt2e_dynamic_int8(m, example(x), exclude=e),
    "pt2e_qat_int8": lambda m, x, e: quantize.pt2e_qat_int8(
        m, example(x), only_forward(x), exclude=e
    ),
}
LARGE_BYTES = 4 * 512 * 512


@pytest.mark.parametrize(
    "technique",
    [pytest.param(t, marks=[needs_compiler] * t.startswith(COMPILED)) for t in EXCLUDING],
)
def test_an_excluded_layer_stays_in_float32(made, technique):
    model, x = MODELS["dense"]
    found = EXCLUDING[technique](model, x, ["0"])
    assert quantize.size_bytes(found) > LARGE_BYTES
    # The other layer does not, and so leaves its part of the error.
    name = {"onnx_static_int8": " minmax", "pt2e_static_int8": " histogram"}.get(technique, "")
    both = error_of(made(technique + name, "dense").model)
    assert INT8[0] < error_of(found) < 0.95 * both


def test_excluding_convolutions_leaves_only_the_error_of_the_others(made):
    model, x = MODELS["convolutions"]
    some = EXCLUDING["onnx_static_int8"](model, x, ["0", "2"])
    all_of_them = made("onnx_static_int8 minmax", "convolutions").model
    assert error_of(some, "convolutions") < 0.9 * error_of(all_of_them, "convolutions")


def test_a_convolution_that_is_exported_with_its_normalization_can_be_excluded():
    model = seeded(
        lambda: nn.Sequential(nn.Conv2d(1, 64, 3), nn.BatchNorm2d(64), nn.Conv2d(64, 8, 3))
    )
    x = data(8, 1, 8, 8)
    quantized = EXCLUDING["onnx_static_int8"](model, x, ["0"])
    assert int8_weights(quantized) == 9 * 64 * 8


def int8_weights(model):
    """How many weights of a model for ONNX Runtime are in int8."""
    import onnx

    program = onnx.load_from_string(model.program)
    tensors = [t for t in program.graph.initializer if len(t.dims) > 1]
    return sum(math.prod(t.dims) for t in tensors if t.data_type == onnx.TensorProto.INT8)


class Named(nn.Module):
    """Its first layer is called as an exporter calls the product of its second."""

    def __init__(self):
        super().__init__()
        self.linear_1 = nn.Linear(16, 4)
        self.linear = nn.Linear(4, 8)

    def forward(self, x):
        return self.linear(self.linear_1(x).relu())


def test_names_that_an_exporter_gives_are_no_names_of_modules():
    quantized = EXCLUDING["onnx_static_int8"](seeded(Named), data(ROWS, 16), ["linear"])
    assert int8_weights(quantized) == 16 * 4


@pytest.fixture(scope="module")
def by_layer():
    """The dense model with a format for each of its layers, made once."""
    model, x = MODELS["dense"]
    cache = {}

    def make(first, second):
        if (first, second) not in cache:
            given = {"0": first, "2": second}
            formats = {name: word for name, word in given.items() if word}
            cache[first, second] = quantize.onnx_by_layer(model, example(x), batches(x), formats)
        return cache[first, second]

    return make


@pytest.mark.parametrize(
    ("first", "second", "weights_of_int8"),
    [
        ("int4", "int4", 0),
        ("float32", "int4", 0),
        ("int4", None, 512 * 10),
    ],
)
def test_layers_get_the_formats_that_they_are_given(by_layer, first, second, weights_of_int8):
    assert int8_weights(by_layer(first, second)) == weights_of_int8


@pytest.mark.parametrize(
    ("first", "second", "least", "most"),
    [
        ("int4", "int4", 0.15, 0.2),
        ("float32", "int4", 1.0, 1.05),
    ],
)
def test_the_size_is_that_of_the_formats(by_layer, first, second, least, most):
    assert least < quantize.size_bytes(by_layer(first, second)) / LARGE_BYTES < most


@pytest.mark.parametrize(
    ("first", "second", "bounds"),
    [
        ("int4", "int4", INT4),
        ("int4", None, INT4),
        ("float32", "int4", INT4),
    ],
)
@pytest.mark.parametrize("rows", [ROWS, 5])
def test_mixed_formats_are_as_close_to_float32_as_their_bits_allow(
    by_layer, first, second, bounds, rows
):
    least, most = bounds
    assert least / 2 <= error_of(by_layer(first, second), rows=rows) <= 2 * most


@pytest.mark.parametrize(
    "technique", ["onnx_dynamic_int8", "onnx_int4_weights", "onnx_static_int8"]
)
def test_what_was_exported_once_is_quantized_as_the_model_is(made, technique):
    model, x = MODELS["convolutions"]
    more = (batches(x),) if "static" in technique else ()
    quantized = getattr(quantize, technique)
    exported = quantized(made("onnx_float32", "convolutions").model, example(x), *more)
    again = quantized(model, example(x), *more)
    assert torch.equal(exported(x), again(x))


def test_layers_of_what_was_exported_are_chosen_by_their_names(made):
    exported, (_, x) = made("onnx_float32", "dense").model, MODELS["dense"]
    some = quantize.onnx_by_layer(exported, example(x), batches(x), {"0": "int4"})
    assert int8_weights(some) == 512 * 10
    with pytest.raises(ValueError, match=r"no module '7' .* it has 0, 1, 2"):
        quantize.onnx_dynamic_int8(exported, example(x), exclude=["7"])


def test_what_is_quantized_already_is_refused_with_the_way_out(made):
    _, x = MODELS["dense"]
    with pytest.raises(ValueError, match=r"quantized already.* onnx_float32"):
        quantize.onnx_dynamic_int8(made("onnx_dynamic_int8", "dense").model, example(x))
    with pytest.raises(TypeError, match="an ONNX model already"):
        quantize.onnx_float32(made("onnx_float32", "dense").model, example(x))


def test_4_bits_are_refused_for_what_is_no_linear_layer():
    model, x = MODELS["convolutions"]
    with pytest.raises(ValueError, match="'0'"):
        quantize.onnx_by_layer(model, example(x), batches(x), {"0": "int4"})


def test_a_smaller_percentile_cuts_more_off(made):
    model, x = MODELS["dense"]
    cut = quantize.onnx_static_int8(
        model, example(x), batches(x), method="percentile", percentile=90.0
    )
    assert error_of(cut) > 3 * error_of(made("onnx_static_int8 percentile", "dense").model)


def test_calibration_decides_what_a_static_range_holds():
    model, x = MODELS["dense"]
    clipped = quantize.pt2e_static_int8(model, example(x), [(x / 100,)])
    assert error_of(clipped) > 0.5


def test_more_weights_for_one_scale_give_a_smaller_model_and_a_larger_error(made):
    model, x = MODELS["dense"]
    fine = made("onnx_int4_weights", "dense").model
    coarse = quantize.onnx_int4_weights(model, example(x), group=128)
    assert quantize.size_bytes(coarse) < quantize.size_bytes(fine)
    assert error_of(coarse) > 1.05 * error_of(fine)


def test_training_with_the_rounding_in_it_moves_the_copy_and_not_the_model():
    model, x = copy.deepcopy(MODELS["dense"][0]), MODELS["dense"][1]
    before = everything(model)
    norms = []

    def towards_zero(prepared):
        optimizer = torch.optim.SGD(prepared.parameters(), lr=0.5)
        for _ in range(10):
            optimizer.zero_grad()
            loss = prepared(x).square().mean()
            loss.backward()
            optimizer.step()
            norms.append(float(loss.detach()))

    trained = quantize.pt2e_qat_int8(model, example(x), towards_zero)
    assert same(before, everything(model))
    assert norms[-1] < 0.5 * norms[0]
    # What was learned is in what comes back.
    assert float(answer(trained.model, x).norm() / answer(model, x).norm()) < 0.8


LAYER = seeded(lambda: nn.Linear(64, 32))


@pytest.mark.parametrize("technique", ["onnx_static_int8", "onnx_int4_weights"])
def test_a_model_may_be_a_single_layer(technique):
    model, x = LAYER, data(ROWS, 64)
    answers = answer(EXCLUDING[technique](model, x, []), x)
    assert INT8[0] < error(answers, answer(model, x)) < INT4[1]


def test_a_model_of_two_inputs_keeps_their_order():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(16, 4)

        def forward(self, x, y):
            return self.layer(x) - 10 * y

    model, x, y = seeded(Two), data(6, 16), torch.ones(6, 4)
    given = (x[:1], y[:1])
    for quantized in (
        quantize.onnx_float32(model, given),
        quantize.pt2e_static_int8(model, given, [(x, y)]).model,
        quantize.bfloat16(model),
    ):
        with torch.no_grad():
            assert error(quantized(x, y), model(x, y)) < 0.05


NO_LAYERS = nn.Sequential(nn.ReLU(), nn.Flatten()).eval()
ONLY_CONVOLUTION = nn.Sequential(nn.Conv2d(1, 2, 3)).eval()
X = data(2, 1, 8, 8)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: quantize.onnx_dynamic_int8(m, (X,)), "Linear"),
        (lambda m: quantize.onnx_static_int8(m, (X,), [(X,)]), "Linear or Conv2d"),
        (lambda m: quantize.onnx_by_layer(m, (X,), [(X,)], {}), "Linear or Conv2d"),
        (lambda m: quantize.onnx_int4_weights(m, (X,)), "Linear"),
        (lambda m: quantize.pt2e_static_int8(m, (X,), [(X,)]), "Linear or Conv2d"),
        (lambda m: quantize.pt2e_dynamic_int8(m, (X,)), "Linear"),
        (lambda m: quantize.pt2e_qat_int8(m, (X,), never), "Linear or Conv2d"),
        (quantize.ao_int8_weights, "Linear"),
        (quantize.ao_int4_weights, "Linear"),
        (quantize.ao_dynamic_int8, "Linear"),
    ],
)
def test_a_model_without_such_layers_is_refused_with_the_reason(call, words):
    message = f"^this changes layers of {words}, and the model has none$"
    with pytest.raises(lab.DoesNotApplyError, match=message):
        call(NO_LAYERS)
    if words == "Linear":
        with pytest.raises(lab.DoesNotApplyError, match=message):
            call(ONLY_CONVOLUTION)


def never(*_):
    raise RuntimeError("work was done before the input was looked at")


class Untouchable(nn.Module):
    """A model that nobody may run, so that nothing can be exported or calibrated."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        never()


MODEL, ROW = Untouchable().eval(), (torch.ones(1, 4),)


@pytest.mark.parametrize("exclude", [["layer"], ("layer",), {"layer"}])
@pytest.mark.parametrize("technique", EXCLUDING)
def test_excluding_every_layer_is_refused(technique, exclude):
    with pytest.raises(lab.DoesNotApplyError, match=r"exclude names every layer of .*: layer"):
        EXCLUDING[technique](MODEL, ROW[0], exclude)


class Inside(Untouchable):
    """Its layer is a part of a part."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(4, 4), nn.ReLU())


@pytest.mark.parametrize("technique", EXCLUDING)
def test_excluding_what_holds_every_layer_is_refused(technique):
    with pytest.raises(lab.DoesNotApplyError, match=r"exclude names every layer of .*: layer.0"):
        EXCLUDING[technique](Inside().eval(), ROW[0], ["layer"])


def test_weights_that_do_not_fill_their_groups_are_refused_with_the_reason():
    with pytest.raises(lab.DoesNotApplyError, match=r"group=32"):
        quantize.ao_int4_weights(nn.Linear(50, 10).eval())


@pytest.mark.parametrize("technique", EXCLUDING)
def test_excluding_a_module_that_is_not_there_is_refused_with_those_that_are(technique):
    with pytest.raises(ValueError, match="no module 'body' in the model; it has layer"):
        EXCLUDING[technique](MODEL, ROW[0], ["body"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: quantize.onnx_static_int8(MODEL, ROW, [ROW], method="mean"),
            "method='mean': give one of minmax, percentile, entropy",
        ),
        (
            lambda: quantize.onnx_by_layer(MODEL, ROW, [ROW], {}, method="mean"),
            "method='mean': give one of minmax, percentile, entropy",
        ),
        (
            lambda: quantize.onnx_static_int8(MODEL, ROW, [ROW], percentile=100),
            "percentile=100: give a number between 50 and 100",
        ),
        (
            lambda: quantize.pt2e_static_int8(MODEL, ROW, [ROW], observer="mean"),
            "observer='mean': give one of histogram, minmax",
        ),
        (
            lambda: quantize.onnx_by_layer(MODEL, ROW, [ROW], {"layer": "int2"}),
            r"formats\['layer'\]='int2': give one of int8, int4, float32",
        ),
        (
            lambda: quantize.onnx_by_layer(MODEL, ROW, [ROW], {"body": "float32"}),
            "no module 'body' in the model; it has layer",
        ),
    ],
)
def test_a_word_that_is_not_known_is_refused_before_anything_is_done(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name_format", ["int4", "int8"])
def test_a_format_for_a_module_that_is_not_there_is_refused_before_anything_is_done(name_format):
    with pytest.raises(ValueError, match="no module 'body' in the model; it has layer"):
        quantize.onnx_by_layer(MODEL, ROW, [ROW], {"body": name_format})


@pytest.mark.parametrize("calibration", [None, [], [ROW[0]], [[ROW[0]]]])
@pytest.mark.parametrize(
    "technique",
    [quantize.onnx_static_int8, quantize.pt2e_static_int8],
)
def test_calibration_that_is_no_list_of_tuples_is_refused_with_an_example(technique, calibration):
    with pytest.raises(ValueError, match=r"calibration: give a list of input tuples, such as \["):
        technique(MODEL, ROW, calibration)


@pytest.mark.parametrize(
    ("missing", "call"),
    [
        ("torchao", lambda: quantize.ao_int8_weights(MODEL)),
        ("torchao", lambda: quantize.ao_int4_weights(MODEL)),
        ("torchao", lambda: quantize.ao_dynamic_int8(MODEL)),
        ("torchao", lambda: quantize.pt2e_static_int8(MODEL, ROW, [ROW])),
        ("torchao", lambda: quantize.pt2e_dynamic_int8(MODEL, ROW)),
        ("torchao", lambda: quantize.pt2e_qat_int8(MODEL, ROW, never)),
        ("onnx", lambda: quantize.onnx_float32(MODEL, ROW)),
        ("onnxruntime", lambda: quantize.onnx_dynamic_int8(MODEL, ROW)),
        ("onnxruntime", lambda: quantize.onnx_static_int8(MODEL, ROW, [ROW])),
    ],
)
def test_a_package_that_is_missing_is_named_with_the_line_that_installs_it(
    monkeypatch, missing, call
):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == missing else find(name)
    )
    message = f"^this needs {missing}, which is not installed: pip install 'labkit\\[quantize\\]'$"
    with pytest.raises(lab.MissingPackageError, match=message):
        call()


CONVOLUTION = seeded(lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten()))


@pytest.fixture(scope="module")
def tried():
    def evaluate(model):
        # Something that depends on the answers, and is the same for all that are right.
        with torch.no_grad():
            return float(model(torch.ones(3, 1, 8, 8)).shape[0]) / 4

    return quantize.try_all(
        CONVOLUTION,
        (data(4, 1, 8, 8),),
        evaluate,
        techniques=["int8 dynamic ONNX", "int8 static ONNX", "float32 ONNX"],
        budget_s=1,
        resolution=0.3,
        trace=False,
    )


def test_a_technique_that_does_not_apply_is_a_row_with_the_reason(tried):
    failure = tried.failures["int8 dynamic ONNX"]
    assert failure.reason == (
        "does not apply: this changes layers of Linear, and the model has none"
    )
    assert tried.trials["int8 dynamic ONNX"].times_s == ()
    assert "does not apply: this changes layers of Linear" in str(tried)


def test_the_other_techniques_are_measured_against_the_model_as_it_is(tried):
    assert tried.names == ("float32", "int8 dynamic ONNX", "int8 static ONNX", "float32 ONNX")
    assert list(tried.failures) == ["int8 dynamic ONNX"]
    for name in ("int8 static ONNX", "float32 ONNX"):
        assert tried[name].rounds > 8
        assert tried[name].verdict in ("faster", "slower", "same", "inconclusive")


def test_accuracy_size_and_error_are_shown_beside_the_times(tried):
    metrics = {name: trial.metrics for name, trial in tried.trials.items()}
    assert metrics["int8 dynamic ONNX"] == {}
    measured = [name for name in tried.names if metrics[name]]
    assert len(measured) == 3
    for name in measured:
        assert set(metrics[name]) == {"accuracy", "size_bytes", "error"}
        assert metrics[name]["accuracy"] == 0.75
        assert metrics[name]["size_bytes"] > 4 * 9 * 4 / 4
    assert metrics["float32"]["error"] == 0
    assert metrics["float32"]["size_bytes"] == quantize.size_bytes(CONVOLUTION)
    assert metrics["float32 ONNX"]["error"] < 1e-5
    assert INT8[0] < metrics["int8 static ONNX"]["error"] < INT8[1]


def test_what_was_tried_has_a_frontier(tried):
    assert set(tried.frontier()) <= {"float32", "int8 static ONNX", "float32 ONNX"}
    assert tried.frontier()
    assert tried.pareto().axes


def test_an_unknown_technique_is_refused_before_the_model_is_called():
    message = "technique='int3 magic': give one of float32 compiled, float32 ONNX"
    with pytest.raises(ValueError, match=message):
        quantize.try_all(MODEL, ROW, techniques=["float32 ONNX", "int3 magic"])


def test_a_technique_that_compiles_does_not_apply_without_a_compiler(monkeypatch):
    without = dataclasses.replace(machine(), compiler=None)
    monkeypatch.setattr("labkit.quantize.machine", lambda: without)
    for name in ("float32 compiled", "bfloat16 compiled", "int8 static PT2E"):
        with pytest.raises(lab.DoesNotApplyError, match=r"needs a C\+\+ compiler"):
            # In this process, where the error is raised and the machine can be another one.
            quantize.try_all(CONVOLUTION, (data(4, 1, 8, 8),), techniques=[name], isolate=False)


def test_the_examples_may_be_rows_of_a_larger_tensor():
    model, x = MODELS["dense"]
    # The exporter would keep the tensor that a view belongs to.
    large = data(4096, 512)
    size = quantize.size_bytes(quantize.pt2e_static_int8(model, (large[:2],), [(x,)]))
    assert size < 0.4 * LARGE_BYTES


def test_without_an_evaluation_there_is_no_accuracy_and_of_nothing_no_error():
    silent = nn.Sequential(nn.Linear(4, 4)).eval()
    for parameter in silent.parameters():
        nn.init.zeros_(parameter)
    found = quantize.try_all(
        silent,
        (torch.ones(2, 4),),
        techniques=["float32 ONNX"],
        budget_s=0.2,
        resolution=0.5,
        trace=False,
        isolate=False,
    )
    assert [set(t.metrics) for t in found.trials.values()] == [{"size_bytes", "error"}] * 2
    assert math.isnan(found.trials["float32 ONNX"].metrics["error"])
    assert found["float32 ONNX"].rounds > 0


@pytest.mark.parametrize("calibration", [[], torch.ones(3, 16), [torch.ones(3, 16)]], ids=str)
def test_calibration_data_of_another_form_is_refused_with_an_example(calibration):
    with pytest.raises(ValueError, match="give a list of input tuples, such as"):
        quantize.try_all(MODEL, ROW, calibration=calibration)


@pytest.mark.parametrize("inputs", [torch.ones(1, 16), (), ("x",)], ids=str)
def test_example_inputs_of_another_form_are_refused_with_an_example(inputs):
    with pytest.raises(ValueError, match=r"give a tuple of tensors, .* such as \(x,\)"):
        quantize.try_all(MODEL, inputs)


def test_excluding_a_module_leaves_the_layers_inside_it_in_float32():
    def nested():
        return nn.Sequential(nn.Sequential(nn.Linear(256, 256)), nn.Linear(256, 256))

    found = quantize.onnx_int4_weights(seeded(nested), (data(2, 256),), exclude=["0"])
    assert quantize.size_bytes(found) > 4 * 256 * 256
