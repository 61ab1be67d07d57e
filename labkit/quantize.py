"""Quantization: model to model, each technique a thin function over a library of the field.

Every function takes a model in evaluation mode, leaves it as it is, and returns a module that is
called in the same way with float32 inputs, can be sent to another process, and starts (loads,
compiles) at its first call. Functions that export the model take ``example_inputs``, a tuple of
tensors as the model is called with, the batch in the first dimension.

What the words mean: *dynamic* quantizes activations by the range of each batch, as it comes;
*static* by ranges seen before, on calibration data; *weight-only* leaves activations alone.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from labkit import inference
from labkit.errors import DoesNotApplyError
from labkit.layers import LINEAR, check_calibration, check_choice, check_inputs, check_layers
from labkit.machines import machine
from labkit.onnx_models import (
    onnx_by_layer,
    onnx_dynamic_int8,
    onnx_float32,
    onnx_int4_weights,
    onnx_static_int8,
)
from labkit.onnx_programs import GROUP
from labkit.optional import need, quiet
from labkit.pt2e import pt2e_dynamic_int8, pt2e_qat_int8, pt2e_static_int8
from labkit.runtimes import Cast, Compiled, ahead_of_time, size_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from labkit.layers import Inputs
    from labkit.results import Comparison

__all__ = [
    "ahead_of_time",
    "ao_dynamic_int8",
    "ao_int4_weights",
    "ao_int8_weights",
    "bfloat16",
    "compiled",
    "onnx_by_layer",
    "onnx_dynamic_int8",
    "onnx_float32",
    "onnx_int4_weights",
    "onnx_static_int8",
    "pt2e_dynamic_int8",
    "pt2e_qat_int8",
    "pt2e_static_int8",
    "size_bytes",
    "try_all",
]


def compiled(model: nn.Module) -> nn.Module:
    """The same model in float32, compiled: what a user has without quantizing."""
    return Compiled(model)


def bfloat16(model: nn.Module) -> nn.Module:
    """Weights and activations in bfloat16: half the bytes, 8 bits of precision."""
    return Cast(copy.deepcopy(model).to(torch.bfloat16), torch.bfloat16)


def ao_int8_weights(model: nn.Module) -> nn.Module:
    """Weights of linear layers in int8, made float32 again at every call; torchao.

    Source: https://docs.pytorch.org/ao/stable/
    """
    return _ao(model, need("torchao.quantization").Int8WeightOnlyConfig())


def ao_int4_weights(model: nn.Module, *, group: int = GROUP) -> nn.Module:
    """Weights of linear layers in 4 bits, a scale for each group of them; torchao.

    On a processor torchao holds the 4 bits in a byte of their own: the size is that of int8. A
    layer whose inputs do not fill the groups stays as it is.

    Args:
        model: see above.
        group: weights that share a scale.

    Raises:
        DoesNotApplyError: there is no linear layer whose inputs fill the groups.

    Source: https://docs.pytorch.org/ao/stable/
    """
    ao = need("torchao.quantization")
    granularity = need("torchao.quantization.granularity").PerGroup(group)
    # torch makes its small integer types when it is imported: a type checker does not see them.
    four_bits = getattr(torch, "int4")  # noqa: B009
    config = ao.IntxWeightOnlyConfig(weight_dtype=four_bits, granularity=granularity)
    check_layers(model, LINEAR, ())
    inputs = [part.in_features for part in model.modules() if isinstance(part, nn.Linear)]
    if all(n % group for n in inputs):
        raise DoesNotApplyError(
            f"group={group} divides the inputs of no linear layer ({', '.join(map(str, inputs))})"
        )
    return _ao(model, config, lambda part: part.in_features % group == 0)


def ao_dynamic_int8(model: nn.Module) -> nn.Module:
    """Weights of linear layers in int8, activations quantized as they come; torchao.

    Source: https://docs.pytorch.org/ao/stable/
    """
    return _ao(model, need("torchao.quantization").Int8DynamicActivationInt8WeightConfig())


# What `try_all` tries: by name, a function of (model, example inputs, calibration).
TECHNIQUES: dict[str, Callable[..., nn.Module]] = {
    "float32 compiled": lambda model, *_: compiled(model),
    "float32 ONNX": lambda model, inputs, _: onnx_float32(model, inputs),
    "bfloat16 compiled": lambda model, *_: compiled(bfloat16(model)),
    "int8 static ONNX": onnx_static_int8,
    "int8 static PT2E": pt2e_static_int8,
    "int8 dynamic ONNX": lambda model, inputs, _: onnx_dynamic_int8(model, inputs),
    "int8 dynamic PT2E": lambda model, inputs, _: pt2e_dynamic_int8(model, inputs),
    "int8 weights torchao": lambda model, *_: compiled(ao_int8_weights(model)),
    "int4 weights ONNX": lambda model, inputs, _: onnx_int4_weights(model, inputs),
}
# What they need of the machine.
_NEEDS = {
    "float32 compiled": "compiler",
    "bfloat16 compiled": "compiler",
    "int8 static PT2E": "compiler",
    "int8 dynamic PT2E": "compiler",
    "int8 weights torchao": "compiler",
}


def try_all(
    model: nn.Module,
    example_inputs: Inputs,
    evaluate: Callable[[nn.Module], float] | None = None,
    *,
    calibration: Sequence[Inputs] | None = None,
    techniques: Collection[str] | None = None,
    **settings: Any,
) -> Comparison:
    """Quantize a model in every way that applies to it here, and compare.

    Everything happens in the worker: a technique that raises, hangs or is killed becomes a row
    with its reason, and the others go on.

    Args:
        model: in evaluation mode; the baseline, as it is.
        example_inputs: a tuple of tensors as the model is called with, the batch in the first
            dimension: what is timed.
        evaluate: from a model to its accuracy; shown beside the time, and drawn by
            ``comparison.pareto()``.
        calibration: a list of input tuples for the static techniques; the example inputs
            themselves if None.
        techniques: names in `TECHNIQUES`; None: all.
        **settings: of `labkit.compare` (``budget_s``, ``resolution``, ``threads``, ...).

    Returns:
        A `labkit.Comparison`. Metrics: ``size_bytes`` on disk, ``error`` (the distance from the
        float32 outputs over their norm, on the example inputs) and ``accuracy``.

    Raises:
        ValueError: an unknown technique, or inputs or calibration data of another form.

    >>> model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).eval()
    >>> some = ["int8 dynamic ONNX", "float32 ONNX"]
    >>> found = try_all(model, (torch.rand(1, 64),), techniques=some, budget_s=1, resolution=0.2)
    >>> found.names
    ('float32', 'int8 dynamic ONNX', 'float32 ONNX')
    >>> sizes = [trial.metrics["size_bytes"] for trial in found.trials.values()]
    >>> sizes[1] < 0.6 * sizes[0]
    True
    """
    from labkit.api import compare

    names = list(TECHNIQUES) if techniques is None else list(techniques)
    for name in names:
        check_choice(name, tuple(TECHNIQUES), "technique")
    check_inputs(example_inputs)
    inputs = tuple(x.clone() for x in example_inputs)
    batches = [inputs] if calibration is None else calibration
    check_calibration(batches)
    with torch.no_grad():
        expected = model(*inputs)
    makers: dict[str, Callable[[], nn.Module]] = {"float32": lambda: model}
    makers |= {name: partial(_make, name, model, inputs, batches) for name in names}
    about = partial(_about, inputs=inputs, expected=expected, evaluate=evaluate)
    return compare(
        inference.variants(makers, *inputs, metrics=about),
        **{"resolution": 0.05, "budget_s": 10.0, **settings},
    )


def _make(name: str, model: nn.Module, inputs: Inputs, calibration: Sequence[Inputs]) -> nn.Module:
    missing = machine().missing(_NEEDS[name]) if name in _NEEDS else None
    if missing:
        raise DoesNotApplyError(missing)
    return TECHNIQUES[name](model, inputs, calibration)


def _about(
    model: nn.Module,
    *,
    inputs: Inputs,
    expected: Any,
    evaluate: Callable[[nn.Module], float] | None,
) -> dict[str, float]:
    numbers: dict[str, float] = {"size_bytes": size_bytes(model)}
    with torch.no_grad():
        found = model(*inputs)
    if isinstance(expected, torch.Tensor) and expected.is_floating_point():
        numbers["error"] = float((found - expected).norm() / expected.norm())
    if evaluate is not None:
        numbers["accuracy"] = float(evaluate(model))
    return numbers


def _ao(
    model: nn.Module, config: Any, fits: Callable[[nn.Linear], bool] = lambda _: True
) -> nn.Module:
    check_layers(model, LINEAR, ())
    changed = copy.deepcopy(model)

    def chosen(part: nn.Module, _: str) -> bool:
        return isinstance(part, nn.Linear) and fits(part)

    with quiet():
        need("torchao.quantization").quantize_(changed, config, chosen)
    return changed
