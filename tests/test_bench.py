"""The figures: what they count, and that nothing of them is left running."""

from __future__ import annotations

import math
import random

import psutil
import pytest

from bench import __main__ as command
from bench import coverage, limits, memory, noise, overhead, peers, verdicts
from bench.report import Part, Row
from bench.work import loop, wait

pytestmark = pytest.mark.alone


def test_noise_ends_with_its_block():
    with noise.bursts(2) as processes:
        pids = [p.pid for p in processes]
        assert all(psutil.pid_exists(pid) for pid in pids)
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_noise_ends_with_an_error():
    pids = []

    def fail():
        with noise.bursts(1) as processes:
            pids.append(processes[0].pid)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not psutil.pid_exists(pids[0])


def test_the_t_test_sees_a_planted_difference_and_no_other():
    draw = random.Random(0)  # the same numbers every time
    base = [draw.gauss(1, 0.01) for _ in range(50)]
    assert peers.t_test([3 * t for t in base], base) == 1
    assert peers.t_test(base, [3 * t for t in base]) == -1
    assert peers.t_test(base, list(reversed(base))) == 0


@pytest.mark.parametrize(
    ("said", "claim"),
    [
        ("Mean +- std dev: [0] 9.1 us +- 0.2 us -> [1] 8.1 us +- 0.1 us: 1.12x faster", 1),
        ("Mean +- std dev: [0] 8.1 us +- 0.2 us -> [1] 9.1 us +- 0.1 us: 1.12x slower", -1),
        ("Benchmark hidden because not significant (1): timeit", 0),
        ("Mean +- std dev: [0] 8.1 us -> [1] 8.1 us: no change", 0),
    ],
)
def test_what_pyperf_prints_is_read(said, claim):
    assert peers.read_pyperf(said) == claim


def test_a_ranking_counts_beyond_two_percent():
    assert peers.rank(1.03, 1.0) == 1
    assert peers.rank(1.0, 1.03) == -1
    assert peers.rank(1.0, 1.01) == 0


def test_a_tally_counts_claims():
    tally = verdicts.Tally((1, 0, -1, -1), (1.0,) * 4)
    assert tally.count(1, -1) == 3
    assert tally.count(-1) == 2


def test_a_difference_of_three_times_is_found():
    tally = verdicts.compare_often(loop(1000), loop(3000), 2, budget_s=5)
    assert tally.claims == (-1, -1)
    assert all(0 < s < 30 for s in tally.times_s)


def test_a_peer_sees_a_difference_of_three_times():
    assert peers.ask("torch Timer + t-test", 1000, 3000)[0] == -1


def test_coverage_is_missed_by_a_wrong_truth():
    log_ratios = tuple(math.log(0.5) + 1e-3 * math.sin(i) for i in range(60))
    assert coverage.Truth(0.5, 0.5).is_always_in(log_ratios, 0.05)
    assert not coverage.Truth(0.6, 0.6).is_always_in(log_ratios, 0.05)
    assert coverage.Truth(0.49, 0.51).is_in(0.505, 0.6)


def test_a_wait_takes_its_time():
    before, after = coverage.wait_truth().low, coverage.wait_truth().high
    assert before < after < before * 1.001
    wait(100)()


def test_the_fresh_process_and_the_import_are_measured():
    part = overhead.start(quick=True)
    loads = part.rows[2]
    assert loads.met, loads.labkit


def test_the_limits_of_every_device_are_measured_beside_labkit():
    part = limits.limits(quick=True)
    assert [row.what for row in part.rows[:2]] == [
        "a large float32 product on cpu, share of the best rate",
        "a large copy on cpu, share of the best rate",
    ]
    assert all("%" in row.labkit for row in part.rows[:2])


def test_every_peer_says_something_about_memory():
    found = memory.measure_with_peers("native", 16)
    assert sorted(found) == sorted(memory.PEERS)
    assert found["tracemalloc"] == pytest.approx(16, abs=1)


def test_a_missed_target_is_named_and_fails_the_run(monkeypatch, capsys):
    rows = (Row("a", "at most 2", "1", True, {"peer": "9"}), Row("b", "at most 2", "3", False))
    monkeypatch.setattr(command, "PARTS", {"same": lambda *, quick: Part("Title", rows)})
    monkeypatch.setattr(command, "PACKAGES", ())
    assert command.main(["same"]) == 1
    printed = capsys.readouterr().out
    assert "| b | at most 2 | 3 | MISSED |  |" in printed
    assert "MISSED Title: b" in printed


def test_unknown_parts_and_writing_few_repetitions_are_refused(capsys):
    with pytest.raises(SystemExit):
        command.main(["nothing"])
    assert "there is no part 'nothing'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command.main(["same", "--write", "--quick"])
    assert "--write needs the full repetitions" in capsys.readouterr().err


def test_a_missing_peer_is_named_with_its_install_line(monkeypatch, capsys):
    monkeypatch.setattr(command, "PACKAGES", ("torch", "no-such-peer"))
    with pytest.raises(SystemExit):
        command.main([])
    assert "no-such-peer: not installed; pip install -e '.[bench]'" in capsys.readouterr().err


def test_a_part_takes_the_place_of_its_earlier_run():
    first = command.replace_part("", Part("One", (Row("a", "", "1", None),)))
    both = command.replace_part(first, Part("Two", (Row("b", "", "2", None),)))
    again = command.replace_part(both, Part("One", (Row("a", "", "3", None),)))
    assert again.count("## One") == again.count("## Two") == 1
    assert "| a |  | 3 |" in again
    assert "| a |  | 1 |" not in again
    assert again.index("## One") < again.index("## Two")


def test_the_origin_names_versions_and_no_path():
    text = command.origin()
    assert "labkit" in text
    assert "torch" in text
    assert "/" not in text
