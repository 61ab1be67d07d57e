"""Quantization of an exported graph that torch compiles: model to model.

`labkit.quantize` says what the techniques have in common. PT2E is short for "PyTorch 2 export".
"""

from __future__ import annotations

import copy
import dataclasses
import io
from typing import TYPE_CHECKING, Any

import torch

from labkit.layers import (
    LINEAR,
    QUANTIZED,
    batch_is_free,
    check_calibration,
    check_choice,
    check_layers,
    widened,
)
from labkit.optional import need, quiet
from labkit.runtimes import Compiled, Exported

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from torch import nn

    from labkit.layers import Inputs

OBSERVERS = ("histogram", "minmax")


def pt2e_static_int8(
    model: nn.Module,
    example_inputs: Inputs,
    calibration: Sequence[Inputs],
    *,
    observer: str = "histogram",
    exclude: Collection[str] = (),
) -> nn.Module:
    """Weights per channel and activations per tensor in int8, compiled by torch.

    Args:
        model: see above.
        example_inputs: see above.
        calibration: inputs as the model will meet them; some hundred rows are enough.
        observer: how a range is taken from what was seen: "minmax" all of it, "histogram" the
            part with the least squared error.
        exclude: names of modules that stay float32.

    Raises:
        ValueError: an unknown observer, or no calibration data.

    Source: https://docs.pytorch.org/ao/stable/pt2e_quantization
    """
    check_choice(observer, OBSERVERS, "observer")
    check_calibration(calibration)
    check_layers(model, QUANTIZED, exclude)
    pt2e = need("torchao.quantization.pt2e.quantize_pt2e")
    config = _x86().get_default_x86_inductor_quantization_config()
    if observer == "minmax":
        config = _with_observer(config, need("torchao.quantization.pt2e.observer").MinMaxObserver)
    with quiet():
        prepared = pt2e.prepare_pt2e(
            _exported(model, example_inputs).module(), _quantizer(config, exclude)
        )
        with torch.no_grad():
            for batch in calibration:
                prepared(*batch)
        return _converted(pt2e.convert_pt2e(prepared), example_inputs)


def pt2e_dynamic_int8(
    model: nn.Module, example_inputs: Inputs, *, exclude: Collection[str] = ()
) -> nn.Module:
    """Weights of linear layers in int8, activations quantized as they come, compiled by torch.

    Args:
        model: see above.
        example_inputs: see above.
        exclude: names of modules that stay float32.

    Source: https://docs.pytorch.org/ao/stable/pt2e_quantization
    """
    check_layers(model, LINEAR, exclude)
    pt2e = need("torchao.quantization.pt2e.quantize_pt2e")
    config = _x86().get_default_x86_inductor_quantization_config(is_dynamic=True)
    with quiet():
        prepared = pt2e.prepare_pt2e(
            _exported(model, example_inputs).module(), _quantizer(config, exclude)
        )
        with torch.no_grad():
            prepared(*example_inputs)
        return _converted(pt2e.convert_pt2e(prepared), example_inputs)


def pt2e_qat_int8(
    model: nn.Module,
    example_inputs: Inputs,
    train: Callable[[nn.Module], Any],
    *,
    exclude: Collection[str] = (),
) -> nn.Module:
    """Quantization-aware training: the model learns with the rounding in it; then as static.

    Batch normalization is folded into the convolutions first, with the statistics that it has.

    Args:
        model: see above; training starts from its weights, in a copy.
        example_inputs: see above.
        train: trains the module that it is given, in place.
        exclude: names of modules that stay float32.

    Source: Jacob et al., "Quantization and training of neural networks for efficient
    integer-arithmetic-only inference", 2018; https://docs.pytorch.org/ao/stable/pt2e_quantization
    """
    check_layers(model, QUANTIZED, exclude)
    pt2e = need("torchao.quantization.pt2e.quantize_pt2e")
    moves = need("torchao.quantization.pt2e")
    config = _x86().get_default_x86_inductor_quantization_config(is_qat=True)
    with quiet():
        graph = _exported(copy.deepcopy(model), example_inputs).module()
        # Left in, it would take the preparation twenty seconds to find its patterns.
        need("torchao.quantization.pt2e.utils")._fuse_conv_bn_(graph)
        prepared = pt2e.prepare_qat_pt2e(graph, _quantizer(config, exclude))
        moves.move_exported_model_to_train(prepared)
        train(prepared)
        moves.move_exported_model_to_eval(prepared)
        return _converted(pt2e.convert_pt2e(prepared), example_inputs)


def _x86() -> Any:
    return need("torchao.quantization.pt2e.quantizer.x86_inductor_quantizer")


def _exported(model: nn.Module, example_inputs: Inputs) -> Any:
    shapes = batch_is_free(example_inputs)
    return torch.export.export(model, widened(example_inputs), dynamic_shapes=shapes)


def _quantizer(config: Any, exclude: Collection[str]) -> Any:
    quantizer = _x86().X86InductorQuantizer().set_global(config)
    for name in exclude:
        quantizer.set_module_name_qconfig(name, None)
    return quantizer


def _converted(graph: Any, example_inputs: Inputs) -> nn.Module:
    """A quantized graph without the float weights that it no longer reads, compiled."""
    graph.graph.eliminate_dead_code()
    graph.recompile()
    used = {node.target for node in graph.graph.nodes if node.op == "get_attr"}
    for name in [name for name, _ in graph.named_parameters() if name not in used]:
        owner, _, leaf = name.rpartition(".")
        delattr(graph.get_submodule(owner), leaf)
    buffer = io.BytesIO()
    torch.export.save(_exported(graph, example_inputs), buffer)
    return Compiled(Exported(buffer.getvalue()))


def _with_observer(config: Any, observer: Any) -> Any:
    spec = dataclasses.replace(
        config.input_activation, observer_or_fake_quant_ctr=observer.with_args(eps=2**-12)
    )
    return type(config)(spec, spec, config.weight, config.bias, config.is_qat)
