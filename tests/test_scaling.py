"""Many machines on paper: exact arithmetic, published numbers, and layers that really run."""

import math
import random
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F  # noqa: N812  (its usual name)
from torch.utils.flop_counter import FlopCounterMode

from labkit.figures import to_png
from labkit.language_models import RECOMPUTE
from labkit.links import Link, Network
from labkit.scaling import (
    A100,
    GPT3_175B,
    H100,
    H200,
    LLAMA2_7B,
    LLAMA2_70B,
    LLAMA3_405B,
    LanguageModel,
    Split,
    bubble_share,
    data_parallel,
    needs,
    plan,
    predict,
    tensor_parallel_s,
    training_memory,
    weak_scaling,
)

SIZES = [2.0**i for i in range(10, 27, 2)]
LINK = Link(latency_s=20e-6, bytes_per_s=2e9)
LATENCIES = st.floats(1e-7, 1e-2)
RATES = st.floats(1e6, 1e12)


# Links.


def test_a_message_takes_the_latency_and_its_bytes():
    assert LINK.send_s(0) == 20e-6
    assert LINK.send_s(2e9) == pytest.approx(1 + 20e-6)


def test_collectives_of_two_ranks_are_one_exchange_or_two():
    n = 1e6
    assert LINK.reduce_scatter_s(n, 2) == pytest.approx(20e-6 + n / 2 / 2e9)
    assert LINK.all_gather_s(n, 2) == LINK.reduce_scatter_s(n, 2)
    assert LINK.all_reduce_s(n, 2) == pytest.approx(2 * 20e-6 + n / 2e9)
    assert LINK.broadcast_s(n, 2) == LINK.send_s(n)


@given(st.floats(0, 1e12), st.integers(1, 4096), st.sampled_from(["ring", "halving"]))
def test_an_all_reduce_is_a_reduce_scatter_and_an_all_gather(n, ranks, algorithm):
    parts = LINK.reduce_scatter_s(n, ranks, algorithm) + LINK.all_gather_s(n, ranks, algorithm)
    assert LINK.all_reduce_s(n, ranks, algorithm) == pytest.approx(parts)


def test_rings_pay_for_every_rank_and_halving_for_every_doubling():
    assert LINK.all_reduce_s(0, 1024) == pytest.approx(2 * 1023 * 20e-6)
    assert LINK.all_reduce_s(0, 1024, "halving") == pytest.approx(20 * 20e-6)
    without_latency = replace(LINK, latency_s=0)
    ring, halving = (without_latency.all_reduce_s(1e9, 1024, a) for a in ("ring", "halving"))
    assert ring == halving


def test_a_broadcast_takes_a_tree_for_short_messages_and_scatters_long_ones():
    assert LINK.broadcast_s(1, 8) == pytest.approx(3 * 20e-6, rel=1e-3)
    assert LINK.broadcast_s(2e9, 8) == pytest.approx(1.75, rel=1e-3)


def test_one_rank_sends_nothing():
    for seconds in (LINK.all_reduce_s(1e9, 1), LINK.broadcast_s(1e9, 1), LINK.all_gather_s(1e9, 1)):
        assert seconds == 0


@given(
    LATENCIES,
    RATES,
    st.sampled_from([("all_reduce", 2), ("all_reduce", 8), ("all_gather", 4), ("send", 2)]),
)
def test_a_fit_finds_the_link_that_made_the_points(latency_s, rate, collective):
    true = Link(latency_s, rate)
    sizes = [latency_s * rate * factor for factor in (0.01, 0.3, 1, 5, 100)]
    name, ranks = collective
    points = [(n, true.collective_s(name, n, ranks)) for n in sizes]
    found = Link.fit(points, collective=name, ranks=ranks)
    assert found.latency_s == pytest.approx(latency_s, rel=1e-6)
    assert found.bytes_per_s == pytest.approx(rate, rel=1e-6)
    assert found.within(1.0) < 1e-6


def noisy(seed, slow_share=0.25):
    draw = random.Random(seed)
    return [
        (n, LINK.all_reduce_s(n, 2) * draw.uniform(0.95, 1.05) * (10 if slow else 1))
        for n in SIZES
        for slow in (draw.random() < slow_share for _ in range(15))
    ]


@pytest.mark.parametrize("slow_share", [0.25, 0.55])
@pytest.mark.parametrize("seed", range(5))
def test_noise_and_slow_outliers_hardly_move_a_fit(seed, slow_share):
    found = Link.fit(noisy(seed, slow_share))
    assert found.latency_s == pytest.approx(LINK.latency_s, rel=0.1)
    assert found.bytes_per_s == pytest.approx(LINK.bytes_per_s, rel=0.1)


def test_a_fit_says_what_it_leaves_unexplained():
    found = Link.fit(noisy(0))
    assert 0.01 < found.within(0.5) < 0.06
    assert found.within(1.0) > 5
    assert "half of the points within" in str(found)
    assert "half of the points" not in str(LINK)


