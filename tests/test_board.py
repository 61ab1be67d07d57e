"""The board: what a folder of records says of a class, and what it must not say."""

from __future__ import annotations

import asyncio
import json
import math
import time
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from painted import contrasts_of_intervals

import labkit as lab
from labkit import figures
from labkit.board_panel import BoardPanel
from labkit.boards import Board, board
from labkit.caveats import noise, throttled
from labkit.errors import LabkitError
from labkit.files import seal
from labkit.machines import Accelerator, Machine
from labkit.sweeps import Sweep, SweepPoint
from labkit.trials import Failure, Trial

ROOT = Path(__file__).resolve().parent.parent
CLASS = ROOT / "data" / "class"
ROUNDS = 20
OLD, NEW = ("avx2",), ("avx2", "avx512f", "vnni")


@pytest.fixture(autouse=True)
def _nobody(monkeypatch):
    monkeypatch.delenv("LABKIT_NAME", raising=False)
    monkeypatch.delenv("LABKIT_RECORDS", raising=False)


def computer(name="box", **changes):
    about = {
        "processor": name,
        "architecture": "x86_64",
        "isa": OLD,
        "visible_cores": 4,
        "usable_cores": 4.0,
        "memory_bytes": 8 * 2**30,
        "memory_limit_bytes": None,
        "swap_bytes": 0,
        "cache_bytes": {},
        "accelerators": (),
        "system": "Linux 6.1",
        "python": "3.11.7",
        "versions": {"torch": "2.13.0"},
    }
    return Machine(**{**about, **changes})


def spread(speedup, width=1.0):
    """Ratios of the rounds: a median, and an interval of twice this width (as a factor)."""
    ends = [math.log(speedup / width), math.log(speedup), math.log(speedup * width)]
    return [ends[i % 3] for i in range(3 * ROUNDS)]


def comparison(speedup=2.0, *, width=1.0, at=0, **changes):
    """float32 against int8, as if measured ``at`` minutes after the beginning."""
    ratios = spread(speedup, width)
    rounds = tuple(range(len(ratios)))
    times = {"float32": (1e-3,) * len(ratios), "int8": tuple(1e-3 / math.exp(r) for r in ratios)}
    about = {
        "title": "matmul",
        "parameters": {"size": 256},
        "machine": computer(),
        "started_utc": f"2026-11-21T20:{at:02d}:00+00:00",
        "duration_s": 1.0,
    }
    trials = {name: Trial(name, t, rounds) for name, t in times.items()}
    return lab.Comparison(trials, **{**about, **changes})


@pytest.fixture
def keep(tmp_path):
    """Writes one record, and gives the board of the folder."""

    def save(result, person=""):
        result.save(tmp_path, person=person)
        return board(tmp_path)

    return save


# The machines.


def test_each_machine_is_a_row_with_its_own_interval(keep):
    keep(comparison(2.0, machine=computer("a")), "Ada")
    found = keep(comparison(0.5, machine=computer("b"), at=1)).view("matmul")
    assert [(row.seat.label, row.run.ratio.verdict.value) for row in found.rows] == [
        ("Ada", "faster"),
        ("machine 2", "slower"),
    ]
    assert found.sentences[0] == (
        "matmul (size=256): int8 against float32: 2 machines, 1 faster, 1 slower; "
        "from 0.500x (machine 2) to 2.00x (Ada)."
    )


def test_seconds_of_different_machines_stand_nowhere(keep):
    keep(comparison(2.0, machine=computer("a")))
    found = keep(comparison(2.0, machine=computer("b")))
    for frame in (found.to_frame(), found.view().to_frame()):
        assert not [name for name in frame.columns if name.endswith("_s")]


def test_other_parameters_are_another_question(keep):
    keep(comparison(2.0, machine=computer("a")))
    keep(comparison(2.0, machine=computer("b")))
    found = keep(comparison(9.0, machine=computer("c"), parameters={"size": 512}))
    assert [q.parameters for q in found.questions] == ["size=256", "size=512"]
    assert len(found.view("matmul").rows) == 2
    assert "1 more machine measured this experiment with other parameters" in str(found.view())
    assert found.view(parameters={"size": 512}).rows[0].run.ratio.speedup == pytest.approx(9)


