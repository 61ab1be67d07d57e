"""Quantization by ONNX Runtime: model to model. `labkit.quantize` says what they have in common.

Each function takes a torch model or what `onnx_float32` made of it, which saves exporting it again.
What exports and quantizes runs in a process of its own: it imports 150 MB of libraries.
"""

from __future__ import annotations

import ast
import io
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from labkit.apart import apart
from labkit.layers import (
    LINEAR,
    QUANTIZED,
    batch_is_free,
    check_calibration,
    check_choice,
    check_layers,
    check_modules,
    is_within,
    kinds_of,
    of_one_size,
    widened,
)
from labkit.optional import check_there, need, quiet
from labkit.runtimes import OnnxModel
from labkit.usage import return_free_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from torch import nn

    from labkit.layers import Inputs

CALIBRATIONS = ("minmax", "percentile", "entropy")
FORMATS = ("int8", "int4", "float32")
# As many weights share one scale in the 4-bit formats.
GROUP = 32


def onnx_float32(model: nn.Module, example_inputs: Inputs) -> nn.Module:
    """The same model in float32, run by ONNX Runtime: what a user has without quantizing."""
    if isinstance(model, OnnxModel):
        raise TypeError("this is an ONNX model already: give the torch model that it was made of")
    return OnnxModel(_exported(model, example_inputs), kinds_of(model))


def onnx_dynamic_int8(
    model: nn.Module, example_inputs: Inputs, *, exclude: Collection[str] = ()
) -> nn.Module:
    """Weights of linear layers in int8, activations quantized as they come; ONNX Runtime.

    Args:
        model: see above.
        example_inputs: see above.
        exclude: names of modules that stay float32.

    Source: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
    """
    check_layers(model, LINEAR, exclude)
    check_there("onnxruntime")
    return OnnxModel(_dynamic(_float32(model, example_inputs), exclude))


def onnx_static_int8(
    model: nn.Module,
    example_inputs: Inputs,
    calibration: Sequence[Inputs],
    *,
    method: str = "minmax",
    percentile: float = 99.999,
    exclude: Collection[str] = (),
) -> nn.Module:
    """Weights per channel and activations per tensor in int8; ONNX Runtime.

    Args:
        model: see above.
        example_inputs: see above.
        calibration: inputs as the model will meet them; some hundred rows are enough.
        method: how a range is taken from what was seen: "minmax" all of it, "percentile" the
            middle part, "entropy" the part that keeps most information.
        percentile: how much of what was seen the range holds, for that method.
        exclude: names of modules that stay float32.

    Raises:
        ValueError: an unknown method, or no calibration data.
        DoesNotApplyError: there is no layer to quantize.

    Source: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
    """
    formats = dict.fromkeys(exclude, "float32")
    return onnx_by_layer(
        model, example_inputs, calibration, formats, method=method, percentile=percentile
    )


def onnx_int4_weights(
    model: nn.Module, example_inputs: Inputs, *, group: int = GROUP, exclude: Collection[str] = ()
) -> nn.Module:
    """Weights of linear layers in 4 bits, a scale for each group of them; ONNX Runtime.

    Args:
        model: see above.
        example_inputs: see above.
        group: weights that share a scale: 16, 32, 64, 128 or 256.
        exclude: names of modules that stay float32.

    Raises:
        DoesNotApplyError: there is no linear layer.

    Source: the operator MatMulNBits,
    https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
    """
    check_layers(model, LINEAR, exclude)
    check_there("onnxruntime")
    kinds = kinds_of(model)
    chosen = [n for n, k in kinds.items() if issubclass(k, LINEAR) and not is_within(n, exclude)]
    return OnnxModel(_int4(_float32(model, example_inputs), chosen, group))


def onnx_by_layer(
    model: nn.Module,
    example_inputs: Inputs,
    calibration: Sequence[Inputs],
    formats: Mapping[str, str],
    *,
    method: str = "minmax",
    percentile: float = 99.999,
) -> nn.Module:
    """Static int8 for most layers, other formats for those named; ONNX Runtime.

    Args:
        model: see above.
        example_inputs: see above.
        calibration: inputs as the model will meet them; some hundred rows are enough.
        formats: "float32" or "int4" (4-bit weights; linear layers only) by name of module; all
            others get "int8".
        method: as in `onnx_static_int8`.
        percentile: as in `onnx_static_int8`.

    Raises:
        ValueError: an unknown format, module or method, or no calibration data.
        DoesNotApplyError: there is no layer to quantize.
    """
    for name, given in formats.items():
        check_choice(given, FORMATS, f"formats[{name!r}]")
    check_modules(model, formats)
    kinds = kinds_of(model)
    for name, given in formats.items():
        if given == "int4" and not issubclass(kinds[name], LINEAR):
            raise ValueError(
                f"formats[{name!r}]='int4': 4-bit weights are for linear layers, and this is a "
                f"{kinds[name].__name__}"
            )
    check_choice(method, CALIBRATIONS, "method")
    if not 50 < percentile < 100:
        raise ValueError(f"percentile={percentile}: give a number between 50 and 100")
    check_calibration(calibration)
    floats = [name for name, given in formats.items() if given == "float32"]
    check_layers(model, QUANTIZED, floats)
    check_there("onnxruntime")
    made = _static(_float32(model, example_inputs), calibration, formats, method, percentile)
    return OnnxModel(made)