@pytest.mark.parametrize("place", range(len(SIZES)))
def test_one_size_that_was_slow_all_the_time_counts_little(place):
    points = [(n, LINK.all_reduce_s(n, 2)) for n in SIZES]
    points[place] = (points[place][0], 20 * points[place][1])
    found = Link.fit(points)
    assert found.bytes_per_s == pytest.approx(LINK.bytes_per_s, rel=0.25)
    assert found.latency_s == pytest.approx(LINK.latency_s, rel=0.25)


@given(
    st.lists(st.floats(1e-6, 1), min_size=3, max_size=8),
    st.floats(0, 2),
    st.floats(0.1, 2),
    st.floats(0, 1e-3),
)
def test_no_other_line_has_smaller_squares_of_relative_errors(times, steeper, longer, later):
    points = [(1000.0 * 3**i, t) for i, t in enumerate(times)]

    def off(start, slope):
        return sum(((start + slope * n) / t - 1) ** 2 for n, t in points)

    try:
        found = Link.fit(points, collective="send")
    except ValueError:
        # Then the best line that does not fall is flat.
        flat = sum(1 / t for t in times) / sum(t**-2 for t in times)
        best, slope = off(flat, 0), steeper * max(times) / points[-1][0]
        assert best <= off(longer * flat + later, slope) * (1 + 1e-9)
        return
    slope = 1 / found.bytes_per_s
    other = off(longer * found.latency_s + later, steeper * slope)
    assert off(found.latency_s, slope) <= other * (1 + 1e-9) + 1e-12


@pytest.mark.parametrize(
    ("points", "options", "words"),
    [
        ([(1e3, 1e-3)], {}, "at least two"),
        ([(1e3, 1e-3), (1e3, 2e-3)], {}, "at least two"),
        ([(1e3, 1e-3), (1e6, 1e-3)], {}, "larger messages than 1e+06"),
        ([(1e3, 1e-3), (1e6, -1)], {}, "above 0"),
        ([(1e3, 1e-3), (1e6, math.nan)], {}, "above 0"),
        ([(1e3, 1e-3), (1e6, 1)], {"collective": "gossip"}, "all_reduce"),
        ([(1e3, 1e-3), (1e6, 1)], {"ranks": 1}, "2 or more"),
    ],
)
def test_points_that_say_nothing_are_refused(points, options, words):
    with pytest.raises(ValueError) as refused:
        Link.fit(points, **options)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: Link(-1, 1e9), "latency_s=-1"),
        (lambda: Link(math.inf, 1e9), "latency_s=inf"),
        (lambda: Link(0, 0), "bytes_per_s=0"),
        (lambda: LINK.all_reduce_s(-1, 2), "-1 bytes"),
        (lambda: LINK.all_reduce_s(1, 0), "0 ranks"),
        (lambda: LINK.all_reduce_s(1, 2.0), "2.0 ranks"),
        (lambda: LINK.all_reduce_s(1, 2, "star"), "ring, halving"),
        (lambda: LINK.within(0.5), "Link.fit(points)"),
        (lambda: Link.fit(noisy(0)).within(0), "share=0"),
        (LINK.plot, "Link.fit(points)"),
        (lambda: Network(LINK, LINK, 0), "0 ranks"),
        (lambda: Network(LINK, LINK, 8, "star"), "ring, halving"),
    ],
)
def test_links_refuse_what_cannot_be(wrong, words):
    with pytest.raises(ValueError) as refused:
        wrong()
    assert words in str(refused.value)


# Nodes.


NODES = Network(inside=Link(1e-6, 400e9), between=Link(10e-6, 50e9), node_size=8)


def test_inside_a_node_only_its_own_link_counts():
    assert NODES.all_reduce_s(1e9, 8) == NODES.inside.all_reduce_s(1e9, 8)
    assert NODES.all_reduce_s(1e9, 4) == NODES.inside.all_reduce_s(1e9, 4)


def test_between_nodes_every_rank_sends_its_part():
    inside = NODES.inside.all_reduce_s(1e9, 8)
    between = NODES.between.all_reduce_s(1e9 / 8, 128, "halving")
    assert NODES.all_reduce_s(1e9, 1024) == pytest.approx(inside + between)


def test_a_group_with_one_rank_in_each_node_uses_the_network_alone():
    alone = NODES.between.all_reduce_s(1e9, 16, "halving")
    assert NODES.all_reduce_s(1e9, 16, per_node=1) == pytest.approx(alone)


# Data parallel.


def test_without_overlap_a_step_is_the_sum_and_with_it_the_last_bucket_remains():
    whole = LINK.all_reduce_s(200e6 / 8, 2) * 8
    step = data_parallel(1.0, 200e6, LINK, 2, bucket_bytes=25e6)
    assert step.step_s == pytest.approx(1.0 + whole)
    hidden = data_parallel(1.0, 200e6, LINK, 2, overlap=1, bucket_bytes=25e6)
    assert hidden.exposed_s == pytest.approx(whole / 8)


def test_no_more_is_hidden_than_the_backward_pass_is_long():
    slow = Link(0, 1e8)
    step = data_parallel(0.3, 1e9, slow, 2, overlap=1, bucket_bytes=1e7)
    assert step.exposed_s == pytest.approx(10 - 0.2)
    assert data_parallel(0.3, 1e9, slow, 2, overlap=0.5).exposed_s == pytest.approx(10 - 0.1)