def test_another_baseline_is_another_question(keep):
    keep(comparison())
    one = comparison()
    turned = {name: one.trials[name] for name in reversed(one.names)}
    assert len(keep(replace(one, trials=turned, started_utc="2026")).questions) == 2


def test_of_several_runs_the_newest_counts_and_the_others_are_said(keep):
    keep(comparison(3.0, at=9), "Ada")
    found = keep(comparison(2.0, at=1), "Ada").view()
    (row,) = found.rows
    assert row.run.ratio.speedup == pytest.approx(3.0)
    assert [run.ratio.speedup for run in row.others] == [pytest.approx(2.0)]
    assert "Several runs, of which the newest counts: Ada (2)." in found.sentences


def test_a_newest_run_without_an_interval_does_not_hide_an_older_one(keep):
    keep(comparison(2.0), "Ada")
    short = comparison(3.0, at=5)
    trials = {
        n: replace(t, times_s=t.times_s[:3], rounds=t.rounds[:3]) for n, t in short.trials.items()
    }
    (row,) = keep(replace(short, trials=trials), "Ada").view().rows
    assert row.run.ratio.speedup == pytest.approx(2.0)


def test_a_variant_that_failed_is_a_row_that_says_so(keep):
    keep(comparison(2.0, machine=computer("a")))
    one = comparison(machine=computer("b"), at=1)
    trials = {**one.trials, "int8": Trial("int8", (), ())}
    failed = {"int8": Failure("int8", "setup", "raised", "ValueError: no")}
    found = keep(replace(one, trials=trials, failures=failed)).view()
    assert [row.seat.label for row in found.known] == ["machine 1"]
    assert "No interval yet: machine 2." in found.sentences
    assert found.table()[1][1][3] == "raised during setup: ValueError: no"
    assert found.plot() is not None


def test_the_points_of_a_sweep_are_questions_of_their_own(keep):
    points = tuple(
        SweepPoint({"size": n}, comparison(n / 100, parameters={"size": n})) for n in (64, 256)
    )
    failed = SweepPoint({"size": 512}, None, "MemoryError")
    found = keep(Sweep(("size",), (*points, failed), title="matmul"), "Ada")
    assert [q.parameters for q in found.questions] == ["size=256", "size=64"]
    keep(comparison(2.5, machine=computer("b"), at=3), "Bo")
    assert len(found.again().view(parameters="size=256").rows) == 2


def test_a_name_on_two_machines_names_the_machine(keep):
    keep(comparison(machine=computer("a")), "Ada")
    found = keep(comparison(machine=computer("b"), at=1), " Ada ")
    assert [seat.label for seat in found.seats] == ["Ada (machine 1)", "Ada (machine 2)"]


def test_unnamed_records_of_one_kind_of_machine_are_one_row(keep):
    keep(comparison())
    assert [row.seat.label for row in keep(comparison(at=1)).view().rows] == ["machine 1"]


def test_one_speedup_that_fits_all_is_no_difference(keep):
    keep(comparison(2.0, width=1.2, machine=computer("a")))
    found = keep(comparison(2.1, width=1.2, machine=computer("b"))).view()
    assert "One speed-up fits all 2 intervals" in str(found)
    found = keep(comparison(4.0, machine=computer("c"))).view()
    assert "One speed-up" not in str(found)


def test_caveats_of_the_ratio_are_named_and_others_are_not(keep):
    about = [
        throttled(0.3),
        replace(noise(0.2), kind="drift"),
        replace(noise(0.2), variant="other"),
    ]
    found = keep(comparison(caveats=tuple(about)), "Ada").view()
    assert found.rows[0].run.caveats == ("throttled",)
    assert "With caveats: Ada (throttled)." in found.sentences


# The guesses.


def guessed(keep, **guesses):
    """Everybody on a machine of their own; a guess, or (guess, speed-up, width)."""
    for number, (person, about) in enumerate(guesses.items()):
        said, seen, width = about if isinstance(about, tuple) else (about, 2.0, 1.01)
        one = comparison(seen, width=width, prediction=said, machine=computer(person), at=number)
        found = keep(one, person)
    return found.view()


