"""What quantization gains on this machine, against eager float32 and the fair alternatives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

import labkit as lab
from bench.digits import cnn, digits
from bench.report import Part, Row

if TYPE_CHECKING:
    from collections.abc import Callable

    from labkit.results import Comparison


def quantization(*, quick: bool = False) -> Part:
    """Speed, size and accuracy of an MLP and a CNN, quantized."""
    budget_s = 2.0 if quick else 10.0
    # Seven variants of some ten milliseconds each: twice the time for the same intervals.
    rows = [*_mlp_rows(budget_s), *_cnn_rows(2 * budget_s)]
    notes = (
        "Against eager float32 in the same rounds, with as many threads as there are usable "
        "cores. The targets are for a processor with VNNI on two cores; elsewhere the figures "
        "stand without one. 'PT2E' stays in torch; where it is compiled ahead of time, that is "
        "said."
    )
    return Part("Quantization", tuple(rows), notes)


def _row(what: str, target: str, seen: str, *, holds: bool, peers: dict[str, str]) -> Row:
    judged = lab.machine().has("vnni")
    return Row(what, target if judged else "", seen, holds if judged else None, peers)


def _speed_row(
    what: str, comparison: Comparison, names: tuple[str, ...], least: float, peers: tuple[str, ...]
) -> Row:
    best = max((comparison[name] for name in names), key=lambda ratio: ratio.speedup)
    return _row(
        f"{what} ({best.name})",
        f"at least {least:g}x",
        f"{best.speedup:.2f}x {best.interval_text}",
        holds=best.speedup >= least,
        peers={name: f"{comparison[name].speedup:.2f}x" for name in peers},
    )


def _compare(
    makers: dict[str, Callable[[], nn.Module]], x: torch.Tensor, budget_s: float
) -> Comparison:
    def answer(model: nn.Module) -> Any:
        with torch.no_grad():
            return model(x)

    return lab.compare(
        {name: lab.Variant(answer, setup=make) for name, make in makers.items()},
        threads=lab.machine().usable_threads,
        budget_s=budget_s,
        resolution=0.05,
        trace=False,
    )


def _mlp_rows(budget_s: float) -> list[Row]:
    torch.manual_seed(0)
    layers = [layer for _ in range(4) for layer in (nn.Linear(1024, 1024), nn.ReLU())]
    model, q = nn.Sequential(*layers[:-1]).eval(), lab.quantize
    calibration = [(torch.randn(32, 1024),) for _ in range(4)]
    rows = []
    for batch, least in ((1, 4.0), (64, 3.0)):
        x = torch.randn(batch, 1024)
        inputs = (x,)
        makers: dict[str, Callable[[], nn.Module]] = {
            "float32": lambda: model,
            "float32 compiled": lambda: q.compiled(model),
            "float32 ONNX": lambda inputs=inputs: q.onnx_float32(model, inputs),  # type: ignore[misc]
            "int8 dynamic ONNX": lambda inputs=inputs: q.onnx_dynamic_int8(model, inputs),  # type: ignore[misc]
            "int8 static ONNX": lambda inputs=inputs: q.onnx_static_int8(  # type: ignore[misc]
                model, inputs, calibration
            ),
            "int8 dynamic, eager": lambda: q.ao_dynamic_int8(model),
            "int4 weights, eager": lambda: q.ao_int4_weights(model),
        }
        found = _compare(makers, x, budget_s)
        fair = ("float32 compiled", "float32 ONNX")
        int8 = ("int8 dynamic ONNX", "int8 static ONNX")
        rows.append(_speed_row(f"MLP 4 x 1024, batch {batch}", found, int8, least, fair))
        if batch == 1:
            for trap in ("int8 dynamic, eager", "int4 weights, eager"):
                ratio = found[trap]
                seen = f"{ratio.speedup:.2f}x {ratio.interval_text}"
                rows.append(
                    Row(f"MLP, batch 1, {trap} (torchao)", "slower", seen, ratio.below(1.0), {})
                )
    share = q.size_bytes(q.onnx_dynamic_int8(model, calibration[0])) / q.size_bytes(model)
    rows.append(
        Row("MLP, int8 over float32 on disk", "at most 0.26", f"{share:.3f}", share <= 0.26, {})
    )
    return rows


def _cnn_rows(budget_s: float) -> list[Row]:
    (x_train, y_train), (x_test, y_test) = digits("train"), digits("test")
    torch.manual_seed(0)
    model = cnn()
    _train(model, x_train, y_train, steps=40, rate=1e-3)
    _train(model, x_train, y_train, steps=20, rate=1e-4)
    model = model.eval()
    calibration = [(images,) for images in torch.split(x_train[:256], 32)]
    one, q = (x_test[:1],), lab.quantize
    static, pt2e = (
        q.onnx_static_int8(model, one, calibration),
        q.pt2e_static_int8(model, one, calibration),
    )
    float_onnx = q.onnx_float32(model, one)
    rows = []
    for batch, least in ((1, 4.0), (32, 4.5)):
        x = x_test[:batch]
        package = q.ahead_of_time(pt2e, (x,))
        makers: dict[str, Callable[[], nn.Module]] = {
            "float32": lambda: model,
            "float32 compiled": lambda: q.compiled(model),
            "float32 ONNX": lambda: float_onnx,
            "bfloat16 compiled": lambda: q.compiled(q.bfloat16(model)),
            "int8 static ONNX": lambda: static,
            "int8 static PT2E": lambda: pt2e,
            "int8 static PT2E ahead of time": lambda package=package: package,  # type: ignore[misc]
        }
        found = _compare(makers, x, budget_s)
        fair = ("float32 compiled", "float32 ONNX", "bfloat16 compiled")
        inside = ("int8 static PT2E", "int8 static PT2E ahead of time")
        what = f"CNN of 2 million weights, batch {batch}"
        rows.append(_speed_row(what, found, ("int8 static ONNX", *inside), least, fair))
        rows.append(_speed_row(f"{what}, staying in torch", found, inside, 3.0, fair))

    def accuracy(candidate: nn.Module) -> float:
        with torch.no_grad():
            answers = torch.cat([candidate(images).argmax(1) for images in torch.split(x_test, 60)])
        return float((answers == y_test).float().mean())

    torch.manual_seed(0)
    aware = q.pt2e_qat_int8(
        model, one, lambda part: _train(part, x_train, y_train, steps=20, rate=1e-4)
    )
    exact = accuracy(model)
    for name, candidate, most in (
        ("static int8 ONNX", static, 0.5),
        ("static int8 PT2E", pt2e, 0.5),
        ("QAT int8 PT2E", aware, 0.2),
    ):
        lost = 100 * (exact - accuracy(candidate))
        rows.append(
            Row(
                f"CNN, accuracy lost by {name}",
                f"at most {most} points",
                f"{lost:+.1f} points of {exact:.1%}",
                lost <= most,
                {},
            )
        )
    return rows


def _train(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, *, steps: int, rate: float
) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    for _ in range(steps):
        rows = torch.randint(len(images), (64,))
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(model(images[rows]), labels[rows]))
        optimizer.step()