def test_accumulation_pays_for_one_all_reduce_of_many_batches():
    one, eight = (data_parallel(0.1, 1e9, LINK, 8, accumulate=n) for n in (1, 8))
    assert eight.communication_s == one.communication_s
    assert eight.compute_s == pytest.approx(8 * one.compute_s)
    assert eight.efficiency > one.efficiency


def test_small_buckets_pay_more_latencies():
    few, many = (data_parallel(1, 1e8, LINK, 64, bucket_bytes=n) for n in (1e8, 1e6))
    gap = many.communication_s - few.communication_s
    assert gap == pytest.approx(99 * 2 * 63 * 20e-6)


@given(st.floats(1e-3, 10), st.floats(0, 1e11), st.integers(1, 4096), st.floats(0, 1))
def test_a_step_lies_between_computing_alone_and_no_overlap(compute_s, n, ranks, overlap):
    none = data_parallel(compute_s, n, NODES, ranks)
    some = data_parallel(compute_s, n, NODES, ranks, overlap=overlap)
    assert compute_s <= some.step_s <= none.step_s
    assert 0 < none.efficiency <= some.efficiency <= 1
    assert some.speedup <= ranks


def test_one_rank_alone_is_as_fast_as_it_was_measured():
    step = data_parallel(0.25, 1e9, LINK, 1)
    assert (step.step_s, step.speedup) == (0.25, 1)


def test_weak_scaling_has_a_row_for_each_number_of_ranks_and_says_what_it_assumes():
    found = weak_scaling(0.1, 1e8, H100.network, title="a model")
    assert [step.ranks for step in found.steps[0]] == [2**i for i in range(11)]
    text = str(found)
    assert text.splitlines()[1].startswith("1 ")
    assert "assumed: nodes of 8: 360 GB/s and 3.40 µs inside, 40 GB/s" in text
    assert "no rank is slower" in text
    frame = found.to_frame()
    assert len(frame) == 22
    assert frame.query("ranks == 1").efficiency.tolist() == [1, 1]
    html = found._repr_html_()
    assert html.count('<div class="labkit-result">') == html.count("<!-- labkit-result -->") == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"overlap": 1.5}, "overlap=1.5"),
        ({"overlap": math.nan}, "overlap=nan"),
        ({"accumulate": 0}, "accumulate=0"),
        ({"bucket_bytes": 0}, "bucket_bytes=0"),
        ({"compute_s": 0}, "compute_s=0"),
        ({"ranks": 0}, "0 ranks"),
        ({"gradient_bytes": -1}, "-1"),
    ],
)
def test_data_parallel_refuses_what_cannot_be(options, words):
    given_ = {"compute_s": 1, "gradient_bytes": 1e6, "network": LINK, "ranks": 2, **options}
    with pytest.raises(ValueError) as refused:
        data_parallel(**given_)
    assert words in str(refused.value)


def test_weak_scaling_needs_something_to_draw():
    with pytest.raises(ValueError, match="at least one"):
        weak_scaling(1, 1, LINK, ranks=())


# Pipelines and tensor parallel.


def simulated_bubble(stages, microbatches):
    """GPipe, event by event: a stage works when its input is there and it is free."""
    done, free = {}, [0] * stages
    forward = [(s, i) for i in range(microbatches) for s in range(stages)]
    for s, i in forward:
        free[s] = done["f", s, i] = max(free[s], done.get(("f", s - 1, i), 0)) + 1
    for i in range(microbatches):
        for s in reversed(range(stages)):
            ready = done.get(("b", s + 1, i), done["f", s, i])
            free[s] = done["b", s, i] = max(free[s], ready) + 2
    return 1 - 3 * microbatches / max(free)


@given(st.integers(1, 12), st.integers(1, 40))
@settings(max_examples=40)
def test_the_bubble_is_that_of_a_simulated_pipeline(stages, microbatches):
    assert bubble_share(stages, microbatches) == pytest.approx(
        simulated_bubble(stages, microbatches), abs=1e-12
    )


def test_tensor_parallel_sends_four_all_reduces_and_six_with_full_recomputation():
    n = 2 * 3 * LLAMA2_7B.sequence * LLAMA2_7B.hidden
    one = LINK.all_reduce_s(n, 8)
    four = tensor_parallel_s(LLAMA2_7B, LINK, 8, microbatch=3)
    assert four == pytest.approx(4 * one)
    again = tensor_parallel_s(LLAMA2_7B, LINK, 8, microbatch=3, recompute="full")
    assert again == pytest.approx(6 * one)
    assert tensor_parallel_s(LLAMA2_7B, LINK, 1) == 0


# Language models: published counts, and layers that really run.


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        (LanguageModel(12, 768, 12, 50257, 1024, family="gpt"), 124_439_808),
        (LLAMA2_7B, 6_738_415_616),
        (LLAMA2_70B, 68_976_648_192),
        (LLAMA3_405B, 405_853_388_800),
    ],
    ids=["GPT-2", "Llama 2 7B", "Llama 2 70B", "Llama 3 405B"],
)
def test_parameters_are_those_of_the_published_checkpoints(model, parameters):
    assert model.parameters == parameters