def test_who_was_closest_on_a_log_scale(keep):
    # 1.5 is 1.33 times off, 2.5 only 1.25 times.
    found = guessed(keep, Ada=1.5, Bo=2.5, Chiara=20.0)
    assert [guess.label for guess in found.guesses] == ["Bo", "Ada", "Chiara"]
    assert found.guess_sentences[0] == "Closest: Bo (2.50x)."
    assert found.guess_sentences[-1] == (
        "Farthest: Chiara said 20.0x; int8 is 2.00x [1.98x, 2.02x]: 10 times less than said."
    )


def test_guesses_in_the_interval_share_the_first_place(keep):
    found = guessed(keep, Ada=2.0, Bo=2.01, Chiara=3.0)
    assert {guess.label for guess in found.closest} == {"Ada", "Bo"}
    assert "Closest, and not told apart by the intervals: Ada (2.00x) and Bo (2.01x)." in str(found)
    assert list(found.guesses_frame()["closest"]) == [True, True, False]


def test_a_wide_interval_is_no_merit(keep):
    found = guessed(keep, Ada=2.0, Bo=(3.9, 2.0, 2.0))
    assert {guess.label for guess in found.closest} == {"Ada", "Bo"}
    assert "The interval of Bo is so wide that many guesses would lie in it." in str(found)
    assert found.guesses[-1].judged == "in the interval, which is wide"


def test_a_guess_beside_a_wide_interval_may_still_be_the_closest(keep):
    # Bo may be off by 1.1 to 4.4 times, Ada by 2.96 to 3.03: nobody knows who was closer.
    found = guessed(keep, Ada=6.0, Bo=(4.4, 2.0, 2.0))
    assert {guess.label for guess in found.closest} == {"Ada", "Bo"}
    assert found.guess_sentences[0].startswith("The intervals do not tell the guesses apart")


def test_a_persons_first_guess_counts(keep):
    keep(comparison(2.0, prediction=8.0), "Ada")
    found = keep(comparison(2.0, prediction=2.0, at=5), "Ada").view()
    assert [guess.predicted for guess in found.guesses] == [8.0]


def test_guesses_without_a_name_are_all_shown_with_a_warning(keep):
    keep(comparison(2.0, width=1.01, prediction=8.0))
    keep(comparison(2.0, width=1.01, prediction=8.0, at=1))
    found = keep(comparison(2.0, width=1.01, prediction=2.0, at=2)).view()
    labels = ["machine 1, guess 2", "machine 1, guess 1"]
    assert [guess.label for guess in found.guesses] == labels
    assert "whether of one person or of several is not known" in str(found)


def test_a_prediction_is_of_the_last_variant_alone(keep):
    one = comparison(prediction=3.0)
    trials = {**one.trials, "bf16": replace(one.trials["int8"], name="bf16")}
    found = keep(replace(one, trials=trials))
    assert found.view(variant="int8").guesses == ()
    assert [guess.predicted for guess in found.view(variant="bf16").guesses] == [3.0]
    assert found.view(variant="int8").guess_sentences == ["Nobody predicted this result."]


def test_a_result_without_an_interval_judges_nobody(keep):
    one = comparison(prediction=3.0)
    trials = {
        n: replace(t, times_s=t.times_s[:3], rounds=t.rounds[:3]) for n, t in one.trials.items()
    }
    found = keep(replace(one, trials=trials), "Ada").view()
    assert found.guess_sentences == ["There is no interval yet to hold these guesses against: Ada."]


# The facts.


def measured(keep, machines):
    for number, (speedup, machine) in enumerate(machines):
        found = keep(comparison(speedup, width=1.05, machine=machine, at=number), f"p{number}")
    return found.view()


def test_a_fact_that_divides_the_machines_is_told_with_both_groups(keep):
    olds = [
        (1.0 + i / 10, computer(isa=OLD, memory_bytes=n * 2**30)) for i, n in enumerate((8, 16, 32))
    ]
    news = [
        (4.0 + i / 10, computer(isa=NEW, memory_bytes=n * 2**30)) for i, n in enumerate((8, 16, 32))
    ]
    found = measured(keep, olds + news)
    (split,) = found.splits
    assert split.facts == ("avx512f", "vnni")
    assert found.fact_sentences == [
        (
            "All 3 machines with avx512f: between 3.81x and 4.41x; all 3 without: "
            "between 0.952x and 1.26x."
        ),
        "The same machines have vnni: these records cannot tell which of the facts matters.",
        # Divisions: avx512f and vnni (one), 16 GiB, 32 GiB: 2/20 + 2/15 + 2/15.
        (
            "With 6 machines and 3 divisions looked at, chance alone would do this in up to 40 % "
            "of all cases: it may be chance."
        ),
        "That a fact and a speed-up go together does not say that one causes the other.",
    ]
    assert split.chance == pytest.approx(2 / 20 + 2 / 15 + 2 / 15)