def _float32(model: nn.Module, example_inputs: Inputs) -> bytes:
    return model.program if isinstance(model, OnnxModel) else _exported(model, example_inputs)


@apart
def _exported(model: nn.Module, example_inputs: Inputs) -> bytes:
    program: bytes = _to_onnx(model, example_inputs).SerializeToString()
    # In a worker, what follows needs the memory.
    return_free_memory()
    return program


@apart
def _dynamic(float32: bytes, exclude: Collection[str]) -> bytes:
    quantization = need("onnxruntime.quantization")
    program = need("onnx").load_from_string(float32)
    return _quantized_file(
        lambda target: quantization.quantize_dynamic(
            program,
            target,
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
            op_types_to_quantize=["MatMul", "Gemm"],
            nodes_to_exclude=_nodes_of(program, exclude),
        )
    )


@apart
def _int4(float32: bytes, chosen: Collection[str], group: int) -> bytes:
    program = need("onnx").load_from_string(float32)
    packed: bytes = _with_int4(program, set(_nodes_of(program, chosen)), group).SerializeToString()
    return packed


@apart
def _static(
    float32: bytes,
    calibration: Sequence[Inputs],
    formats: Mapping[str, str],
    method: str,
    percentile: float,
) -> bytes:
    quantization = need("onnxruntime.quantization")
    program = need("onnx").load_from_string(float32)
    excluded = _nodes_of(program, [n for n, g in formats.items() if g == "float32"])
    packed = set(_nodes_of(program, [n for n, g in formats.items() if g == "int4"]))
    if packed:
        program = _with_int4(program, packed, GROUP)
    names = [given.name for given in program.graph.input]

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            # Its histograms are made of arrays of one shape.
            self.batches = iter(of_one_size(calibration))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            if batch is None:
                return None
            return {name: x.numpy() for name, x in zip(names, batch, strict=True)}

    methods = quantization.CalibrationMethod
    return _quantized_file(
        lambda target: quantization.quantize_static(
            program,
            target,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            # Unsigned activations meet signed weights: so do the processor's instructions.
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method={
                "minmax": methods.MinMax,
                "percentile": methods.Percentile,
                "entropy": methods.Entropy,
            }[method],
            nodes_to_exclude=excluded,
            extra_options={"CalibPercentile": percentile} if method == "percentile" else {},
        )
    )


def _to_onnx(model: nn.Module, example_inputs: Inputs) -> Any:
    need("onnx")
    need("onnxscript")
    with quiet():
        exported = torch.onnx.export(
            model,
            widened(example_inputs),
            dynamo=True,
            dynamic_shapes=batch_is_free(example_inputs),
            verbose=False,
        )
    program = exported.model_proto  # type: ignore[union-attr]
    # Shapes in between: the quantizer transposes weights and would trip over the old ones.
    program.graph.ClearField("value_info")
    return program


def _nodes_of(program: Any, modules: Collection[str]) -> list[str]:
    """Names of the nodes that come from these modules, or read their parameters.

    The second, because a node that folds a normalization into its convolution is said to come
    from the normalization.
    """
    found = []
    for node in program.graph.node:
        about = {p.key: p.value for p in node.metadata_props}
        # The last scope is the operator's own name.
        scopes = ast.literal_eval(about.get("pkg.torch.onnx.name_scopes", "[]"))[:-1]
        owners = [*scopes, *(name.rpartition(".")[0] for name in node.input)]
        if any(is_within(owner, modules) for owner in owners):
            # As a quantizer calls the product that it splits off a layer's node.
            found += [node.name, f"{node.name}_MatMul"]
    return found


def _quantized_file(quantize: Callable[[str], None]) -> bytes:
    """Run a quantizer that can only write files."""
    # Some of its methods print how far they are.
    with tempfile.TemporaryDirectory() as folder, quiet(), redirect_stdout(io.StringIO()):
        target = Path(folder, "quantized.onnx")
        quantize(str(target))
        program = target.read_bytes()
    return_free_memory()
    return program


def _with_int4(program: Any, nodes: Collection[str], group: int) -> Any:
    """The program with 4-bit weights in these nodes."""
    nbits = need("onnxruntime.quantization.matmul_nbits_quantizer")
    split = need("onnxruntime.quantization.onnx_model").ONNXModel(program)
    with quiet():
        # The operator replaces a product without a bias.
        split.replace_gemm_with_matmul()
        others = [
            node.name
            for node in split.model.graph.node
            if node.op_type == "MatMul" and node.name not in nodes
        ]
        quantizer = nbits.MatMulNBitsQuantizer(
            split.model,
            bits=4,
            block_size=group,
            is_symmetric=True,
            accuracy_level=4,  # products in int8
            # What it is told to include, it takes beside all the others.
            nodes_to_exclude=others,
        )
        quantizer.process()
    return quantizer.model.model
