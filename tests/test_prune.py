"""Pruning: which weights go, what is left, and that it calculates the same."""

import pickle

import pytest
import torch
from torch import nn

import labkit as lab
from labkit import prune

X = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def cnn():
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        nn.MaxPool2d(4),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10)),
    ).eval()


class Attention(nn.Module):
    """Takes the number of heads from what its layers give."""

    def __init__(self, size=32, head=8):
        super().__init__()
        self.head = head
        self.q, self.k, self.v, self.out = (nn.Linear(size, size) for _ in range(4))

    def forward(self, x):
        q, k, v = (
            layer(x).unflatten(-1, (-1, self.head)).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        weights = torch.softmax(q @ k.transpose(-2, -1) / self.head**0.5, dim=-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


def zeros(layer):
    return float((layer.weight == 0).float().mean())


@pytest.mark.parametrize("scope", prune.SCOPES)
def test_as_many_weights_as_asked_for_become_zero(scope):
    model = cnn()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pruned = prune.magnitude(model, 0.8, scope=scope)
    layers = [part for part in pruned.modules() if isinstance(part, prune.PRUNED)]
    weights = torch.cat([layer.weight.flatten() for layer in layers])
    assert float((weights == 0).float().mean()) == pytest.approx(0.8, abs=0.001)
    if scope == "layer":
        assert [zeros(layer) for layer in layers] == pytest.approx([0.8] * 4, abs=0.01)
    else:
        # The linear layer's weights are the smallest at the start.
        assert zeros(pruned[7]) > 0.8 > zeros(pruned[0])
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("scope", prune.SCOPES)
def test_the_order_of_weights_in_memory_does_not_matter(scope):
    model = cnn()
    in_order = prune.magnitude(model, 0.8, scope=scope)(X)
    channels_last = model.to(memory_format=torch.channels_last)
    assert torch.allclose(prune.magnitude(channels_last, 0.8, scope=scope)(X), in_order, atol=1e-6)


def test_the_smallest_weights_go():
    layer = nn.Linear(100, 1, bias=False)
    pruned = prune.magnitude(layer, 0.3)
    gone = layer.weight[pruned.weight == 0].abs().max()
    assert gone <= layer.weight[pruned.weight != 0].abs().min()


def test_what_is_pruned_stays_zero_while_the_rest_is_trained():
    model = nn.Linear(10, 10)
    seen = []

    def train(part):
        optimizer = torch.optim.SGD(part.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            part(torch.ones(4, 10)).square().sum().backward()
            optimizer.step()
        seen.append(zeros(part))

    pruned = prune.gradual(model, 0.9, train, turns=3)
    assert seen == pytest.approx([prune.cubic(i / 3, 0.9) for i in (1, 2, 3)], abs=0.01)
    assert zeros(pruned) == pytest.approx(0.9)
    kept = pruned.weight != 0
    assert not torch.equal(pruned.weight[kept], model.weight[kept])
    assert {name for name, _ in pruned.named_parameters()} == {"weight", "bias"}
    pickle.dumps(pruned)


def test_excluded_modules_are_left_alone():
    pruned = prune.magnitude(cnn(), 0.9, exclude=["0", "9"])
    assert [zeros(pruned[i]) for i in (0, 9)] == [0.0, 0.0]


@pytest.mark.parametrize("layout", prune.LAYOUTS)
def test_a_sparse_model_answers_like_the_one_it_was_made_from(layout):
    model = prune.magnitude(nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 16)), 0.9)
    sparse = prune.sparse(model, layout, block=8)
    for x in (torch.rand(1, 64), torch.rand(5, 64), torch.rand(2, 3, 64)):
        assert torch.allclose(sparse(x), model(x), atol=1e-5)
    again = pickle.loads(pickle.dumps(sparse))
    assert torch.allclose(again(torch.ones(1, 64)), model(torch.ones(1, 64)), atol=1e-5)


def test_blocks_that_do_not_fit_are_refused_by_name():
    model = nn.Sequential(nn.Linear(30, 30))
    with pytest.raises(ValueError, match="block=16 does not divide the sides of '0', 30 x 30"):
        prune.sparse(model, "bsr")


def test_two_of_every_four_weights_are_left():
    pruned = prune.two_of_four(nn.Linear(64, 8))
    left = (pruned.weight.reshape(-1, 4) != 0).sum(1)
    assert torch.equal(left, torch.full((128,), 2))


def test_the_units_of_a_gpu_are_asked_for_where_there_is_none():
    with pytest.raises(lab.DoesNotApplyError, match="2:4 sparsity"):
        prune.semi_structured(prune.two_of_four(nn.Linear(64, 64)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_skips_what_is_not_there():
    model = prune.two_of_four(nn.Linear(128, 128)).cuda()
    x = torch.rand(64, 128, device="cuda").half()
    expected = model.half()(x)
    assert torch.allclose(prune.semi_structured(model)(x), expected, atol=1e-2)


def loss(model):
    return nn.functional.cross_entropy(model(X), torch.arange(4))


@pytest.mark.parametrize("importance", prune.IMPORTANCES)
@pytest.mark.parametrize("scope", prune.SCOPES)
def test_channels_go_and_the_answer_keeps_its_shape(importance, scope):
    model = cnn()
    narrow = prune.channels(model, (X,), 0.5, importance=importance, loss=loss, scope=scope)
    assert narrow(X).shape == (4, 10)
    assert narrow[9].out_features == 10
    before, after = prune.count(model, (X,)), prune.count(narrow, (X,))
    assert after.parameters < 0.7 * before.parameters
    assert after.flops < 0.9 * before.flops
    if scope == "layer":
        assert [narrow[i].weight.shape[0] for i in (0, 4, 7)] == [8, 16, 32]
    # The model that was given still works, and has all its channels.
    assert [model[i].weight.shape[0] for i in (0, 4, 7)] == [16, 32, 64]
    assert all(p.grad is None for p in model.parameters())


def test_a_channel_that_does_nothing_goes_first_and_nothing_changes():
    model = cnn()
    idle = [1, 2, 5, 8, 9, 11, 12, 14]
    with torch.no_grad():
        model[0].weight[idle] = 0.0
        model[1].weight[idle] = 0.0
        model[1].bias[idle] = 0.0
        model[4].weight[:, idle] = 0.0
    narrow = prune.channels(model, (X,), 0.5, exclude=["4", "7"])
    assert narrow[0].out_channels == 8
    assert torch.allclose(narrow(X), model(X), atol=1e-5)


def test_channels_are_left_in_multiples():
    narrow = prune.channels(cnn(), (X,), 0.3, multiple=8)
    assert all(narrow[i].weight.shape[0] % 8 == 0 for i in (0, 4, 7))


def test_whole_heads_go():
    model = Attention()
    x = torch.rand(2, 5, 32)
    half = prune.heads(model, (x,), 0.5, layers=dict.fromkeys("qkv", 4))
    assert half(x).shape == (2, 5, 32)
    assert [half.q.out_features, half.v.out_features, half.out.in_features] == [16, 16, 16]
    assert half.out.out_features == 32
    # What is left are heads of the model, whole.
    rows = {tuple(row.tolist()) for row in half.q.weight}
    heads = model.q.weight.unflatten(0, (4, 8))
    whole = [all(tuple(row.tolist()) in rows for row in head) for head in heads]
    assert sum(whole) == 2


def test_training_is_called_with_the_smaller_model():
    seen = []
    prune.channels(cnn(), (X,), 0.5, lambda part: seen.append(part[0].out_channels))
    assert seen == [8]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: prune.magnitude(cnn(), 1.0), "sparsity=1.0: give a share above 0 and below 1"),
        (lambda: prune.magnitude(cnn(), 0.5, scope="all"), "scope='all': give one of"),
        (lambda: prune.gradual(cnn(), 0.5, print, turns=0), "turns=0: give at least 1"),
        (lambda: prune.magnitude(cnn(), 0.5, exclude=["x"]), "no module 'x' in the model"),
        (lambda: prune.channels(cnn(), (X,), 2), "width=2: give a share"),
        (lambda: prune.channels(cnn(), X, 0.5), "example_inputs: give a tuple"),
        (lambda: prune.channels(cnn(), (X,), 0.5, importance="taylor"), "needs loss="),
        (lambda: prune.sparse(cnn(), "coo"), "layout='coo': give one of csr, bsr"),
        (lambda: prune.heads(Attention(), (X,), 0.5, layers={}), "layers={}: give the number"),
    ],
)
def test_bad_input_is_refused_with_the_way_out(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_model_without_layers_to_prune_does_not_apply():
    with pytest.raises(lab.DoesNotApplyError, match="the model has none"):
        prune.magnitude(nn.ReLU(), 0.5)


def test_counts_are_those_of_the_formulas():
    found = prune.count(nn.Conv2d(3, 8, 3, padding=1, bias=False), (torch.ones(2, 3, 10, 10),))
    assert found.parameters == 3 * 8 * 9
    assert found.flops == 2 * 2 * 100 * 3 * 8 * 9
    sparse = prune.magnitude(nn.Linear(10, 10, bias=False), 0.75)
    assert prune.count(sparse, (torch.ones(1, 10),)) == prune.Counts(100, 25, 200)


@pytest.mark.parametrize("training", [True, False])
def test_attention_is_counted_whatever_kernel_would_do_it(training):
    block = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, dropout=0.0).train(training)
    products = 4 * 32 * 32 + 2 * 32 * 64
    of_heads = 2 * 16 * 16 * 32
    assert prune.count(block, (torch.ones(1, 16, 32),)).flops == 2 * (16 * products + of_heads)
    assert torch.backends.mha.get_fastpath_enabled()
