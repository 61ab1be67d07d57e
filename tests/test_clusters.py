"""Shared values and coded bytes."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from torch import nn

from labkit import clusters, prune


def test_a_layer_has_no_more_values_than_its_bits_can_number():
    model = nn.Sequential(nn.Linear(50, 50), nn.ReLU(), nn.Conv2d(3, 16, 3))
    shared = clusters.clustered(model, bits=3)
    assert [len(shared[i].weight.unique()) for i in (0, 2)] == [8, 8]
    assert len(model[0].weight.unique()) > 1000


def test_the_error_is_that_of_a_good_codebook():
    torch.manual_seed(0)
    layer = nn.Linear(300, 300)
    nn.init.uniform_(layer.weight, -1, 1)
    shared = clusters.clustered(layer, bits=4)
    # For uniform weights the best 16 values are evenly spaced: an error of step / sqrt(12).
    best = (2 / 16) / 12**0.5
    error = float((shared.weight - layer.weight).detach().square().mean().sqrt())
    assert error == pytest.approx(best, rel=0.02)


def test_every_weight_takes_the_value_that_is_nearest():
    layer = nn.Linear(40, 40)
    shared = clusters.clustered(layer, bits=2)
    values = shared.weight.unique()
    nearest = values[(layer.weight.flatten()[:, None] - values).abs().argmin(1)]
    assert torch.equal(nearest.reshape(40, 40), shared.weight)


def test_zeros_stay_zero_and_others_do_not_become_zero():
    layer = prune.magnitude(nn.Linear(40, 40), 0.7)
    shared = clusters.clustered(layer, bits=3)
    assert torch.equal(shared.weight == 0, layer.weight == 0)
    assert len(shared.weight.unique()) == 8


def test_training_moves_the_values_and_keeps_who_shares_them():
    layer = prune.magnitude(nn.Linear(20, 20), 0.5)
    plain = clusters.clustered(layer, bits=2)

    def train(part):
        optimizer = torch.optim.SGD(part.parameters(), lr=0.01)
        for _ in range(5):
            optimizer.zero_grad()
            part(torch.ones(1, 20)).square().sum().backward()
            optimizer.step()

    trained = clusters.clustered(layer, 2, train)
    assert not torch.equal(trained.weight, plain.weight)
    assert len(trained.weight.unique()) == 4
    for value in plain.weight.unique():
        assert len(trained.weight[plain.weight == value].unique()) == 1
    assert torch.equal(trained.weight == 0, layer.weight == 0)
    assert {name for name, _ in trained.named_parameters()} == {"weight", "bias"}


@pytest.mark.parametrize("bits", [0, 9, 2.0, True])
def test_bits_that_are_none_are_refused(bits):
    with pytest.raises(ValueError, match="give a whole number from 1 to 8"):
        clusters.clustered(nn.Linear(4, 4), bits)


def models():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(256, 256), nn.BatchNorm1d(256), nn.Linear(256, 3))
    pruned = prune.magnitude(plain, 0.9)
    return {
        "as it is": plain,
        "pruned": pruned,
        "clustered": clusters.clustered(plain, 4),
        "both": clusters.clustered(pruned, 4),
        "one value": nn.Sequential(nn.BatchNorm1d(64)),
    }


@pytest.mark.parametrize("name", list(models()))
def test_what_is_packed_comes_back_exactly(name):
    model = models()[name]
    again = clusters.unpack(clusters.pack(model), model)
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
        assert again.state_dict()[key].dtype == value.dtype


def test_packing_comes_close_to_the_entropy():
    codes = np.random.default_rng(0).choice(8, 100_000, p=[0.6, 0.2, 0.1, *[0.02] * 5])
    layer = nn.Linear(100_000, 1, bias=False)
    layer.weight.data = torch.from_numpy(codes.astype(np.float32))[None]
    shares = np.bincount(codes) / len(codes)
    entropy_bytes = -(shares * np.log2(shares)).sum() * len(codes) / 8
    assert entropy_bytes < len(clusters.pack(layer)) < 1.01 * entropy_bytes + 200


def test_each_step_makes_it_smaller():
    sizes = {name: len(clusters.pack(model)) for name, model in models().items()}
    assert sizes["both"] < 0.5 * sizes["clustered"] < 0.5 * 0.3 * sizes["as it is"]
    assert sizes["pruned"] < 0.3 * sizes["as it is"]


def test_data_of_another_model_are_refused():
    data = clusters.pack(nn.Linear(4, 4))
    with pytest.raises(ValueError, match="16 numbers for 'weight', which has 20"):
        clusters.unpack(data, nn.Linear(5, 4))
    with pytest.raises(ValueError, match="more in it than this model takes"):
        clusters.unpack(data + b"x", nn.Linear(4, 4))


@pytest.mark.parametrize("number", [4, 16, 64])
def test_the_means_are_as_near_as_those_of_scikit_learn(number):
    numbers = np.random.default_rng(0).laplace(size=2000)
    counts, start = np.ones(len(numbers)), np.linspace(numbers.min(), numbers.max(), number)
    theirs = KMeans(number, init=start[:, None], n_init=1).fit(numbers[:, None])
    ours = clusters._means(numbers, counts, start)
    assert len(np.unique(ours)) == number
    distance = np.abs(numbers[:, None] - ours).min(1)
    assert np.square(distance).sum() <= 1.01 * theirs.inertia_
