"""A torch model as a program for ONNX Runtime: traced where that is sure, else by torch.export.

torch has two exporters. The one of today takes the Python code of a model apart (torch.export); for
that it imports 150 MB, and takes seconds. The older one records what one call does, with a quarter
of that memory and in a tenth of the time, and knows nothing of a decision that Python took on the
way (https://docs.pytorch.org/docs/stable/onnx_torchscript.html). Here the record counts only if
nothing speaks against it: no doubt of torch, nothing worked out from a shape, each node's module
known, and the answers to other rows those of the model. Then both give the same operators.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.jit._trace import TracerWarning
from torch.utils._pytree import tree_leaves

from labkit.apart import apart
from labkit.layers import batch_is_free, widened
from labkit.module_names import SCOPES, owner_of
from labkit.optional import is_there, need, quiet
from labkit.usage import return_free_memory

if TYPE_CHECKING:
    from torch import nn

    from labkit.layers import Inputs

# What the exporter of today writes, too.
_OPSET = 20
# An operator among these means that the record may not be all: sizes and places worked out while
# the model runs, and decisions.
_DOUBTFUL = {"Shape", "Size", "NonZero", "ScatterND", "ScatterElements", "If", "Loop", "Scan"}


@apart
def exported(model: nn.Module, example_inputs: Inputs) -> bytes:
    """The program of a model; it leaves none of the libraries behind that it needs.

    Args:
        model: in evaluation mode.
        example_inputs: as the model is called with; the number of rows is left open.

    Raises:
        MissingPackageError: what the exporter needs is not installed.
        WorkerError: its process was ended, as by a system out of memory.
    """
    need("onnx")
    inputs = widened(example_inputs)
    program = _traced(model, inputs) or _by_torch_export(model, inputs)
    # In a worker, what follows needs the memory.
    return_free_memory()
    return program


def _traced(model: nn.Module, inputs: Inputs) -> bytes | None:
    """The program as one call went; None if that is not sure to be all."""
    if not is_there("onnxruntime"):
        return None
    names = [f"input_{i}" for i in range(len(inputs))]
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            quiet(),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("error", TracerWarning)
            # On unless somebody says so (2.13); it prints graphs that it cannot write.
            torch._C._jit_set_onnx_log_enabled(False)  # noqa: FBT003, SLF001
            file = Path(folder, "model.onnx")
            torch.onnx.export(
                model,
                inputs,
                file,
                dynamo=False,
                opset_version=_OPSET,
                input_names=names,
                dynamic_axes={name: {0: "batch"} for name in names},
            )
            program = need("onnx").load(file)
        if not _with_scopes(program, [name for name, _ in model.named_modules()]):
            return None
        found: bytes = program.SerializeToString()
        del program
        return_free_memory(collect=False)
        return found if _answers_as(found, model, inputs) else None
    except Exception:
        # Whatever it does not take: the other exporter says it better.
        return None


def _with_scopes(program: Any, modules: list[str]) -> bool:
    """Note the module of each node as torch.export does; whether all are known and plain."""
    for node in program.graph.node:
        owner = owner_of(node.name, modules)
        if owner is None or node.op_type in _DOUBTFUL:
            return False
        node.metadata_props.add(key=SCOPES, value=repr([owner, node.name]))
    return True


@torch.no_grad()
def _answers_as(program: bytes, model: nn.Module, inputs: Inputs) -> bool:
    """Whether it says what the model says, to another number of rows than it was traced with."""
    rows = 2 if len(inputs[0]) == 3 else 3
    other = tuple(torch.cat([x, x.flip(0)])[:rows] for x in inputs)
    one, two = _run(program, other), tree_leaves(model(*other))
    return len(one) == len(two) and all(
        a.shape == b.shape and torch.allclose(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max()))
        for a, b in zip(one, two, strict=True)
    )


def _run(program: bytes, inputs: Inputs) -> list[torch.Tensor]:
    """Once, as it is, and in silence."""
    ort = need("onnxruntime")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_prepacking", "1")
    session = ort.InferenceSession(program, options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    feeds = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
    return [torch.from_numpy(array) for array in session.run(None, feeds)]


def _by_torch_export(model: nn.Module, inputs: Inputs) -> bytes:
    need("onnxscript")
    with quiet():
        made = torch.onnx.export(
            model, inputs, dynamo=True, dynamic_shapes=batch_is_free(inputs), verbose=False
        )
    program = made.model_proto  # type: ignore[union-attr]
    # Shapes in between: the quantizer transposes weights and would trip over the old ones.
    program.graph.ClearField("value_info")
    found: bytes = program.SerializeToString()
    return found
