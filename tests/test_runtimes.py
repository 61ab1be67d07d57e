"""One model run in several ways: the same answers, here and in another process."""

import contextlib
import dataclasses
import io
import time

import cloudpickle
import psutil
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import labkit as lab  # noqa: E402
from labkit import quantize, runtimes  # noqa: E402
from labkit.machines import machine  # noqa: E402
from labkit.optional import EXTRAS, is_there, need  # noqa: E402
from labkit.timing import is_busy  # noqa: E402

NEEDED = [package for package, extra in EXTRAS.items() if extra == "quantize"]
if missing := [package for package in NEEDED if not is_there(package)]:
    pytest.skip(f"needs {', '.join(missing)}", allow_module_level=True)

# Imported by the workers' server, once for all of them.
for module in ("pandas", "onnxruntime", "torchao", "torch._inductor.compile_fx"):
    need(module)

needs_compiler = pytest.mark.skipif(
    machine().compiler is None, reason="compiling needs a C++ compiler"
)
needs_two_cores = pytest.mark.skipif(
    machine().usable_cores < 2, reason="a second thread needs a second core"
)


@contextlib.contextmanager
def threads(number):
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    quick = {
        # What the processor says of its vector units is true; trying each takes ten seconds.
        "cpp.vec_isa_ok": True,
        # Nobody times the one program that is compiled ahead of time: ten more.
        "aot_inductor.precompile_headers": False,
        "aot_inductor.compile_wrapper_opt_level": "O0",
    }
    with threads(1), torch._inductor.config.patch(quick):
        yield


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(11)
        return make().eval()


MODEL = seeded(lambda: nn.Sequential(nn.Linear(48, 24), nn.ReLU(), nn.Linear(24, 6)))
SMALL = seeded(lambda: nn.Linear(12, 5))
X = torch.randn(8, 48, generator=torch.Generator().manual_seed(3))
ROW = (X[:1],)


def exported(model, x):
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return runtimes.Exported(buffer.getvalue())


MAKERS = {
    "compiled": lambda: runtimes.Compiled(MODEL),
    "exported": lambda: exported(MODEL, X),
    "compiled after export": lambda: runtimes.Compiled(exported(MODEL, X)),
    "onnx": lambda: quantize.onnx_float32(MODEL, ROW),
    "cast": lambda: runtimes.Cast(seeded(lambda: nn.Linear(48, 6)).bfloat16(), torch.bfloat16),
    "ahead of time": lambda: quantize.ahead_of_time(SMALL, (X[:, :12],)),
}
INPUTS = {"ahead of time": X[:, :12].clone()}
EXPECTED = {"ahead of time": SMALL, "cast": seeded(lambda: nn.Linear(48, 6))}
NEEDS = ("compiled", "ahead of time")
RUNTIMES = [pytest.param(n, marks=[needs_compiler] * n.startswith(NEEDS)) for n in MAKERS]


@pytest.fixture(scope="module")
def made():
    """Each runtime with its answers, made and called once."""
    cache = {}

    def make(name):
        if name not in cache:
            model = MAKERS[name]()
            cache[name] = model, model(INPUTS.get(name, X))
        return cache[name]

    return make


@pytest.mark.parametrize("name", RUNTIMES)
def test_the_answers_are_those_of_the_model(made, name):
    _, answers = made(name)
    with torch.no_grad():
        expected = EXPECTED.get(name, MODEL)(INPUTS.get(name, X))
    assert answers.dtype == torch.float32
    rounding = {"rtol": 0.05, "atol": 0.05} if name == "cast" else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(answers, expected, check_stride=False, **rounding, msg=str)


@pytest.mark.parametrize("name", RUNTIMES)
def test_the_answers_are_the_same_after_pickling(made, name):
    model, answers = made(name)
    assert torch.equal(cloudpickle.loads(cloudpickle.dumps(model))(INPUTS.get(name, X)), answers)


