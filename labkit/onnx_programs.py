"""The quantizers of ONNX Runtime: from a program to a program, each in a process of its own.

What they import (50 MB) goes with that process; none of it is torch.
"""

from __future__ import annotations

import ast
import functools
import io
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.apart import apart
from labkit.module_names import SCOPES, is_within
from labkit.optional import need, quiet
from labkit.usage import return_free_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    import numpy as np

_apart = functools.partial(apart, warm=False)
# As many weights share one scale in the 4-bit formats.
GROUP = 32


@_apart
def dynamic_int8(float32: bytes, exclude: Collection[str]) -> bytes:
    """Linear layers with weights in int8, but for those of modules in ``exclude``."""
    quantization = need("onnxruntime.quantization")
    excluded = _nodes_of(need("onnx").load_from_string(float32), exclude)
    return _by_files(
        float32,
        lambda source, target: quantization.quantize_dynamic(
            source,
            target,
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
            op_types_to_quantize=["MatMul", "Gemm"],
            nodes_to_exclude=excluded,
        ),
    )


@_apart
def int4_weights(float32: bytes, modules: Collection[str], group: int) -> bytes:
    """The linear layers in ``modules`` with weights in 4 bits."""
    program = need("onnx").load_from_string(float32)
    packed: bytes = _with_int4(program, set(_nodes_of(program, modules)), group).SerializeToString()
    return packed


@_apart
def static_int8(
    float32: bytes,
    calibration: Sequence[tuple[np.ndarray, ...]],
    formats: Mapping[str, str],
    method: str,
    percentile: float,
) -> bytes:
    """All layers in int8 but for those of modules with another format.

    Args:
        float32: the program.
        calibration: inputs as it will meet them, in batches of one size.
        formats: "float32" or "int4" by name of module.
        method: "minmax", "percentile" or "entropy".
        percentile: for the method of that name.
    """
    quantization = need("onnxruntime.quantization")
    program = need("onnx").load_from_string(float32)
    excluded = _nodes_of(program, [n for n, g in formats.items() if g == "float32"])
    packed = set(_nodes_of(program, [n for n, g in formats.items() if g == "int4"]))
    names = [given.name for given in program.graph.input]
    if packed:
        float32 = _with_int4(program, packed, GROUP).SerializeToString()
    del program

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.batches = iter(calibration)

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else dict(zip(names, batch, strict=True))

    methods = quantization.CalibrationMethod
    return _by_files(
        float32,
        lambda source, target: quantization.quantize_static(
            source,
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
        ),
    )


def _nodes_of(program: Any, modules: Collection[str]) -> list[str]:
    """Names of the nodes that come from these modules, or read their parameters.

    The second, because a node that folds a normalization into its convolution is said to come
    from the normalization.
    """
    found = []
    for node in program.graph.node:
        about = {p.key: p.value for p in node.metadata_props}
        # The last scope is the operator's own name.
        scopes = ast.literal_eval(about.get(SCOPES, "[]"))[:-1]
        owners = [*scopes, *(name.rpartition(".")[0] for name in node.input)]
        if any(is_within(owner, modules) for owner in owners):
            # As a quantizer calls the product that it splits off a layer's node.
            found += [node.name, f"{node.name}_MatMul"]
    return found


def _by_files(program: bytes, quantize: Callable[[str, str], None]) -> bytes:
    """Run a quantizer from a file to a file: given a program in memory, it makes two copies."""
    # Some of its methods print how far they are.
    with tempfile.TemporaryDirectory() as folder, quiet(), redirect_stdout(io.StringIO()):
        source, target = Path(folder, "float32.onnx"), Path(folder, "quantized.onnx")
        source.write_bytes(program)
        quantize(str(source), str(target))
        made = target.read_bytes()
    return_free_memory()
    return made


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
