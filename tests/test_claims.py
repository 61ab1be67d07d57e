"""Claims about results built by hand."""

from dataclasses import replace

import pytest

import labkit as lab
from labkit.machines import Machine, machine
from labkit.results import Comparison
from labkit.trials import PeakMemory, Trial

MIB = 2**20


def result(*, machine=None, memory=None, **times):
    trials = {
        name: Trial(
            name,
            tuple(t * (1 + 0.001 * (i * ord(name[0]) % 7)) for i in range(50)),
            tuple(range(50)),
        )
        for name, t in times.items()
    }
    return Comparison(trials, machine=machine, memory=memory or {})


def peak(n):
    return PeakMemory(n, 0, "cpu", "by hand")


@pytest.mark.parametrize(
    ("terms", "state"),
    [
        ({"faster_than": "slow"}, "CONFIRMED"),
        ({"faster_than": "slow", "by": 1.5}, "CONFIRMED"),
        ({"faster_than": "slow", "by": 3}, "REFUTED"),
        ({"faster_than": "slow", "by": 2.0}, "INCONCLUSIVE"),
        ({"slower_than": "slow"}, "REFUTED"),
        ({"same_as": "slow"}, "REFUTED"),
        ({"same_as": "twin"}, "CONFIRMED"),
        ({"same_as": "slow", "within": 1.5}, "CONFIRMED"),
        ({"less_memory_than": "slow"}, "INCONCLUSIVE"),
    ],
)
def test_a_claim_holds_fails_or_stays_open(terms, state, capsys):
    comparison = result(slow=2.0, fast=1.0, twin=1.0)
    claim = comparison.claim("fast", **terms)
    assert claim.state == state
    assert bool(claim) == (state == "CONFIRMED")
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert f"  {state}: " in printed


def test_memory_claims_use_the_measured_peaks():
    comparison = result(
        slow=2.0, fast=1.0, memory={"slow": peak(300 * MIB), "fast": peak(100 * MIB)}
    )
    assert comparison.claim("fast", less_memory_than="slow", by=2)
    assert not comparison.claim("fast", less_memory_than="slow", by=4)
    assert comparison.claim("slow", less_memory_than="fast").state == "REFUTED"


def test_a_few_pages_are_no_difference_in_memory():
    few = result(slow=2.0, fast=1.0, memory={"slow": peak(12_000), "fast": peak(4_000)})
    assert few.claim("fast", less_memory_than="slow", by=2).state == "INCONCLUSIVE"
    near = result(slow=2.0, fast=1.0, memory={"slow": peak(300 * MIB), "fast": peak(299 * MIB)})
    assert near.claim("fast", less_memory_than="slow").state == "INCONCLUSIVE"


def test_without_rounds_nothing_is_confirmed_or_refuted():
    empty = Comparison({"a": Trial("a", (), ()), "b": Trial("b", (), ())})
    for terms in ({"faster_than": "a"}, {"slower_than": "a"}, {"same_as": "a"}):
        assert empty.claim("b", **terms).state == "INCONCLUSIVE"


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({}, "exactly one of"),
        ({"faster_than": "slow", "slower_than": "slow"}, "exactly one of"),
        ({"faster_than": "slow", "within": 0.1}, "takes by="),
        ({"same_as": "slow", "by": 2}, "takes within="),
        ({"faster_than": "slow", "by": 0.5}, "at least 1"),
    ],
)
def test_terms_that_make_no_sentence_are_refused(terms, message):
    with pytest.raises(ValueError, match=message):
        result(slow=2.0, fast=1.0).claim("fast", **terms)


def test_an_unknown_variant_names_the_ones_there_are():
    with pytest.raises(KeyError, match="no variant 'int8'"):
        result(slow=2.0, fast=1.0).claim("int8", faster_than="slow")


def test_a_claim_on_a_device_that_is_not_here_needs_no_variant_on_it(monkeypatch):
    monkeypatch.setattr(Machine, "missing", lambda self, need: f"This machine has no {need}.")
    claim = result(machine=machine(), slow=2.0, fast=1.0).claim(
        "cuda:0", faster_than="slow", by=5, needs="cuda"
    )
    assert claim.state == "NOT HERE"
    assert "at least 5x faster (needs cuda)" in str(claim)


def test_an_experiment_that_cannot_run_here_is_not_run():
    @lab.experiment(size=[1])
    def impossible(size):
        raise RuntimeError("this must not be called")

    claim = impossible.claim("fast", faster_than="slow", needs="4000000 GiB")
    assert claim.state == "NOT HERE"


def test_a_check_asks_only_where_the_machine_has_what_it_needs():
    claim = lab.check("never asked", lambda: 1 / 0 > 0, needs="4000000 GiB")
    assert claim.state == "NOT HERE"
    assert lab.check("asked", lambda: True, needs="1 GiB").state == "CONFIRMED"
    assert lab.check("open", lambda: None).state == "INCONCLUSIVE"


def test_what_the_machine_lacks_is_taught_and_nothing_is_claimed(monkeypatch):
    monkeypatch.setattr(Machine, "missing", lambda self, need: f"This machine has no {need}.")
    comparison = result(machine=machine(), slow=2.0, fast=1.0)
    claim = comparison.claim("fast", faster_than="slow", needs="vnni")
    assert claim.state == "NOT HERE"
    assert not claim
    assert "This machine has no vnni." in str(claim)
    assert "(needs vnni)" in str(claim)


@pytest.mark.parametrize(
    ("held_cores", "state"),
    [(None, "CONFIRMED"), (62.05, "CONFIRMED"), (62.5, "NOT HERE"), (64.0, "NOT HERE")],
)
def test_cores_that_others_held_are_not_here(held_cores, state, capsys):
    wide = replace(machine(), usable_cores=64.0, visible_cores=64)
    comparison = replace(result(slow=2.0, fast=1.0, machine=wide), held_cores=held_cores)
    assert comparison.claim("fast", faster_than="slow", needs="2 free cores").state == state
    assert comparison.claim("fast", faster_than="slow", needs="2 cores").state == "CONFIRMED"
    assert ("Other programs used" in capsys.readouterr().out) is (state == "NOT HERE")


def test_free_cores_need_cores_first():
    narrow = replace(machine(), usable_cores=1.0, visible_cores=64)
    comparison = replace(result(slow=2.0, fast=1.0, machine=narrow), held_cores=0.0)
    claim = comparison.claim("fast", faster_than="slow", needs="2 free cores")
    assert claim.state == "NOT HERE"
    assert "1 may be used here" in claim.why
