"""Models as variants, and the digits that they read."""

import pytest
import torch
from torch import nn

import labkit as lab
from labkit import datasets, inference


def prepared(models, *inputs, **settings):
    """Each variant as the worker has it: what it answers, and its metrics."""
    seen, answers = {}, {}
    for name, variant in inference.variants(models, *inputs, **settings).items():
        call = variant.prepare(lambda numbers, name=name: seen.update({name: numbers}))
        answers[name] = call()
    return answers, seen


def test_a_module_and_a_function_that_makes_it_answer_the_same_inputs():
    model, rows = nn.Linear(4, 2), torch.rand(3, 4)
    answers, _ = prepared({"ready": model, "made": lambda: model}, rows)
    assert torch.equal(answers["ready"], model(rows))
    assert torch.equal(answers["made"], answers["ready"])
    assert not answers["ready"].requires_grad


def test_a_model_is_not_made_before_the_worker_asks_for_it():
    made = []
    found = inference.variants({"a": nn.Identity(), "b": lambda: made.append(1)}, torch.rand(1))
    assert made == []
    found["b"].setup()
    assert made == [1]


def test_models_of_several_inputs_and_metrics_of_a_model():
    answers, seen = prepared(
        {"product": nn.Bilinear(2, 3, 4)},
        *(torch.rand(5, 2), torch.rand(5, 3)),
        metrics=lambda model: {"weights": sum(p.numel() for p in model.parameters())},
    )
    assert answers["product"].shape == (5, 4)
    assert seen == {"product": {"weights": 28.0}}


def test_a_slice_does_not_bring_along_what_it_was_cut_from():
    everything = torch.rand(100_000, 8)
    found = inference.variants({"a": nn.Identity()}, everything[:1])
    (inputs,) = found["a"].call.args
    assert inputs[0].untyped_storage().nbytes() == 32


def test_they_are_compared_in_the_worker_and_functions_may_fail_alone():
    def no_compiler():
        raise lab.DoesNotApplyError("no compiler here")

    models = {"wide": nn.Linear(512, 2048), "narrow": nn.Linear(512, 8), "compiled": no_compiler}
    found = lab.compare(
        inference.variants(models, torch.rand(8, 512)), budget_s=1, resolution=0.2, threads=1
    )
    assert found["narrow"].low > 1
    assert found.failures["compiled"].message == "no compiler here"


@pytest.mark.parametrize(
    ("models", "inputs", "error", "message"),
    [
        ({}, (torch.rand(1),), ValueError, "give at least one, by name"),
        ({"a": nn.Identity()}, (), ValueError, "give what the models are called with"),
        ({"a": nn.Identity()}, ([1.0],), TypeError, "an input is a list: give tensors"),
        ({"a": 3}, (torch.rand(1),), TypeError, r"models\['a'\] is a int: give a torch.nn.Module"),
    ],
)
def test_bad_input_is_refused(models, inputs, error, message):
    with pytest.raises(error, match=message):
        inference.variants(models, *inputs)


def test_digits_have_the_shapes_that_are_promised_and_are_enlarged_by_repeating():
    small, large = datasets.digits(), datasets.digits(32)
    for images, enlarged in zip(small[::2], large[::2], strict=True):
        assert images.shape[1:] == (1, 8, 8)
        assert torch.equal(enlarged, images.repeat_interleave(4, 2).repeat_interleave(4, 3))
        assert (images.min(), images.max()) == (0, 1)
    for labels, images in ((small[1], small[0]), (small[3], small[2])):
        assert labels.shape == images.shape[:1]
        assert labels.unique().tolist() == list(range(10))


def test_digits_are_found_from_a_folder_below_and_missing_ones_are_named(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="side=0: give at least 1 pixel"):
        datasets.digits(0)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"name it: folder="):
        datasets.digits()
