"""The ledger of training memory: what the shapes predict is what the allocator sees."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from labkit.ledger import memory_ledger  # noqa: E402

MIB = 2**20


def mlp():
    return nn.Sequential(nn.Linear(512, 1024), nn.ReLU(), nn.Linear(1024, 10))


def block():
    return nn.TransformerEncoderLayer(64, 4, 256, batch_first=True)


def classify(model, batch):
    images, labels = batch
    return nn.functional.cross_entropy(model(images), labels)


def images(*shape):
    return lambda: (torch.rand(64, *shape), torch.randint(10, (64,)))


def squares(model, tokens):
    return model(tokens).square().mean()


def recomputed(model, tokens):
    return checkpoint(model, tokens, use_reentrant=False).square().mean()


def tokens():
    return torch.rand(8, 128, 64)


CASES = {
    "mlp": (mlp, torch.optim.SGD, images(512), classify),
    "mlp with Adam": (mlp, torch.optim.Adam, images(512), classify),
    "cnn": (
        lambda: nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(28800, 10)),
        torch.optim.AdamW,
        images(3, 32, 32),
        classify,
    ),
    "transformer": (block, torch.optim.AdamW, tokens, squares),
    "checkpointed": (block, torch.optim.AdamW, tokens, recomputed),
    "bfloat16": (
        lambda: mlp().bfloat16(),
        torch.optim.Adam,
        lambda: (torch.rand(64, 512).bfloat16(), torch.randint(10, (64,))),
        classify,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_prediction_and_measurement_agree_within_5_percent(case):
    found = memory_ledger(*CASES[case])
    assert found.error < 0.05
    assert found.predicted.peak_bytes == pytest.approx(found.measured.peak_bytes, rel=0.05)
    for part, predicted in found.predicted.parts.items():
        assert predicted == pytest.approx(found.measured.parts[part], rel=0.05, abs=2**14)


def test_parts_are_what_arithmetic_says():
    weights = (512 * 1024 + 1024 + 1024 * 10 + 10) * 4
    found = memory_ledger(mlp, torch.optim.Adam, images(512), classify).measured
    assert found.weights_bytes == weights
    assert found.gradients_bytes == pytest.approx(weights, abs=100)
    # Two moments for each weight, and a count of steps for each parameter.
    assert found.optimizer_bytes == pytest.approx(2 * weights, abs=100)
    # The output of the ReLU, and that of log_softmax.
    assert found.activations_bytes == pytest.approx(64 * 1024 * 4 + 64 * 10 * 4, abs=100)


def test_plain_sgd_keeps_nothing_and_momentum_keeps_one_number_for_each_weight():
    plain = memory_ledger(mlp, torch.optim.SGD, images(512), classify).measured
    heavy = memory_ledger(
        mlp, lambda p: torch.optim.SGD(p, momentum=0.9), images(512), classify
    ).measured
    assert plain.optimizer_bytes == 0
    assert heavy.optimizer_bytes == heavy.weights_bytes


def test_checkpointing_trades_activations_for_work():
    whole = memory_ledger(block, torch.optim.SGD, tokens, squares).measured
    saved = memory_ledger(block, torch.optim.SGD, tokens, recomputed).measured
    assert saved.activations_bytes < whole.activations_bytes / 5


def test_the_timeline_has_every_phase_of_every_step():
    found = memory_ledger(mlp, torch.optim.SGD, images(512), classify, steps=3)
    phases = [phase for phase, _ in found.measured.timeline]
    assert phases == ["weights", *["forward", "backward", "optimizer", "zero"] * 3]


def test_one_step_is_refused():
    with pytest.raises(ValueError, match="steps=1: give at least 2"):
        memory_ledger(mlp, torch.optim.SGD, images(512), classify, steps=1)


def test_text_table_frame_and_picture():
    found = memory_ledger(mlp, torch.optim.SGD, images(512), classify)
    head, *rows = str(found).splitlines()
    assert head.split("  ")[0] == "part"
    assert rows[-1].startswith("peak")
    assert list(found.to_frame().columns) == ["part", "predicted_bytes", "measured_bytes"]
    assert 'class="labkit-result"' in found._repr_html_()
    assert found.plot()._repr_png_()[:4] == b"\x89PNG"
    assert repr(found) == "MemoryLedger(cpu)"
