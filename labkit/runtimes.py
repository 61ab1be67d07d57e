"""Ways to run one model: as it is exported, compiled, or by ONNX Runtime.

Each is a `torch.nn.Module` that is called like the model it was made from, and can be sent to
another process: it keeps what can be sent (weights, a serialized program) and starts the rest (a
compiler, a session) at its first call there.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from labkit.errors import DoesNotApplyError
from labkit.machines import machine
from labkit.optional import need, quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


_INDUCTOR: dict[str, Any] = {
    "freezing": True,
    # One process compiles: helpers would take memory from what is measured.
    "compile_threads": 1,
    # Checks of inductor's own code at every operator of every call.
    "size_asserts": False,
}


class _Started(nn.Module):
    """Starts at its first call; what was started stays in this process."""

    def __init__(self) -> None:
        super().__init__()
        self.__dict__["_run"] = None

    def _start(self) -> Callable[..., Any]:
        raise NotImplementedError

    def forward(self, *inputs: torch.Tensor) -> Any:
        """What the model says to these inputs; no gradients."""
        run = self.__dict__["_run"]
        if run is None:
            run = self.__dict__["_run"] = self._start()
        with torch.no_grad():
            return run(*inputs)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_run": None}


class Compiled(_Started):
    """A model that `torch.compile` makes code for, with its weights as constants.

    Freezing lets inductor pack the weights for the processor's matrix library once, and fuse
    quantized operators (https://docs.pytorch.org/ao/stable/pt2e_quantization). Every new shape of
    the input is compiled anew, in some seconds.

    Args:
        model: in evaluation mode.

    >>> model = Compiled(nn.Linear(2, 2).eval())
    >>> size_bytes(model) == size_bytes(model.model)
    True
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def _start(self) -> Callable[..., Any]:
        model = self.model
        options: dict[str, Any] | None = None
        if isinstance(model, Exported):
            # Its code is its own, and its weights are constants: to look at every call whether
            # they changed takes longer than a small model. Modules of one class share their
            # code, and torch tells them apart by just those guards.
            model = model.module
            options = {"guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe}
        # By default the ninth model of a class, or the ninth shape, runs as it is, silently. The
        # types that torch states for `compile` leave these two out.
        settings: dict[str, Any] = {"isolate_recompiles": True, "recompile_limit": 1000}
        return _FirstCalls(torch.compile(model, dynamic=False, options=options, **settings))


class _FirstCalls:
    """Calls compiled code; the first call with each shape compiles it.

    Freezing is read while compiling; as an option of `torch.compile` it comes too late (2.13).
    """

    def __init__(self, compiled: Callable[..., Any]) -> None:
        # Imported when somebody compiles: a second or two, and 80 MB that stay.
        from torch._dynamo import convert_frame
        from torch._inductor import config

        self.compiled = compiled
        self.seen, self.config = convert_frame.input_codes, config
        self.shapes: set[tuple[torch.Size, ...]] = set()
        # Some exporters make torch forget all that it has compiled. It forgets this, too: a
        # code object of our own among those that it has seen.
        self.mark = compile("None", "labkit", "eval")

    def __call__(self, *inputs: torch.Tensor) -> Any:
        shapes = tuple(x.shape for x in inputs)
        if shapes in self.shapes and self.mark in self.seen:
            return self.compiled(*inputs)
        with quiet(), self.config.patch(_INDUCTOR):
            result = self.compiled(*inputs)
        if self.mark not in self.seen:
            self.shapes.clear()
            self.seen.add(self.mark)
        self.shapes.add(shapes)
        return result


class _Program(_Started):
    """A serialized program, as it would be written to a file."""

    def __init__(self, program: bytes) -> None:
        super().__init__()
        self.program = program


class Exported(_Program):
    """A program of `torch.export`, as it would be written to a file.

    Args:
        program: what `torch.export.save` wrote.
    """

    @property
    def module(self) -> nn.Module:
        """The program, loaded anew."""
        # Quantized operators are registered by this import.
        need("torchao.quantization.pt2e")
        with quiet():
            return torch.export.load(io.BytesIO(self.program)).module()

    def _start(self) -> Callable[..., Any]:
        return self.module


class Packaged(_Program):
    """A program that was compiled ahead of time, for inputs of one shape; it checks no other.

    No Python runs between its operators, and nothing is compiled where it is loaded.

    Args:
        program: what `torch._inductor.aoti_compile_and_package` wrote.
    """

    def _start(self) -> Callable[..., Any]:
        from torch._inductor import aoti_load_package

        # The loader reads files only; once it has, they are not needed any more.
        with tempfile.TemporaryDirectory() as folder, quiet():
            path = Path(folder, "model.pt2")
            path.write_bytes(self.program)
            return aoti_load_package(str(path))


class OnnxModel(_Program):
    """A model that ONNX Runtime runs on the processor.

    It gets as many threads as torch has in this process. They stop spinning when a call returns:
    waiting threads would take the cores from whatever runs next
    (https://onnxruntime.ai/docs/performance/tune-performance/threading.html).

    Args:
        program: a serialized ONNX model.
        kinds: the modules that it was made of, by name; empty if they are not known, or are not
            those of the program any more.
    """

    def __init__(
        self, program: bytes, kinds: Mapping[str, type[nn.Module]] = MappingProxyType({})
    ) -> None:
        super().__init__(program)
        self.kinds = dict(kinds)

    def _start(self) -> Callable[..., Any]:
        ort = need("onnxruntime")
        options = ort.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors only
        options.add_session_config_entry("session.force_spinning_stop", "1")
        session = ort.InferenceSession(self.program, options, providers=["CPUExecutionProvider"])
        names = [given.name for given in session.get_inputs()]

        def run(*inputs: torch.Tensor) -> Any:
            feeds = {name: x.detach().numpy() for name, x in zip(names, inputs, strict=True)}
            results = [torch.from_numpy(array) for array in session.run(None, feeds)]
            return results[0] if len(results) == 1 else tuple(results)

        return run


class Cast(nn.Module):
    """A model in another format, called with float32 and answering in float32.

    Args:
        model: whose parameters have ``dtype``.
        dtype: what floating-point inputs are converted to.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype = model, dtype

    def forward(self, *inputs: torch.Tensor) -> Any:
        """What the model says, in float32."""
        cast = (x.to(self.dtype) if x.is_floating_point() else x for x in inputs)
        result = self.model(*cast)
        # Walking a tree leaves reference cycles behind: not for one tensor.
        return result.float() if isinstance(result, torch.Tensor) else tree_map(_to_float32, result)


def _to_float32(value: Any) -> Any:
    floating = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.float() if floating else value


def ahead_of_time(model: nn.Module, example_inputs: tuple[torch.Tensor, ...]) -> Packaged:
    """Compile a model once and for all, for inputs of this shape.

    Takes some ten seconds and a C++ compiler; every later start takes milliseconds.

    Args:
        model: in evaluation mode; a `Compiled` one is compiled with the same settings.
        example_inputs: as the model will be called with.

    Raises:
        DoesNotApplyError: there is no C++ compiler.

    Source: https://docs.pytorch.org/docs/stable/torch.compiler_aot_inductor.html
    """
    missing = machine().missing("compiler")
    if missing:
        raise DoesNotApplyError(missing)
    from torch._inductor import aoti_compile_and_package
    from torch._inductor import config as inductor_config

    inner = model.model if isinstance(model, Compiled) else model
    if isinstance(inner, Exported):
        inner = inner.module
    inputs = tuple(x.clone() for x in example_inputs)
    with (
        tempfile.TemporaryDirectory() as folder,
        torch.no_grad(),
        quiet(),
        inductor_config.patch(_INDUCTOR),
    ):
        path = aoti_compile_and_package(
            torch.export.export(inner, inputs), package_path=str(Path(folder, "model.pt2"))
        )
        return Packaged(Path(path).read_bytes())


def size_bytes(model: nn.Module) -> int:
    """The size of a model on disk: its program, or its weights as torch saves them.

    >>> size_bytes(nn.Linear(1000, 1000)) // 1000
    4005
    """
    if isinstance(model, _Program):
        return len(model.program)
    if isinstance(model, Compiled | Cast):
        return size_bytes(model.model)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    return buffer.tell()
