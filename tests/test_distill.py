"""Distillation and what it rests on: losses, training, seeds."""

import math

import pytest
import torch
from torch import nn

from labkit import distill, seeds, training


def data(rows=200):
    x = torch.randn(rows, 10, generator=torch.Generator().manual_seed(0))
    return x, (x[:, :3].abs().argmax(1))


def network(width, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(10, width), nn.ReLU(), nn.Linear(width, 3))


def test_the_mixed_loss_is_that_of_the_paper():
    torch.manual_seed(0)
    answers, teacher = torch.randn(2, 5, 3)
    labels = torch.tensor([0, 1, 2, 0, 1])
    p = torch.softmax(teacher / 2, 1)
    soft = (p * (p.log() - torch.log_softmax(answers / 2, 1))).sum(1).mean()
    hard = nn.functional.cross_entropy(answers, labels)
    found = distill.mixed_loss(answers, teacher, labels, temperature=2, share=0.7)
    assert float(found) == pytest.approx(float(0.7 * 4 * soft + 0.3 * hard), rel=1e-5)


def test_without_a_share_of_the_teacher_it_is_cross_entropy():
    answers, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    found = distill.mixed_loss(answers, torch.randn(4, 3), labels, share=0.0)
    assert torch.allclose(found, nn.functional.cross_entropy(answers, labels))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"temperature": 0}, "temperature=0: give"), ({"share": 1.5}, "share=1.5: give")],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        distill.mixed_loss(torch.ones(1, 2), torch.ones(1, 2), torch.tensor([0]), **settings)


@pytest.fixture(scope="module")
def teacher():
    model = network(64)
    training.fit(model, *data(), steps=100, rate=0.01)
    return model


@pytest.mark.parametrize("features", [None, ("1", "1")])
def test_a_student_comes_to_answer_like_its_teacher(teacher, features):
    x, labels = data()
    student = network(32, seed=1)
    before = [p.clone() for p in student.parameters()]
    known = [p.clone() for p in teacher.parameters()]
    taught = distill.distill(
        student, teacher, x, labels, steps=150, rate=0.02, share=1.0, features=features
    )

    def distance(model):
        with torch.no_grad():
            return float((model(x).softmax(1) - teacher(x).softmax(1)).norm())

    assert distance(taught) < 0.5 * distance(student)
    assert all(torch.equal(a, b) for a, b in zip(student.parameters(), before, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(teacher.parameters(), known, strict=True))
    # Nothing of the training is left on it.
    assert [type(part) for part in taught.modules()] == [type(p) for p in student.modules()]
    assert not any(part._forward_hooks for part in taught.modules())


def test_unknown_features_are_refused_before_the_training():
    x, labels = data()
    with pytest.raises(ValueError, match="no module '9'"):
        distill.distill(network(4), network(8), x, labels, steps=10**9, features=("9", "1"))


def test_the_same_seed_gives_the_same_training():
    x, labels = data()
    first, second, third = network(8), network(8), network(8)
    torch.manual_seed(5)
    a = training.fit(first, x, labels, steps=20, seed=3)
    state = torch.random.get_rng_state()
    b = training.fit(second, x, labels, steps=20, seed=3)
    c = training.fit(third, x, labels, steps=20, seed=4)
    assert a == b != c
    assert torch.equal(state, torch.random.get_rng_state())


def test_an_interrupt_ends_the_training_and_keeps_what_was_learned(capsys):
    x, labels = data()
    model = network(8)
    steps = 0

    def loss(part, inputs, answers):
        nonlocal steps
        steps += 1
        if steps > 5:
            raise KeyboardInterrupt
        return training.cross_entropy(part, inputs, answers)

    before = model[0].weight.clone()
    losses = training.fit(model, x, labels, steps=100, loss=loss)
    assert len(losses) == 5
    assert not torch.equal(model[0].weight, before)
    assert not model.training
    assert "stopped after 5 of 100 steps" in capsys.readouterr().out


def test_bad_training_input_is_refused():
    x, labels = data()
    with pytest.raises(ValueError, match="steps=0"):
        training.fit(network(4), x, labels, steps=0)
    with pytest.raises(ValueError, match="200 inputs and 199 labels"):
        training.fit(network(4), x, labels[1:], steps=1)


def test_an_interval_is_students():
    found = seeds.Seeds({"a": (1.0, 2.0, 3.0), "b": (2.0, 2.5, 4.5)}, (0, 1, 2))
    difference = found.difference("b", "a")
    # Differences 1, 0.5, 1.5: mean 1, standard deviation 0.5; t of 2 degrees of freedom 4.303.
    assert difference.mean == pytest.approx(1.0)
    assert difference.high - 1.0 == pytest.approx(4.3027 * 0.5 / math.sqrt(3), rel=1e-4)
    assert difference.verdict == "inconclusive"
    assert found.difference("b", "a", confidence=0.5).verdict == "better"
    assert found.difference("a", "b", confidence=0.5).verdict == "worse"


@pytest.mark.parametrize(
    ("values", "state"),
    [
        ((0.9, 0.91, 0.9), "CONFIRMED"),
        ((0.1, 0.11, 0.1), "REFUTED"),
        ((0.1, 0.9, 0.5), "INCONCLUSIVE"),
    ],
)
def test_a_claim_over_seeds_has_three_ends(values, state, capsys):
    found = seeds.Seeds({"plain": (0.5, 0.5, 0.5), "new": values}, (0, 1, 2))
    assert found.claim("new", better_than="plain").state == state
    assert f"{state}: better in accuracy over 3 seeds" in capsys.readouterr().out


def test_an_interrupt_keeps_the_seeds_that_all_ways_have_finished(capsys):
    def way(seed):
        if seed == 2:
            raise KeyboardInterrupt
        return seed

    found = seeds.over_seeds({"a": float, "b": way}, 5)
    assert found.seeds == (0, 1)
    assert found.values == {"a": (0.0, 1.0), "b": (0.0, 1.0)}
    assert "stopped after 2 of 5 seeds" in capsys.readouterr().out


def test_one_seed_has_no_interval():
    found = seeds.over_seeds({"a": float, "b": float}, [7])
    with pytest.raises(ValueError, match="at least two seeds; there are 1"):
        found.difference("a", "b")
    with pytest.raises(KeyError, match="no 'c' here; there are a, b"):
        found.difference("c", "b")
    assert list(found.to_frame().index) == [7]
