"""One layer changed at a time: pure functions of a model and a measure of quality."""

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from labkit.sensitivity import Change, Sensitivity, changed, sensitivity  # noqa: E402


class Net(nn.Module):
    """A layer of each kind, one of them inside of another module."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 2, bias=False)
        self.body = nn.Sequential(nn.ReLU(), nn.Linear(4, 3))
        self.head = nn.Linear(3, 1)


@pytest.fixture
def net():
    model = Net()
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    return model


def times(factor):
    def apply(layer):
        with torch.no_grad():
            layer.weight.mul_(factor)
        return layer

    return apply


def weights(model):
    """The weights of all layers, which are ones: how much of them is left."""
    return sum(float(v.sum()) for name, v in model.state_dict().items() if name.endswith("weight"))


CHANGES = {"zero": Change(times(0.0), 0.25), "half": Change(times(0.5), 0.5)}


def test_each_layer_is_changed_alone_and_the_rest_is_as_it_was(net):
    found = sensitivity(net, CHANGES, weights)
    assert found.quality == 8 + 12 + 3
    assert found.alone == {
        "conv": {"zero": 23 - 8, "half": 23 - 4},
        "body.1": {"zero": 23 - 12, "half": 23 - 6},
        "head": {"zero": 23 - 3, "half": 23 - 1.5},
    }
    assert found.bytes_of == {"conv": 32, "body.1": 48, "head": 12}
    assert found.shares == {"zero": 0.25, "half": 0.5}


def test_the_model_is_left_as_it_is(net):
    before = {name: value.clone() for name, value in net.state_dict().items()}
    parts = list(net.modules())
    sensitivity(net, CHANGES, weights)
    changed(net, CHANGES, {"conv": "zero", "head": "half"})
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert list(net.modules()) == parts


def test_a_change_may_put_another_module_in_the_place_of_a_layer(net):
    found = sensitivity(
        net,
        {"removed": Change(lambda _: nn.Identity(), 0.01)},
        lambda model: float(isinstance(model.body[1], nn.Linear)),
    )
    assert found.alone == {
        "conv": {"removed": 1.0},
        "body.1": {"removed": 0.0},
        "head": {"removed": 1.0},
    }


def test_the_quality_is_asked_once_for_each_change_of_each_layer_and_once_without(net):
    seen = []
    sensitivity(net, CHANGES, lambda model: seen.append(model) or 1.0)
    assert len(seen) == 3 * 2 + 1
    assert [model is net for model in seen] == [False] * 6 + [True]


def test_only_layers_of_the_kinds_asked_for_are_changed(net):
    assert set(sensitivity(net, CHANGES, weights, kinds=(nn.Conv2d,)).alone) == {"conv"}
    assert set(sensitivity(net, CHANGES, weights, kinds=(nn.Linear,)).alone) == {"body.1", "head"}


def test_weights_of_half_the_size_count_half():
    model = nn.Sequential(nn.Linear(4, 2).to(torch.bfloat16))
    assert sensitivity(model, CHANGES, lambda _: 1.0).bytes_of == {"0": 16}


def test_no_changes_are_refused(net):
    with pytest.raises(ValueError, match="give at least one"):
        sensitivity(net, {}, weights)


def test_a_model_without_such_layers_is_refused_before_it_is_evaluated():
    def never(_):
        raise RuntimeError("evaluated all the same")

    with pytest.raises(ValueError, match="no layer of Linear, Conv2d"):
        sensitivity(nn.ReLU(), CHANGES, never)
    with pytest.raises(ValueError, match="no layer of Conv2d"):
        sensitivity(nn.Sequential(nn.Linear(2, 2)), CHANGES, never, kinds=(nn.Conv2d,))


@pytest.mark.parametrize("share", [0, -0.5, 1.01, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match=f"share={share}: give a number above 0"):
        Change(times(1.0), share)


FOUND = Sensitivity(
    quality=0.98,
    alone={
        "conv": {"int4": 0.90, "int8": 0.979},
        "fc1": {"int4": 0.975, "int8": 0.98},
        "fc2": {"int4": 0.50, "int8": 0.60},
    },
    bytes_of={"conv": 1024, "fc1": 4096, "fc2": 2048},
    shares={"int4": 0.125, "int8": 0.25},
)


def test_the_smallest_change_that_costs_little_enough_is_chosen():
    assert FOUND.within(0.01) == {"conv": "int8", "fc1": "int4", "fc2": None}
    assert FOUND.within(0.0) == {"conv": None, "fc1": "int8", "fc2": None}
    assert FOUND.within(1.0) == {"conv": "int4", "fc1": "int4", "fc2": "int4"}


def test_a_change_that_improves_the_quality_costs_nothing():
    better = Sensitivity(0.9, {"fc": {"int8": 0.91}}, {"fc": 8}, {"int8": 0.25})
    assert better.within(0.0) == {"fc": "int8"}


def test_the_bytes_that_are_left_are_those_of_the_chosen_changes():
    assert FOUND.bytes_with({}) == 1024 + 4096 + 2048
    assert FOUND.bytes_with(FOUND.within(0.01)) == 256 + 512 + 2048
    assert FOUND.bytes_with({"fc2": "int8", "conv": None}) == 1024 + 4096 + 512


def test_what_was_chosen_can_be_made(net):
    model = changed(net, CHANGES, {"conv": "half", "body.1": "zero", "head": None})
    assert weights(model) == 4 + 0 + 3
    assert weights(net) == 23


def test_the_frame_has_a_row_for_each_layer_with_what_is_lost():
    frame = FOUND.to_frame()
    assert list(frame.index) == ["conv", "fc1", "fc2"]
    assert list(frame.columns) == ["weight_bytes", "lost: int4", "lost: int8"]
    assert frame.loc["fc1", "weight_bytes"] == 4096
    assert frame.loc["conv", "lost: int4"] == pytest.approx(0.08)


def test_the_figure_has_a_line_for_each_change_and_a_place_for_each_layer():
    figure = FOUND.plot()
    (axes,) = figure.axes
    (key,) = figure.legends
    assert [t.get_text() for t in key.get_texts()] == ["nothing changed", "int4", "int8"]
    ticks = [t.get_text() for t in axes.get_xticklabels()]
    assert ticks == ["conv\n1 KiB", "fc1\n4 KiB", "fc2\n2 KiB"]
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    assert lines["int4"] == [0.90, 0.975, 0.50]
    assert lines["int8"] == [0.979, 0.98, 0.60]
    assert set(lines["nothing changed"]) == {0.98}
    assert axes.get_ylabel() == "quality"


def test_the_lines_of_the_figure_differ_in_more_than_their_colour():
    _, *others = FOUND.plot().axes[0].lines
    looks = {(line.get_marker(), line.get_linestyle()) for line in others}
    assert len(looks) == len(others) == 2
