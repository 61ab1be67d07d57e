"""Quantization by ONNX Runtime: model to model. `labkit.quantize` says what they have in common.

Each function takes a torch model or what `onnx_float32` made of it, which saves exporting it again.
What exports (`labkit.onnx_export`) and quantizes (`labkit.onnx_programs`) runs in a process of its
own, for it imports much.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from labkit import onnx_programs
from labkit.layers import (
    LINEAR,
    QUANTIZED,
    check_calibration,
    check_choice,
    check_layers,
    check_modules,
    kinds_of,
    of_one_size,
)
from labkit.module_names import is_within
from labkit.onnx_export import exported
from labkit.onnx_programs import GROUP
from labkit.optional import check_there
from labkit.runtimes import OnnxModel

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from torch import nn

    from labkit.layers import Inputs

CALIBRATIONS = ("minmax", "percentile", "entropy")
FORMATS = ("int8", "int4", "float32")


def onnx_float32(model: nn.Module, example_inputs: Inputs) -> nn.Module:
    """The same model in float32, run by ONNX Runtime: what a user has without quantizing."""
    if isinstance(model, OnnxModel):
        raise TypeError("this is an ONNX model already: give the torch model that it was made of")
    return OnnxModel(exported(model, example_inputs), kinds_of(model))


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
    return OnnxModel(onnx_programs.dynamic_int8(_float32(model, example_inputs), exclude))


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
    return OnnxModel(onnx_programs.int4_weights(_float32(model, example_inputs), chosen, group))


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
    # Its histograms are made of arrays of one shape.
    batches = [tuple(x.numpy() for x in batch) for batch in of_one_size(calibration)]
    float32 = _float32(model, example_inputs)
    return OnnxModel(onnx_programs.static_int8(float32, batches, formats, method, percentile))


def _float32(model: nn.Module, example_inputs: Inputs) -> bytes:
    return model.program if isinstance(model, OnnxModel) else exported(model, example_inputs)