@pytest.mark.parametrize("name", RUNTIMES)
def test_what_was_started_is_not_pickled(made, name):
    # It could not be: sessions and compiled code belong to their process.
    model, _ = made(name)
    copied = cloudpickle.loads(cloudpickle.dumps(model))
    parts = [part for part in copied.modules() if "_run" in part.__dict__]
    assert [part.__dict__["_run"] for part in parts] == [None] * len(parts)
    # And the one that was pickled runs on.
    assert torch.equal(model(INPUTS.get(name, X)), made(name)[1])


@pytest.mark.parametrize("name", [r for r in RUNTIMES if r.values[0] != "cast"])
def test_answers_carry_no_gradients(made, name):
    assert not made(name)[1].requires_grad


def test_nothing_is_started_before_the_first_call():
    # What is no program at all is noticed by whoever starts it.
    model = runtimes.OnnxModel(b"no program")
    with pytest.raises(Exception, match=r"[Pp]rotobuf"):
        model(X)


@needs_compiler
def test_a_compiled_model_takes_other_shapes_too(made):
    model, _ = made("compiled")
    with torch.no_grad():
        torch.testing.assert_close(model(X[:3]), MODEL(X[:3]))


@needs_compiler
@pytest.mark.parametrize(
    ("models", "rows"),
    [
        pytest.param([nn.Linear(9, 4).eval() for _ in range(4)], [3] * 4, id="models"),
        pytest.param([nn.Linear(9, 4).eval()] * 4, [3, 4, 5, 6], id="shapes"),
    ],
)
def test_every_model_and_every_shape_is_compiled_however_many_came_before(models, rows):
    counted = torch._dynamo.utils.counters["stats"]
    before = counted["unique_graphs"]
    compiled = {model: runtimes.Compiled(model) for model in models}
    with torch._dynamo.config.patch(recompile_limit=2):
        for model, number in zip(models, rows, strict=True):
            compiled[model](torch.rand(number, 9))
    assert counted["unique_graphs"] - before == 4


def test_a_cast_model_leaves_whole_numbers_alone():
    model = runtimes.Cast(nn.Embedding(10, 4).bfloat16(), torch.bfloat16)
    found = model(torch.tensor([1, 9]))
    assert found.dtype == torch.float32
    assert found.shape == (2, 4)


def test_the_wrong_number_of_inputs_is_refused(made):
    model, _ = made("onnx")
    with pytest.raises(ValueError, match=r"shorter|longer"):
        model(X, X)
    with pytest.raises(ValueError, match=r"shorter|longer"):
        model()


def test_an_onnx_model_answers_with_as_many_tensors_as_the_model():
    class Two(nn.Module):
        def forward(self, x):
            return x + 1, x * 2

    one_more, double = quantize.onnx_float32(Two().eval(), ROW)(X)
    torch.testing.assert_close(one_more, X + 1)
    torch.testing.assert_close(double, X * 2)


def test_an_onnx_model_gets_as_many_threads_as_torch_has(made):
    program = made("onnx")[0].program
    for number in (1, 2, 3):
        with threads(number):
            before = psutil.Process().num_threads()
            model = runtimes.OnnxModel(program)
            assert psutil.Process().num_threads() == before
            model(X)
            # The calling thread is one of them.
            assert psutil.Process().num_threads() - before == number - 1
            # A session ends with the model that started it, and its threads with it.
            del model


def test_an_onnx_model_in_another_process_has_the_threads_of_that_process(made):
    model = made("onnx")[0]

    def count(unstarted):
        before = psutil.Process().num_threads()
        unstarted(X)
        return {"threads": 1 + psutil.Process().num_threads() - before}

    variants = {
        name: lab.Variant(lambda m: m(X), setup=lambda: model, metrics=count)
        for name in ("one", "other")
    }
    for number in (1, 2):
        found = lab.compare(variants, threads=number, budget_s=0.2, resolution=0.5, trace=False)
        assert found.trials["one"].metrics == {"threads": number}