def test_with_many_machines_chance_is_an_unlikely_explanation(keep):
    machines = [(1 + i / 100, computer(usable_cores=1.0)) for i in range(6)]
    machines += [(2 + i / 100, computer(usable_cores=8.0)) for i in range(6)]
    found = measured(keep, machines)
    assert found.fact_sentences[0].startswith("All 6 machines with at least 8 usable cores")
    assert "would do this in at most 0.2 % of all cases." in found.fact_sentences[1]


def test_groups_that_overlap_are_no_fact(keep):
    found = measured(keep, [(s, computer(isa=NEW if s > 2.5 else OLD)) for s in (1, 2, 3, 4)])
    assert found.splits
    found = measured(keep, [(2.4, computer(isa=NEW, processor="late"))])
    assert found.splits
    found = measured(keep, [(1.5, computer(isa=NEW, processor="later"))])
    assert found.fact_sentences == [
        "No recorded fact divides these 6 machines into two groups whose intervals do not overlap."
    ]


def test_three_machines_are_too_few_for_facts(keep):
    found = measured(keep, [(1, computer()), (2, computer()), (9, computer(isa=NEW))])
    assert found.splits == ()
    assert "that needs four machines with an interval, and there are 3" in found.fact_sentences[0]


def test_a_single_machine_divides_nothing(keep):
    machines = [(1, computer(isa=NEW)), *((2 + i, computer()) for i in range(3))]
    assert measured(keep, machines).splits == ()


def test_what_is_not_known_of_all_divides_nothing(keep):
    gpu = (Accelerator("cuda", "H200"),)
    facts = [gpu, gpu, None, ()]
    machines = [(4 - i, computer(accelerators=a)) for i, a in enumerate(facts)]
    assert measured(keep, machines).splits == ()


def test_limits_and_caveats_are_facts(keep, tmp_path):
    limited = computer(limits={"ONEDNN_MAX_CPU_ISA": "AVX2"})
    for number, (speedup, machine, caveats) in enumerate(
        [
            (1, limited, (throttled(0.3),)),
            (1.2, limited, ()),
            (3, computer(), ()),
            (4, computer(), ()),
        ]
    ):
        one = comparison(speedup, machine=machine, at=number, caveats=caveats)
        found = keep(one, f"p{number}")
    facts = found.view().splits[0].facts
    assert facts == ("limit ONEDNN_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA=AVX2")


# The folder.