def test_a_gpt_layer_has_the_parameters_of_torchs_transformer_layer():
    model = LanguageModel(1, 64, 4, 100, 16, family="gpt")
    layer = nn.TransformerEncoderLayer(64, 4, 256)
    assert model.layer_parameters == sum(p.numel() for p in layer.parameters())


def dropout(x):
    # As on a GPU, where a mask has 1 byte a number.
    return torch.native_dropout(x, 0.1, True)[0]


class GptLayer(nn.Module):
    """As Korthikanti et al. (2022) count it: dropout after softmax and after both parts."""

    def __init__(self, model):
        super().__init__()
        h = model.hidden
        self.heads, self.first, self.second = model.heads, nn.LayerNorm(h), nn.LayerNorm(h)
        self.qkv, self.out = nn.Linear(h, 3 * h), nn.Linear(h, h)
        self.up, self.down = nn.Linear(h, 4 * h), nn.Linear(4 * h, h)

    def forward(self, x):
        b, s, h = x.shape
        q, k, v = self.qkv(self.first(x)).view(b, s, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = dropout(torch.softmax((q @ k.mT) * (h // self.heads) ** -0.5, -1))
        x = x + dropout(self.out((weights @ v).transpose(1, 2).reshape(b, s, h)))
        return x + dropout(self.down(F.gelu(self.up(self.second(x)))))


class LlamaLayer(nn.Module):
    """Grouped queries, a fused attention, a gated feed-forward part.

    LayerNorm keeps what a fused RMSNorm keeps: its input, and a number for each token.
    """

    def __init__(self, model):
        super().__init__()
        h, f = model.hidden, model.feed_forward
        keys = h * model.kv_heads // model.heads
        self.width = h // model.heads
        self.norms = nn.ModuleList(nn.LayerNorm(h, bias=False) for _ in range(2))
        self.q, self.k, self.v = (nn.Linear(h, n, bias=False) for n in (h, keys, keys))
        self.out, self.gate = nn.Linear(h, h, bias=False), nn.Linear(h, f, bias=False)
        self.up, self.down = nn.Linear(h, f, bias=False), nn.Linear(f, h, bias=False)

    def forward(self, x):
        y = self.norms[0](x)
        heads = [part(y).unflatten(-1, (-1, self.width)) for part in (self.q, self.k, self.v)]
        y = F.scaled_dot_product_attention(
            *(each.transpose(1, 2) for each in heads), is_causal=True, enable_gqa=True
        )
        x = x + self.out(y.transpose(1, 2).flatten(2))
        y = self.norms[1](x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


def kept_bytes(layer, x):
    """Bytes of what autograd keeps for the backward pass, parameters aside."""
    own = {p.untyped_storage().data_ptr() for p in layer.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        answer = layer(x)
    assert answer.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


GPT = LanguageModel(1, 256, 8, 100, 128, family="gpt")
LLAMA = LanguageModel(1, 256, 8, 100, 128, feed_forward=768, kv_heads=2)


@pytest.mark.parametrize(
    ("model", "make", "recompute"),
    [(GPT, GptLayer, "none"), (LLAMA, LlamaLayer, "selective")],
    ids=["gpt", "llama"],
)
def test_a_layer_keeps_the_bytes_that_are_counted(model, make, recompute):
    layer = make(model).bfloat16()
    x = torch.randn(3, model.sequence, model.hidden, dtype=torch.bfloat16, requires_grad=True)
    counted = model.layer_activation_bytes(3, recompute=recompute)
    # Beside it, a few numbers for each token: means, and sums of exponentials.
    assert counted <= kept_bytes(layer, x) <= 1.03 * counted


@pytest.mark.parametrize(
    ("model", "make"), [(GPT, GptLayer), (LLAMA, LlamaLayer)], ids=["gpt", "llama"]
)
def test_a_layer_takes_the_flops_that_are_counted(model, make):
    layer, x = make(model), torch.randn(3, model.sequence, model.hidden)
    products = sum(p.numel() for p in layer.parameters() if p.ndim == 2)
    with FlopCounterMode(display=False) as counter:
        layer(x)
    attention = 3 * model.sequence * model.attention_flops
    assert model.layer_flops == 2 * products + model.attention_flops
    # torch's counter does not know the fused attention of CPUs.
    known = counter.get_total_flops() + (attention if isinstance(layer, LlamaLayer) else 0)
    assert known == 3 * model.sequence * model.layer_flops


def test_training_flops_are_those_of_the_megatron_paper():
    # Narayanan et al. 2021, equation 3, with full recomputation.
    b, s, layers, h, v = 1, 2048, 96, 12288, 51200
    model = LanguageModel(layers, h, 96, v, s, family="gpt")
    theirs = 96 * b * s * layers * h**2 * (1 + s / (6 * h) + v / (16 * layers * h))
    assert s * model.executed_flops_per_token("full") == pytest.approx(theirs, rel=1e-12)
    assert model.executed_flops_per_token("none") == model.flops_per_token


def test_activations_are_those_of_korthikantis_table():
    s, b, h, a, t = 2048, 4, 6144, 64, 8
    model = LanguageModel(48, h, a, 51200, s, family="gpt")

    def counted(recompute, tensor, sequence_parallel):
        kept = model.layer_activation_bytes(
            b, recompute=recompute, tensor=tensor, sequence_parallel=sequence_parallel
        )
        return kept / (s * b * h)

    scores = 5 * a * s / h
    assert counted("none", 1, False) == pytest.approx(34 + scores)
    assert counted("none", t, False) == pytest.approx(10 + 24 / t + scores / t)
    assert counted("none", t, True) == pytest.approx((34 + scores) / t)
    assert counted("selective", t, False) == pytest.approx(10 + 24 / t)
    assert counted("selective", t, True) == pytest.approx(34 / t)
    assert counted("full", t, False) == pytest.approx(2)


def test_zero_shares_what_its_first_figure_says():
    # Rajbhandari et al. 2020, figure 1.
    totals = [training_memory(7.5e9, 64, zero=stage).total / 1e9 for stage in range(4)]
    assert [round(n, 1) for n in totals] == [120.0, 31.4, 16.6, 1.9]


@given(st.floats(1e6, 1e13))
def test_a_model_of_a_size_has_about_that_size_and_splits_evenly(parameters):
    model = LanguageModel.of_size(parameters)
    assert model.hidden == 128 * model.heads
    if parameters >= 1e9:
        # The embedding is not in the rule, and layers come in eights.
        assert 0.65 < model.parameters / parameters < 1.8
        assert model.layers % 8 == 0


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: LanguageModel(0, 64, 4), "layers=0"),
        (lambda: LanguageModel(2, 64, 5), "heads must divide hidden"),
        (lambda: LanguageModel(2, 64, 4, kv_heads=3), "kv_heads must divide heads"),
        (lambda: LanguageModel(2, 64, 4, family="rnn"), "llama, gpt"),
        (lambda: LanguageModel(2, 64, 4, feed_forward=0), "feed_forward=0"),
        (lambda: LanguageModel.of_size(7), "1e6"),
        (lambda: LLAMA2_7B.layer_activation_bytes(recompute="some"), "none, selective, full"),
        (lambda: training_memory(1e9, zero=4), "zero=4"),
        (lambda: training_memory(1e9, data=0), "data=0"),
        (lambda: bubble_share(0, 4), "stages=0"),
        (lambda: bubble_share(4, 4, interleave=0), "interleave=0"),
        (lambda: needs(LLAMA2_7B, mfu=0), "mfu=0"),
        (lambda: needs(LLAMA2_7B, tokens=-1), "tokens=-1"),
        (lambda: needs(LLAMA2_7B).days(0), "gpus=0"),
        (lambda: replace(H100, compute_share=1.5), "compute_share=1.5"),
        (lambda: replace(H100, network_bytes_per_s=0), "bytes_per_s=0"),
        (lambda: Split(data=0), "data=0"),
        (lambda: Split(zero=5), "zero=5"),
    ],
)
def test_models_refuse_what_cannot_be(wrong, words):
    with pytest.raises(ValueError) as refused:
        wrong()
    assert words in str(refused.value)


# Published runs. One assumed share of the peak for all of them: 0.75 to 1.25 times.


MEGATRON = [
    # billions, heads, hidden, layers, tensor, pipeline, GPUs, batch, micro-batch, parts, TFLOP/s
    (1.7, 24, 2304, 24, 1, 1, 32, 512, 16, 1, 137),
    (3.6, 32, 3072, 30, 2, 1, 64, 512, 16, 1, 138),
    (7.5, 32, 4096, 36, 4, 1, 128, 512, 16, 1, 142),
    (18.4, 48, 6144, 40, 8, 1, 256, 1024, 8, 1, 135),
    (39.1, 64, 8192, 48, 8, 2, 512, 1536, 4, 1, 138),
    (76.1, 80, 10240, 60, 8, 4, 1024, 1792, 2, 3, 140),
    (145.6, 96, 12288, 80, 8, 8, 1536, 2304, 2, 2, 148),
    (310.1, 128, 16384, 96, 8, 16, 1920, 2160, 1, 2, 155),
    (529.6, 128, 20480, 105, 8, 35, 2520, 2520, 1, 3, 163),
    (1008.0, 160, 25600, 128, 8, 64, 3072, 3072, 1, 1, 163),
]


@pytest.mark.parametrize("row", MEGATRON, ids=lambda row: f"{row[0]:g} G")
def test_megatron_runs_on_a100s_are_predicted(row):
    # Narayanan et al. 2021, table 1: full recomputation, which counts in their TFLOP/s. The
    # micro-batches and the interleaved parts of a rank are in the scripts of the authors
    # (NVIDIA/Megatron-LM, examples/sc21/run_table_1.sh).
    billions, heads, hidden, layers, tensor, pipeline, gpus, batch, b, parts, teraflops = row
    model = LanguageModel(layers, hidden, heads, 51200, 2048, family="gpt")
    assert model.parameters / 1e9 == pytest.approx(billions, abs=0.06)
    split = Split(
        *(gpus // (tensor * pipeline), tensor, pipeline, b, "full"),
        zero=0,
        interleave=parts,
        sequence_parallel=False,
    )
    found = predict(model, A100, split, batch)
    assert found.fits
    executed = model.executed_flops_per_token("full") * found.tokens_per_s / gpus / 1e12
    assert 0.75 < executed / teraflops < 1.25


KORTHIKANTI = [
    # layers, hidden, heads, tensor, pipeline, batch, micro-batch, parts, seconds (full), MFU
    (48, 6144, 64, 8, 1, 4, 4, 1, 1.42, 1.10, 0.415),
    (96, 12288, 96, 8, 8, 64, 1, 3, 18.13, 13.75, 0.514),
    (105, 20480, 128, 8, 35, 280, 1, 3, 49.05, 37.83, 0.560),
    (128, 25600, 160, 8, 64, 512, 1, 1, 94.42, 71.49, 0.563),
]


@pytest.mark.parametrize("row", KORTHIKANTI, ids=["22 G", "175 G", "530 G", "1 T"])
def test_runs_with_less_recomputation_are_predicted(row):
    # Korthikanti et al. 2022, tables 3 and 5, on A100s.
    layers, hidden, heads, tensor, pipeline, batch, b, parts, full_s, selective_s, mfu = row
    model = LanguageModel(layers, hidden, heads, 51200, 2048, family="gpt")
    gpus = tensor * pipeline
    theirs = model.flops_per_token * batch * 2048 / selective_s / gpus / A100.flops_per_s
    assert theirs == pytest.approx(mfu, abs=0.003)
    for recompute, seconds in (("full", full_s), ("selective", selective_s)):
        together = recompute == "selective"
        split = Split(
            *(1, tensor, pipeline, b, recompute),
            zero=0,
            interleave=parts,
            sequence_parallel=together,
        )
        found = predict(model, A100, split, batch)
        assert found.fits
        assert 0.75 < seconds / found.step_s < 1.25


@pytest.mark.parametrize(("gpus", "teraflops"), [(8192, 430), (16384, 400)])
def test_llama_3_on_h100s_is_predicted(gpus, teraflops):
    # Grattafiori et al. 2024, table 4: MFU 43 and 41 %, 16 M tokens in a step. Into how many
    # parts each rank's layers were interleaved is not said; 4 is in the middle of what can be.
    split = Split(gpus // 128, 8, 16, zero=2, interleave=4)
    found = predict(LLAMA3_405B, H100, split, batch=2048)
    assert 0.75 < found.flops_per_s / 1e12 / teraflops < 1.25


@pytest.mark.parametrize(
    ("model", "tokens", "gpus", "teraflops", "days"),
    [
        (GPT3_175B, 300e9, 1024, 140, 34),
        (LanguageModel(128, 25600, 160, 51200, 2048, family="gpt"), 450e9, 3072, 163, 84),
    ],
    ids=["GPT-3", "1 T"],
)
def test_training_times_are_those_of_the_megatron_paper(model, tokens, gpus, teraflops, days):
    # Narayanan et al. 2021, section 5.1, where recomputation counts in the TFLOP/s.
    useful = teraflops * model.flops_per_token / model.executed_flops_per_token("full")
    found = needs(model, A100, tokens=tokens, mfu=useful * 1e12 / A100.flops_per_s)
    assert found.days(gpus) == pytest.approx(days, rel=0.05)


# One step, and all splits.


def test_the_parts_of_a_step_add_up_and_the_bubble_has_its_share():
    split = Split(data=4, tensor=8, pipeline=8)
    found = predict(LLAMA2_70B, H100, split, batch=128)
    assert sum(found.times_s.values()) == pytest.approx(found.step_s)
    slots = found.times_s["compute"] + found.times_s["tensor"] + found.times_s["pipeline"]
    share = found.times_s["bubble"] / (slots + found.times_s["bubble"])
    assert share == pytest.approx(bubble_share(8, 128 // 4))


def test_one_gpu_waits_for_nobody():
    found = predict(LanguageModel.of_size(1e8), H100, Split(zero=0), batch=8)
    parts = {name for name, seconds in found.times_s.items() if seconds}
    assert parts == {"compute", "optimizer"}


def test_zero_stage_three_sends_half_as_much_again():
    # Rajbhandari et al. 2020, section 7: 3 times the parameters in place of 2.
    slow = replace(H100, compute_share=1.0, network_bytes_per_s=1e6)
    first, third = (
        predict(LLAMA2_7B, slow, Split(data=64, zero=zero), batch=64, overlap=0) for zero in (1, 3)
    )
    assert third.times_s["data"] == pytest.approx(1.5 * first.times_s["data"])


def test_a_longer_step_hides_more_and_a_faster_network_waits_less():
    step = {"model": LLAMA2_7B, "split": Split(data=64), "batch": 64}
    slow = replace(H100, network_bytes_per_s=5e9)
    assert predict(gpu=slow, **step).step_s > predict(gpu=H100, **step).step_s
    waits = [predict(gpu=slow, overlap=o, **step).times_s["data"] for o in (0, 0.5, 1)]
    assert waits == sorted(waits, reverse=True)
    assert waits[0] > waits[2]


def test_a_batch_that_does_not_come_out_even_is_refused_with_the_way_out():
    with pytest.raises(ValueError, match="need a multiple of 16"):
        predict(LLAMA2_7B, H100, Split(data=8, microbatch=2), batch=24)
    with pytest.raises(ValueError, match="64 stages, and 32 layers"):
        predict(LLAMA2_7B, H100, Split(pipeline=64), batch=64)


def splits_of(found):
    tried = [each.split for each in found.fitting] + [split for split, *_ in found.rejected]
    return {(split.data, split.tensor, split.pipeline) for split in tried}


def test_a_plan_tries_every_split_once_and_puts_the_fastest_that_fits_first():
    found = plan(LLAMA2_70B, H100, 96, batch=96)
    triples = {
        (d, t, p)
        for d in range(1, 97)
        for t in range(1, 97)
        for p in range(1, 97)
        if d * t * p == 96
    }
    assert splits_of(found) == triples
    assert len(found.fitting) + len(found.rejected) == len(triples)
    steps = [each.step_s for each in found.fitting]
    assert steps == sorted(steps)
    assert found.best is found.fitting[0]
    for each in found.fitting:
        split = each.split
        assert each.memory.total <= H100.limit_bytes
        assert split.tensor <= 8
        assert 64 % split.tensor == 80 % split.pipeline == 96 % split.data == 0


def test_a_plan_says_why_the_others_do_not_fit():
    found = plan(LLAMA2_70B, H100, 64, zero=(1,))
    reasons = {(s.data, s.tensor, s.pipeline): reason for s, reason, _ in found.rejected}
    assert reasons[4, 16, 1] == "tensor parallel beyond the 8 GPUs of a node"
    assert reasons[1, 1, 64] == "its stages do not divide 80 layers"
    assert reasons[64, 1, 1].startswith("more than 76 GB: weights 138 GB, gradients 138 GB")
    text = str(found)
    assert "no: more than 76 GB" in text
    assert "tensor 16, pipeline 1 and 5 more" in text
    assert "assumed: H100 SXM: 55 % of 989 TFLOP/s" in text
    odd = plan(LLAMA2_7B, H100, 3, batch=64)
    assert {reason for _, reason, _ in odd.rejected} == {
        "its data-parallel ranks do not divide 64 sequences",
        "its tensor-parallel ranks do not divide 32 heads",
        "its stages do not divide 32 layers",
    }
    uneven = plan(LLAMA2_7B, H100, 1, batch=3, microbatches=(2,))
    assert "no multiple of a micro-batch (2)" in uneven.rejected[0][1]


def test_what_is_to_be_tried_may_be_any_iterable():
    options = {"microbatches": (1, 2), "recompute": ("selective", "full"), "zero": (1, 3)}
    listed = plan(LLAMA2_7B, H100, 16, **options)
    streamed = plan(LLAMA2_7B, H100, 16, **{name: iter(v) for name, v in options.items()})
    assert [p.split for p in streamed.fitting] == [p.split for p in listed.fitting]


def test_interleaving_shortens_the_bubble_and_leaves_one_rank_alone():
    plain, mixed = (plan(LLAMA2_70B, H100, 64, interleave=v) for v in (1, 5))
    bubbles = [
        {(p.split.tensor, p.split.pipeline): p.times_s["bubble"] for p in found.fitting}
        for found in (plain, mixed)
    ]
    assert bubbles[1][4, 4] < bubbles[0][4, 4] / 3
    assert (8, 1) in bubbles[1]


def test_more_memory_fits_whatever_less_memory_fits():
    small, large = (plan(LLAMA2_70B, gpu, 64, zero=(1,)) for gpu in (H100, H200))
    names = [{str(each.split) for each in found.fitting} for found in (small, large)]
    assert names[0] < names[1]
    assert large.best.step_s <= small.best.step_s


def test_a_slower_network_is_never_faster_and_moves_the_plan():
    slow = plan(LLAMA2_70B, replace(H100, network_bytes_per_s=50e9 / 16), 512)
    fast = plan(LLAMA2_70B, H100, 512)
    assert slow.best.step_s > fast.best.step_s
    assert str(slow.best.split) != str(fast.best.split)


def test_where_nothing_fits_the_best_says_what_to_do():
    found = plan(LLAMA2_70B, H100, 8)
    with pytest.raises(ValueError, match=r"the least that one needs is .* Give more GPUs"):
        _ = found.best
    assert "0 fit" in str(found)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gpus": 0}, "gpus=0"),
        ({"batch": 0}, "batch=0"),
        ({"overlap": 2}, "overlap=2"),
        ({"microbatches": ()}, "at least one of each"),
        ({"zero": (7,)}, "zero=7"),
        ({"interleave": 0}, "interleave=0"),
        ({"recompute": ("some",)}, "none, selective, full"),
    ],
)
def test_a_plan_refuses_what_cannot_be(options, words):
    with pytest.raises(ValueError) as refused:
        plan(LLAMA2_7B, H100, **{"gpus": 8, **options})
    assert words in str(refused.value)


def test_a_plan_as_a_frame_has_all_splits_with_reasons():
    found = plan(LLAMA2_70B, H100, 64, zero=(1,))
    frame = found.to_frame()
    assert len(frame) == len(found.fitting) + len(found.rejected)
    assert frame.fits.sum() == len(found.fitting)
    assert (frame[~frame.fits].reason != "").all()
    top = frame.iloc[0]
    assert (top.data * top.tensor * top.pipeline, top.step_s) == (64, found.best.step_s)


@pytest.mark.parametrize(
    "result",
    [
        plan(LLAMA2_7B, H100, 64),
        plan(LLAMA2_70B, H100, 8),
        needs(LLAMA2_70B),
        predict(LLAMA2_7B, H100, Split(data=8), 64),
        weak_scaling(0.1, 1e8, LINK),
    ],
    ids=lambda result: type(result).__name__,
)
def test_everything_that_is_shown_says_what_it_assumes(result):
    assert "\nassumed: " in str(result)
    # In a notebook the short form stands beside the table: no number that could differ.
    assert "0x" not in repr(result)
    html = result._repr_html_()
    assert "Assumed:" in html
    assert html.startswith('<div class="labkit-result">')
    assert html.endswith("<!-- labkit-result -->")


def test_needs_are_those_of_the_formulas():
    found = needs(LLAMA2_70B, H100, tokens=2e12, mfu=0.4)
    assert found.flops == LLAMA2_70B.flops_per_token * 2e12
    assert found.gpu_s == pytest.approx(found.flops / (989e12 * 0.4))
    assert found.memory.total == 16 * LLAMA2_70B.parameters
    assert found.least_gpus == math.ceil(16 * LLAMA2_70B.parameters / 76e9)
    assert needs(LLAMA2_70B).tokens == 20 * LLAMA2_70B.parameters
    assert str(found.least_gpus) in str(found)


# Figures.


def texts(figure):
    found = [figure.get_supxlabel(), *(t.get_text() for a in figure.axes for t in a.texts)]
    return "\n".join(found)


def test_figures_have_their_assumptions_beneath():
    found = weak_scaling(0.1, 1e8, H100.network, overlaps=(0, 0.5, 1))
    for figure, assumptions in (
        (found.plot(), found.assumptions),
        (plan(LLAMA2_7B, H100, 64).plot(), plan(LLAMA2_7B, H100, 64).assumptions),
    ):
        written = " ".join(texts(figure).split())
        for assumption in assumptions:
            assert " ".join(assumption.split()) in written
        assert to_png(figure).startswith(b"\x89PNG")


def test_lines_and_bars_differ_without_colour():
    lines = weak_scaling(0.1, 1e8, LINK, overlaps=(0, 0.5, 1)).plot().axes[1].lines
    assert len({(line.get_marker(), line.get_linestyle()) for line in lines}) == 3
    for axes in plan(LLAMA2_70B, H100, 64).plot().axes:
        patterns = [bars.patches[0].get_hatch() for bars in axes.containers]
        assert len(set(patterns)) == len(patterns) >= 4


def test_the_figure_of_a_plan_marks_the_limit_and_what_exceeds_it():
    found = plan(LLAMA2_70B, H100, 64, zero=(1,))
    memory, time = found.plot(most=6).axes
    assert [line.get_xdata()[0] for line in memory.lines] == [H100.limit_bytes]
    ends = [
        sum(bars.patches[row].get_width() for bars in memory.containers)
        for row in range(len(memory.containers[0].patches))
    ]
    over = [end > H100.limit_bytes for end in ends]
    assert over == [False] * 6 + [True] * 3
    written = [text.get_text() for text in time.texts]
    assert [text == "does not fit" for text in written] == over


def test_a_plan_without_any_even_split_is_not_drawn():
    with pytest.raises(ValueError, match="no split comes out even"):
        plan(LLAMA2_7B, H100, 3, batch=64).plot()


def test_the_figure_of_a_link_shows_points_and_line():
    found = Link.fit(noisy(0))
    (axes,) = found.plot().axes
    dots, line = axes.lines
    assert len(dots.get_xdata()) == len(found.points)
    assert line.get_ydata()[-1] == pytest.approx(found.all_reduce_s(SIZES[-1], 2))


def test_the_module_loads_nothing_heavy():
    code = (
        "import sys, labkit.scaling\n"
        "heavy = {'torch', 'pandas', 'matplotlib', 'numpy'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("recompute", RECOMPUTE)
def test_recomputation_trades_memory_for_time(recompute):
    found = predict(LLAMA2_7B, H100, Split(data=8, recompute=recompute), batch=64)
    keeping = predict(LLAMA2_7B, H100, Split(data=8, recompute="none"), batch=64)
    assert found.memory.total <= keeping.memory.total
    assert found.step_s >= keeping.step_s