@needs_two_cores
def test_threads_of_an_onnx_model_do_not_spin_when_a_call_has_ended():
    # Large enough that both threads have work.
    large = seeded(lambda: nn.Linear(512, 512))
    x = torch.randn(256, 512)
    with threads(2):
        model = quantize.onnx_float32(large, (x,))
        model(x)
        # Whatever else this process still does has ended before it counts.
        deadline = time.monotonic() + 20
        while is_busy(0.02) and time.monotonic() < deadline:
            pass
        spinning = []
        for _ in range(20):
            model(x)
            spinning.append(is_busy(0.005))
    # The threads of a session that spins are seen nearly always.
    assert spinning.count(True) <= 5


def test_the_size_is_that_of_the_program_or_the_weights(made):
    weights_bytes = 4 * (48 * 24 + 24 + 24 * 6 + 6)
    for name in ("exported", "onnx"):
        model, _ = made(name)
        assert runtimes.size_bytes(model) == len(model.program) > weights_bytes
    assert runtimes.size_bytes(MODEL) > weights_bytes
    assert runtimes.size_bytes(runtimes.Compiled(MODEL)) == runtimes.size_bytes(MODEL)
    halved = runtimes.Cast(nn.Linear(1000, 1000).bfloat16(), torch.bfloat16)
    assert 2.0e6 < runtimes.size_bytes(halved) < 2.01e6
    assert runtimes.size_bytes(runtimes.Compiled(halved)) == runtimes.size_bytes(halved)


@needs_compiler
def test_a_model_compiled_ahead_of_time_starts_without_compiling(made):
    model, answers = made("ahead of time")
    copied = cloudpickle.loads(cloudpickle.dumps(model))
    # Were anything compiled, there would be a compiler to call.
    with torch._inductor.config.patch({"cpp.cxx": (None, "no-such-compiler")}):
        assert torch.equal(copied(INPUTS["ahead of time"]), answers)
    assert runtimes.size_bytes(model) == len(model.program)


@needs_compiler
def test_a_model_compiled_ahead_of_time_leaves_the_model_as_it_was(made):
    before = {name: value.clone() for name, value in SMALL.state_dict().items()}
    made("ahead of time")
    assert all(torch.equal(value, before[name]) for name, value in SMALL.state_dict().items())
    assert all(parameter.requires_grad for parameter in SMALL.parameters())


def test_without_a_compiler_nothing_can_be_compiled_ahead_of_time(monkeypatch):
    class Untouchable(nn.Module):
        def forward(self, x):
            raise RuntimeError("work was done before the machine was looked at")

    without = dataclasses.replace(machine(), compiler=None)
    monkeypatch.setattr(runtimes, "machine", lambda: without)
    with pytest.raises(lab.DoesNotApplyError, match=r"needs a C\+\+ compiler, and none is found"):
        quantize.ahead_of_time(Untouchable().eval(), ROW)


def test_a_cast_model_may_answer_a_tuple():
    class Pair(nn.Module):
        def forward(self, x):
            return x, 2 * x

    found = runtimes.Cast(Pair(), torch.bfloat16)(torch.ones(2))
    assert [answer.dtype for answer in found] == [torch.float32] * 2


def test_what_torch_forgets_is_compiled_again_with_the_same_settings():
    """Some exporters reset all that torch has compiled, in the middle of somebody's comparison."""
    from torch._inductor import config

    from labkit.runtimes import _FirstCalls

    seen = []
    model = _FirstCalls(lambda x: seen.append(config.freezing))
    small, large = torch.ones(1), torch.ones(2)
    for x in (small, small, large, large):
        model(x)
    assert seen == [True, False, True, False]
    torch._dynamo.reset()
    for x in (small, large, small, large):
        model(x)
    assert seen[4:] == [True, True, False, False]