def test_without_records_it_says_how_to_get_them(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        found = lab.board(folder)
        text = str(found)
        assert f"There are no records in {folder} yet." in text
        for word in ("LABKIT_RECORDS", "keep a record", "LABKIT_NAME", "Download everything"):
            assert word in text
        with pytest.raises(LabkitError, match="LABKIT_RECORDS"):
            found.view()
        assert "LABKIT_RECORDS" in found.panel()._about.value


def test_without_a_folder_it_takes_the_one_of_LABKIT_RECORDS(tmp_path, monkeypatch):  # noqa: N802
    comparison().save(tmp_path)
    monkeypatch.setenv("LABKIT_RECORDS", str(tmp_path))
    assert lab.board().records == 1


def test_files_that_are_no_records_are_named_and_the_others_are_there(keep, tmp_path):
    one = comparison()
    whole = seal(one.to_dict())
    (tmp_path / "half.json").write_text(whole[: len(whole) // 2])
    (tmp_path / "foreign.json").write_text('{"cells": []}')
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "picture.json").write_bytes(b"\x89PNG\x00\xff")
    (tmp_path / "folder.json").mkdir()
    zero = {"float32": Trial("float32", (0.0,) * 20, tuple(range(20))), "int8": one.trials["int8"]}
    (tmp_path / "zero.json").write_text(seal(replace(one, trials=zero).to_dict()))
    single = {"int8": one.trials["int8"]}
    (tmp_path / "single.json").write_text(seal(replace(one, trials=single).to_dict()))
    odd = {**one.to_dict(), "prediction": "high", "title": None}
    (tmp_path / "odd.json").write_text(seal(odd, person="a\nb" + "c" * 99))
    found = keep(comparison(at=3))
    wrong = {"half", "foreign", "list", "picture", "folder", "zero", "single"}
    assert {name.removesuffix(".json") for name in found.skipped} == wrong
    assert "ValueError" in found.skipped["zero.json"]
    assert found.records == 2
    assert len(found.sentences) == 1 + 5 + 1
    assert found.sentences[-1] == "2 more files were not read."
    for question in found.questions:
        view = found.view_of(question)
        assert view.sentences
        assert view.plot() is not None


def test_a_copy_counts_once(keep, tmp_path):
    keep(comparison())
    (path,) = tmp_path.glob("*.json")
    (tmp_path / "copy.json").write_bytes(path.read_bytes())
    found = board(tmp_path)
    assert found.records == 1
    assert "a copy of" in next(iter(found.skipped.values()))


def test_nothing_new_is_the_same_board_and_numbers_stay(keep, tmp_path):
    found = keep(comparison(machine=computer("b"), at=9))
    assert found.again() is found
    comparison(machine=computer("a"), at=1).save(tmp_path)
    later = found.again()
    assert later is not found
    assert [(seat.number, seat.machine.processor) for seat in later.seats] == [(1, "b"), (2, "a")]


def test_a_file_that_was_half_there_is_read_when_it_is_whole(tmp_path):
    whole = seal(comparison().to_dict())
    path = tmp_path / "slow.json"
    path.write_text(whole[:500])
    found = board(tmp_path)
    assert (found.records, list(found.skipped)) == (0, ["slow.json"])
    path.write_text(whole)
    assert (found.again().records, found.again().skipped) == (1, {})


def test_a_folder_that_is_gone_for_a_while_loses_nothing(keep, tmp_path):
    found = keep(comparison())
    away = tmp_path.with_name("away")
    tmp_path.rename(away)
    lost = found.again()
    assert lost.records == 1
    assert "cannot be read now: there is no such folder" in lost.sentences[0]
    assert lost.again() is lost
    away.rename(tmp_path)
    assert lost.again().sentences == found.sentences


def test_what_nobody_measured_is_refused_with_what_there_is(keep):
    found = keep(comparison())
    with pytest.raises(ValueError, match=r"experiment 'x' is in no record; there are \['matmul'\]"):
        found.view("x")
    with pytest.raises(
        ValueError, match=r"variant 'float32' is in no record; there are \['int8'\]"
    ):
        found.view(variant="float32")


def many(folder, count, *, people=30):
    for number in range(count):
        person = number % people
        one = comparison(
            1 + person / 10,
            width=1.05,
            machine=computer(f"processor {person % 7}", isa=NEW if person > 14 else OLD),
            prediction=1.0 + (number % 11) / 2,
            parameters={"size": 2 ** (6 + number // people % 5)},
            caveats=(noise(0.2),) if number % 3 == 0 else (),
        )
        text = seal(one.to_dict(), person=f"person {person}")
        (folder / f"{number}.json").write_text(text)


def test_three_hundred_records_are_quick(tmp_path):
    many(tmp_path, 300)
    found = board(tmp_path)
    assert (found.records, len(found.seats), len(found.questions)) == (300, 30, 5)
    began_s = time.perf_counter()
    for _ in range(5):
        assert found.again() is found
    assert time.perf_counter() - began_s < 5 * 0.2
    comparison(at=59).save(tmp_path, person="late")
    began_s = time.perf_counter()
    found.again().view("matmul").sentences  # noqa: B018
    assert time.perf_counter() - began_s < 1


# The figures.


@pytest.mark.parametrize("count", [1, 30])
def test_every_machine_has_its_line_and_its_numbers(tmp_path, count):
    many(tmp_path, count)
    view = board(tmp_path).view("matmul")
    for figure, rows in ((view.plot(), view.rows), (view.guesses_plot(), view.guesses)):
        (axes,) = figure.axes
        assert len(axes.get_yticklabels()) == len(rows) == count
        texts = [text.get_text() for text in axes.texts]
        assert len(texts) == count
        assert all("x" in text for text in texts)
        assert figure.get_figheight() >= 0.22 * count
        # What is read aloud must have an end.
        assert figure.description.endswith(".")
        assert len(figure.description) < 1000


def test_hollow_marks_are_those_with_caveats(keep):
    keep(comparison(machine=computer("a"), caveats=(throttled(0.3),)))
    figure = keep(comparison(3.0, machine=computer("b"), at=1)).view().plot()
    drawn = [
        line for line in figure.axes[0].lines if line.get_marker() == ">" and len(line.get_xdata())
    ]
    assert [line.get_markerfacecolor() == "white" for line in drawn] == [False, True]
    assert "hollow: with caveats" in [text.get_text() for text in figure.legends[0].texts]


def test_any_name_can_be_drawn_and_none_is_markup(keep):
    names = ["$\\frac{", "李雷", "🚀", "x" * 200, "<b>&"]
    for number, person in enumerate(names):
        found = keep(comparison(5 - number, prediction=2.0, at=number), person)
    panel = found.panel()
    for part in panel._parts[:2]:
        assert "<b>" not in part.value
        assert "&lt;b&gt;&amp;" in part.value
    labels = [label.get_text() for label in found.view().plot().axes[0].get_yticklabels()]
    assert labels == ["$\\frac{", "machine 2", "machine 3", "x" * 16 + "…" + "x" * 9, "<b>&"]


def test_ends_of_a_hopeless_interval_do_not_flatten_the_others(keep):
    keep(comparison(2.0, machine=computer("a")))
    view = keep(comparison(2.0, width=1000, machine=computer("b"), at=1)).view()
    low, high = view.plot().axes[0].get_xlim()
    assert 0.3 < low < 1
    assert 2 < high < 10


def test_every_figure_says_in_words_what_it_shows(keep):
    machines = [computer(isa=NEW), computer(isa=NEW), computer(), computer()]
    for number, machine in enumerate(machines):
        one = comparison(4 - number, machine=machine, prediction=2.0, at=number)
        view = keep(one, f"p{number}").view()
    for figure, words in (
        (view.plot(), "4 machines"),
        (view.guesses_plot(), "Farthest"),
        (view.facts_plot(), "Both machines with avx512f: between"),
    ):
        assert words in figure.description


def test_intervals_stand_out_as_they_are_painted_however_many_overlap(keep):
    for number in range(12):
        machine = computer(isa=NEW if number % 2 else OLD)
        about = {"width": 1.2, "machine": machine, "prediction": 3.0, "at": number}
        view = keep(comparison(8.0 if number % 2 else 1.2, **about), f"p{number}").view()
    for figure in (view.plot(), view.guesses_plot(), view.facts_plot()):
        assert min(contrasts_of_intervals(figure)) >= 3
    (axes,) = view.facts_plot().axes
    assert min(figures.contrast(band.get_edgecolor(), "white") for band in axes.patches) >= 3


# The panel.


def test_the_panel_shows_what_arrives_and_follows_its_controls(keep, tmp_path):
    keep(comparison(2.0, prediction=2.0), "Ada")
    panel = board(tmp_path).panel()
    assert "1 record of 1 experiment" in panel._about.value
    machines, guesses, facts = (part.value for part in panel._parts)
    assert 'alt="The same experiment on each machine: matmul (size=256)' in machines
    assert "Closest: Ada (2.00x)." in guesses
    assert "needs four machines" in facts
    assert not panel.look()
    comparison(5.0, title="other", at=1).save(tmp_path, person="Bo")
    assert panel.look()
    assert [value for _, value in panel._experiment.options] == ["matmul", "other"]
    assert panel._experiment.value == "matmul"
    panel._experiment.value = "other"
    assert panel.view.question.experiment == "other"
    assert "5.00x" in panel._parts[0].value


def test_the_panel_keeps_its_question_while_records_arrive(keep, tmp_path):
    keep(comparison())
    panel = keep(comparison(parameters={"size": 512})).panel()
    panel._parameters.value = "size=512"
    for number in range(3):
        comparison(machine=computer(str(number))).save(tmp_path)
    assert panel.look()
    assert panel._parameters.value == panel.view.question.parameters == "size=512"


def test_another_folder_may_be_opened_and_a_wrong_one_is_said(keep, tmp_path):
    panel = keep(comparison()).panel()
    panel._folder.value = str(tmp_path / "nowhere")
    assert "there is no such folder" in panel._about.value
    assert panel.view is None
    assert panel._parts[0].value == ""
    panel._folder.value = ""
    assert "give the path of a folder" in panel._message.value
    panel._folder.value = str(tmp_path)
    assert panel.view is not None
    assert panel._message.value == ""


def test_it_looks_by_itself_on_the_kernels_loop(tmp_path, monkeypatch):
    monkeypatch.setattr("labkit.board_panel._LOOK_S", 0.01)
    asyncio.run(looks_by_itself(tmp_path))


async def looks_by_itself(tmp_path):
    panel = board(tmp_path).panel()
    assert panel.watching
    comparison().save(tmp_path)
    await until(lambda: panel.view is not None)
    panel.watch(on=False)
    again = board(tmp_path).panel()
    assert again.watching
    panel.watch()
    newest = board(tmp_path).panel()
    assert newest.watching
    assert not again.watching
    newest.watch(on=False)


def test_a_look_that_goes_wrong_is_said_and_the_next_one_comes(tmp_path, monkeypatch):
    monkeypatch.setattr("labkit.board_panel._LOOK_S", 0.01)
    asyncio.run(goes_wrong(tmp_path, monkeypatch))


async def goes_wrong(tmp_path, monkeypatch):
    panel = board(tmp_path).panel()
    with monkeypatch.context() as broken:
        broken.setattr(Board, "again", lambda _: 1 / 0)
        await until(lambda: "ZeroDivisionError" in panel._message.value)
    comparison().save(tmp_path)
    await until(lambda: panel.view is not None and not panel._message.value)
    panel.watch(on=False)


async def until(holds):
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - a widget has no event to wait for
            await asyncio.sleep(0.01)


def test_where_widgets_do_not_run_the_sentences_stand(keep):
    panel = keep(comparison(prediction=3.0), "<i>Ada</i>").panel()
    bundle = panel._repr_mimebundle_()
    assert "&lt;i&gt;Ada&lt;/i&gt;" in bundle["text/html"]
    assert "<i>" not in bundle["text/html"]
    assert bundle["text/plain"].startswith("BoardPanel(")


# The class that comes with the project, and the teacher's notebook.


def test_the_example_class_is_small_and_every_file_of_it_is_read():
    files = sorted(CLASS.glob("*.json"))
    assert sum(path.stat().st_size for path in files) < 300_000
    found = board(CLASS)
    assert found.skipped == {}
    assert found.records == len(files)


def test_the_machines_of_the_example_class_can_be_told_apart_by_their_facts():
    machines = [seat.machine for seat in board(CLASS).seats]
    assert len({machine.fingerprint for machine in machines}) == len(machines)


def test_the_readme_of_the_example_class_names_everybody_in_it():
    text = (CLASS / "README.md").read_text(encoding="utf-8")
    found = board(CLASS)
    for seat in found.seats:
        assert f"| {seat.label} |" in text
    for run in found.runs:
        if run.prediction is not None:
            assert f"{run.prediction:g}" in text


def test_the_notebook_was_saved_with_what_the_board_says_of_the_example_class():
    """In nbval numbers are taken out; the records are fixed, so here they count."""
    notebook = nbformat.read(ROOT / "teacher" / "board.ipynb", as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    saved = "\n".join(output.get("text", "") for output in outputs)
    found = board(CLASS)
    said = [*found.sentences, *found.view("int8 product").sentences]
    assert said
    assert [sentence for sentence in said if sentence not in saved] == []


def test_the_notebook_says_at_once_that_its_class_is_an_example():
    notebook = nbformat.read(ROOT / "teacher" / "board.ipynb", as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    text = json.dumps(first.outputs)
    assert "LABKIT_RECORDS is not set" in text
    assert "data/class" in text


def test_a_notebook_shows_a_board_as_its_panel(tmp_path):
    found = board(tmp_path)
    assert isinstance(found.panel(), BoardPanel)
    assert "application/vnd.jupyter.widget-view+json" in found._repr_mimebundle_()
