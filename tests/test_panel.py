"""The panel without a front end: every button is a public method, and does what it says."""

from __future__ import annotations

import asyncio
import base64
import csv
import html
import io
import json
import random
import re
import threading
import time
from pathlib import Path

import ipywidgets
import psutil
import pytest

import labkit as lab
from labkit import frontend
from labkit.controls import make_control
from labkit.parameters import parse
from labkit.sessions import score, sweep_values


@pytest.fixture(autouse=True)
def _keeps_nothing(monkeypatch):
    """Whatever the environment of whoever runs the tests says."""
    monkeypatch.delenv("LABKIT_RECORDS", raising=False)
    monkeypatch.delenv("LABKIT_NAME", raising=False)


@lab.experiment(steps=[1000, 3000], repeat=(1, 5), share=(0.0, 1.0), backwards=False, note="x")
def loops(steps, repeat, share, backwards, note):
    """A short loop and a longer one.

    This is not on the panel.
    """

    def short():
        for _ in range(1000):
            pass

    def long():
        for _ in range(steps * repeat):
            pass

    return {"short": short, "long": long}


@lab.experiment(share=[0.5, 0.7])
def endless(share):
    # Work of so different lengths that no budget of a test gives an answer.
    def work():
        time.sleep(random.uniform(0.001, 0.01))

    return {"one": work, "other": work}


@lab.experiment(fail=["making", "warm-up", "no"])
def broken(fail):
    if fail == "making":
        raise RuntimeError("no such model")

    def work():
        sum(range(1000))

    def raises():
        raise ValueError("a bad shape")

    return {"one": work, "other": raises if fail == "warm-up" else work}


def endless_panel():
    return endless.panel(budget_s=60, resolution=0.02, predict=False)


def children():
    return [p for p in psutil.Process().children(recursive=True) if p.status() != "zombie"]


def texts(panel):
    """Everything that stands on the panel, without tags."""
    html = [w.value for w in all_widgets(panel.widget) if isinstance(w, ipywidgets.HTML)]
    return re.sub(r"<style>.*?</style>|<[^>]+>", " ", " ".join(html), flags=re.DOTALL)


def all_widgets(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from all_widgets(child)


def button(panel, name):
    return next(
        w
        for w in all_widgets(panel.widget)
        if isinstance(w, ipywidgets.Button) and w.description == name
    )


def control(panel, name):
    return next(w for w in all_widgets(panel.widget) if getattr(w, "description", "") == name)


def pictures(panel):
    return [
        bytes(w.value)
        for w in all_widgets(panel.widget)
        if isinstance(w, ipywidgets.Image) and w.layout.display != "none"
    ]


def off(panel):
    """The buttons that do nothing at this moment. None is disabled: it would lose the focus."""
    buttons = [w for w in all_widgets(panel.widget) if isinstance(w, ipywidgets.Button)]
    assert not any(w.disabled for w in buttons)
    return [w.description for w in buttons if frontend.OFF in w._dom_classes]


def test_nothing_is_done_until_somebody_asks():
    def never(size):
        raise AssertionError("called")

    panel = lab.experiment(size=[1, 2])(never).panel()
    assert panel.status == "new"
    assert panel.comparison is None
    assert pictures(panel) == []
    assert "ready" in texts(panel)


def test_every_parameter_has_a_control_with_its_name_and_what_it_may_be():
    panel = loops.panel()
    kinds = {name: type(control(panel, name)).__name__ for name in loops.parameters}
    assert kinds == {
        "steps": "Dropdown",
        "repeat": "IntSlider",
        "share": "FloatSlider",
        "backwards": "Checkbox",
        "note": "Text",
    }
    assert control(panel, "repeat").tooltip == "repeat: 1 to 5"
    assert "A short loop and a longer one." in texts(panel)
    assert "This is not on the panel" not in texts(panel)


def test_moving_a_control_and_calling_set_are_the_same():
    panel = loops.panel(repeat=2)
    assert panel.values["repeat"] == 2
    control(panel, "repeat").value = 4
    control(panel, "steps").value = 3000
    assert panel.values["repeat"] == 4
    assert panel.values["steps"] == 3000
    panel.set(repeat=1, backwards=True)
    assert control(panel, "repeat").value == 1
    assert control(panel, "backwards").value is True


def test_a_number_beyond_the_choices_becomes_a_choice():
    panel = loops.panel()
    panel.set(steps=2000)
    assert control(panel, "steps").value == 2000
    assert panel.values["steps"] == 2000


@pytest.mark.parametrize("bad", [{"repeat": 9}, {"repeat": float("nan")}, {"steps": -1}])
def test_a_value_that_is_not_allowed_changes_nothing(bad):
    panel = loops.panel()
    before = panel.values
    with pytest.raises(ValueError, match=next(iter(bad))):
        panel.set(**bad)
    assert panel.values == before


def test_unknown_names_and_bad_settings_are_refused_at_once():
    with pytest.raises(TypeError, match="'stepz'"):
        loops.panel(stepz=1)
    with pytest.raises(ValueError, match="budget_s=-1"):
        loops.panel(budget_s=-1)


def test_the_first_run_wants_a_prediction():
    panel = loops.panel(budget_s=2)
    with pytest.raises(lab.LabkitError, match="predict first"):
        panel.start()
    button(panel, "Run").click()
    assert "predict first" in texts(panel)
    assert panel.comparison is None


@pytest.mark.parametrize("text", ["two", "-1", "0", "nan", "inf", "1e400"])
def test_a_prediction_is_a_number_above_zero(text):
    panel = loops.panel()
    with pytest.raises(ValueError, match="give a number above 0"):
        panel.predict(text)
    control(panel, "prediction").value = text
    button(panel, "Run").click()
    assert "give a number above 0" in texts(panel)
    assert panel.comparison is None


def test_run_shows_verdict_table_score_plot_and_data():
    panel = loops.panel(budget_s=2, memory=True)
    control(panel, "prediction").value = "0.5x"
    button(panel, "Run").click()
    assert panel.status == "done"
    comparison = panel.comparison
    shown = texts(panel)
    assert comparison.sentences[0] in shown
    assert "You said 0.500x; long is" in shown
    assert "peak memory" in shown
    assert lab.machine().line() in shown
    assert all(png.startswith(b"\x89PNG") for png in pictures(panel))
    assert len(pictures(panel)) == 3
    assert off(panel) == ["Stop"]


def test_the_downloads_hold_the_raw_samples():
    panel = loops.panel(budget_s=2, predict=False)
    panel.start()
    html = " ".join(w.value for w in all_widgets(panel.widget) if isinstance(w, ipywidgets.HTML))
    links = dict(re.findall(r'download="([^"]+)" href="data:[^,]+,([^"]+)"', html))
    assert sorted(links) == ["loops.csv", "loops.json"]
    rows = list(csv.reader(io.StringIO(base64.b64decode(links["loops.csv"]).decode())))
    assert rows[0] == ["variant", "round", "time_s"]
    assert [float(r[2]) for r in rows[1:] if r[0] == "long"] == list(
        panel.comparison.trials["long"].times_s
    )
    read = lab.Comparison.from_dict(json.loads(base64.b64decode(links["loops.json"])))
    assert read.trials == panel.comparison.trials


def test_a_sweep_goes_over_the_values_of_the_chosen_parameter():
    panel = loops.panel(budget_s=1, predict=False, repeat=1)
    control(panel, "over").value = "steps"
    button(panel, "Sweep").click()
    sweep = panel.sweep_result
    assert [p.parameters for p in sweep] == [{"steps": 1000}, {"steps": 3000}]
    assert sweep.comparisons[1]["long"].verdict == "slower"
    assert sweep.sentences[0] in texts(panel)
    panel.sweep(repeat=[1, 2])
    assert panel.sweep_result.swept == ("repeat",)
    panel.start()
    assert panel.sweep_result is None


def test_what_a_sweep_cannot_measure_is_a_point_with_its_reason():
    panel = broken.panel(budget_s=1, predict=False)
    panel.sweep(fail=["no", "making", "warm-up"])
    good, making, warm = panel.sweep_result
    assert good.comparison.rounds > 0
    assert making.error == "RuntimeError: no such model"
    assert "ValueError: a bad shape" in str(warm.comparison.failures["other"])
    assert "no such model" in texts(panel)


def test_an_error_stands_on_the_panel_and_the_next_run_works():
    panel = broken.panel(budget_s=1, predict=False)
    with pytest.raises(RuntimeError, match="no such model"):
        panel.start()
    button(panel, "Run").click()
    assert "RuntimeError: no such model" in texts(panel)
    panel.set(fail="warm-up")
    button(panel, "Run").click()
    assert "RuntimeError" not in texts(panel)
    assert "raised during warm-up: ValueError: a bad shape" in texts(panel)


def test_a_refused_agreement_is_shown():
    panel = loops.panel(budget_s=1, predict=False, agree=lambda one, other: False)
    panel.start()
    assert panel.status == "failed"
    assert "does not agree" in texts(panel)


def test_the_result_is_saved_and_nothing_is_overwritten(tmp_path):
    panel = loops.panel(budget_s=1, predict=False)
    with pytest.raises(lab.LabkitError, match="run first"):
        panel.save(tmp_path / "a.json")
    panel.start()
    path = panel.save(tmp_path / "a.json")
    assert lab.Comparison.load(path).trials == panel.comparison.trials
    with pytest.raises(FileExistsError):
        panel.save(path)


def test_waiting_for_nothing_says_so():
    with pytest.raises(RuntimeError, match=r"call start\(\) first"):
        loops.panel().wait()


def in_a_kernel(body):
    """Run a coroutine where a loop runs, as in a kernel."""
    return asyncio.run(asyncio.wait_for(body(), 60))


async def until(holds):
    while not holds():  # noqa: ASYNC110  (what it waits for knows of no event)
        await asyncio.sleep(0.01)


def test_in_a_kernel_start_returns_at_once_and_the_plot_lives():
    async def body():
        panel = endless_panel()
        panel.start()
        assert panel.status in ("queued", "running")
        assert off(panel) == ["Run", "Sweep"]
        await until(lambda: pictures(panel))
        first = pictures(panel)
        await until(lambda: pictures(panel) != first)
        assert "s left at most" in texts(panel)
        panel.stop()

    in_a_kernel(body)


def test_stop_from_another_thread_works_at_once_and_leaves_no_process():
    async def body():
        panel = endless_panel()
        before = len(children())
        panel.start()
        await until(lambda: panel.comparison.rounds > 20)
        began = time.monotonic()
        # As in ipykernel 7.3, where a callback comes on the thread of a subshell.
        thread = threading.Thread(target=button(panel, "Stop").click)
        thread.start()
        thread.join()
        assert "stopped; what was measured is kept" in texts(panel)
        assert time.monotonic() - began < 0.5
        assert panel.status == "stopped"
        assert panel.comparison.rounds > 20
        # The fork server stays for the next run; its worker is gone.
        await until(lambda: len(children()) <= before + 1)

    in_a_kernel(body)


def test_a_sweep_that_is_stopped_before_its_first_point_shows_no_empty_axes():
    async def body():
        panel = endless_panel()
        panel.sweep(share=[0.5])
        button(panel, "Stop").click()
        assert "stopped; what was measured is kept (0 points)" in texts(panel)
        assert not pictures(panel)

    in_a_kernel(body)


def test_a_run_that_is_started_on_another_thread_is_followed_on_the_loop():
    async def body():
        panel = loops.panel(budget_s=2, predict=False)
        thread = threading.Thread(target=button(panel, "Run").click)
        thread.start()
        thread.join()
        await until(lambda: panel.status == "done")
        await until(lambda: "long is" in texts(panel))

    in_a_kernel(body)


def test_wait_in_a_cell_gives_the_result():
    async def body():
        panel = loops.panel(budget_s=2, predict=False)
        panel.start()
        assert panel.wait()["long"].rounds > 0
        assert panel.status == "done"

    in_a_kernel(body)


def test_a_second_run_has_to_wait_for_the_first():
    async def body():
        panel = endless_panel()
        panel.start()
        with pytest.raises(lab.LabkitError, match="stop it first"):
            panel.start()
        other = loops.panel(predict=False, budget_s=1)
        await until(lambda: panel.status == "running")
        other.start()
        assert other.status == "queued"
        assert "another timed run is using this machine" in texts(other)
        panel.stop()
        await until(lambda: other.status == "done")

    in_a_kernel(body)


def test_a_cell_that_is_run_again_leaves_no_run_behind():
    async def body():
        old = endless_panel()
        old.start()
        await until(lambda: old.status == "running")
        new = endless_panel()
        assert old.status == "stopped"
        assert new.status == "new"

    in_a_kernel(body)


def test_moved_controls_are_told_from_the_result_that_is_shown():
    panel = loops.panel(budget_s=1, predict=False)
    panel.start()
    assert "the controls have moved" not in texts(panel)
    control(panel, "repeat").value = 5
    assert "the controls have moved" in texts(panel)


@pytest.fixture
def records(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RECORDS", str(tmp_path / "class"))
    return tmp_path / "class"


def test_nothing_is_kept_unless_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    panel = loops.panel(budget_s=1, predict=False)
    assert control(panel, "keep a record").value is False
    panel.start()
    assert not list(tmp_path.iterdir())


def test_the_switch_keeps_each_run_and_says_where(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    panel = loops.panel(budget_s=1, predict=False)
    switch, name = control(panel, "keep a record"), control(panel, "name (optional)")
    assert name.layout.display == "none"
    switch.value = True
    assert name.layout.display is None
    name.value = "Ada"
    button(panel, "Run").click()
    button(panel, "Run").click()
    kept = lab.history(tmp_path / "records")
    assert kept["file"].nunique() == 2
    assert set(kept["person"]) == {"Ada"}
    assert set(kept["experiment"]) == {"loops"}
    assert re.search(r"Kept as \S+-loops.json in records", texts(panel))
    switch.value = False
    button(panel, "Run").click()
    assert lab.history(tmp_path / "records")["file"].nunique() == 2
    assert "Kept as" not in texts(panel)


def test_where_LABKIT_RECORDS_is_set_the_switch_is_on(records):  # noqa: N802
    panel = loops.panel(budget_s=1, predict=False)
    panel.predict(0.25)
    assert control(panel, "keep a record").value is True
    panel.start()
    frame = lab.history(records)
    assert list(frame["person"]) == ["", ""]
    assert list(frame["prediction"].dropna()) == [0.25]


def test_a_sweep_is_kept_as_one_record_when_it_has_ended(records):
    panel = loops.panel(budget_s=0.5, predict=False)
    panel.sweep(steps=[1000, 3000])
    frame = lab.history(records)
    assert frame["file"].nunique() == 1
    assert list(frame["parameter_steps"]) == [1000, 1000, 3000, 3000]


def test_a_run_that_measured_nothing_is_not_kept(records):
    panel = broken.panel(fail="making", predict=False)
    button(panel, "Run").click()
    assert "no such model" in texts(panel)
    assert not records.exists()


def test_a_record_that_cannot_be_kept_is_said_and_the_result_stays(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LABKIT_RECORDS", str(tmp_path / "file" / "class"))
    panel = loops.panel(budget_s=1, predict=False)
    panel.start()
    assert panel.status == "done"
    assert panel.comparison["long"].rounds > 0
    assert "No record was kept: there is no folder" in texts(panel)
    assert "Download everything" in texts(panel)
    panel.keep(on=False)
    panel.start()
    assert "No record was kept" not in texts(panel)


def test_where_widgets_do_not_run_there_is_text():
    panel = loops.panel(repeat=2)
    bundle = panel._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert bundle["text/plain"] == "Panel(loops)"
    assert "run this cell in JupyterLab" in bundle["text/html"]
    assert bundle["text/html"] == loops.panel(repeat=2)._repr_mimebundle_()["text/html"]


def test_a_reader_who_hears_the_panel_is_told_at_the_end_and_seldom_before():
    async def body():
        panel = endless_panel()
        announced, stages = [], []
        panel._said.observe(lambda change: announced.append(change["new"]), "value")
        panel._stage.observe(lambda change: stages.append(change["new"]), "value")
        panel.start()
        began_s = time.monotonic()
        await until(lambda: len(stages) > 3)
        for changing in (panel._stage, panel._verdict):
            assert {frontend.LIVE, frontend.QUIET} <= set(changing._dom_classes)
        lasted_s = time.monotonic() - began_s
        assert 1 <= len(announced) <= 2 + lasted_s / 5
        assert re.fullmatch(r"<p>running, \d+ s left at most</p>", announced[0])
        panel.stop()
        for ended in (panel._stage, panel._verdict):
            assert frontend.QUIET not in ended._dom_classes
        assert announced[-1] == ""
        assert "stopped; what was measured is kept" in stages[-1]

    in_a_kernel(body)


def test_every_picture_has_a_paragraph_of_words_once_the_run_has_ended():
    panel = loops.panel(budget_s=1, predict=False, memory=True)
    assert panel._words.value == ""
    panel.start()
    paragraphs = re.findall(r"<p>(.*?)</p>", panel._words.value)
    assert len(paragraphs) == len(pictures(panel)) == 3
    assert "Speed-up over short by rounds" in paragraphs[0]
    assert frontend.WORDS in panel._words._dom_classes
    # As text, too, where widgets do not run.
    assert f'alt="{paragraphs[0]}"' in panel._static_html()


def test_the_page_gets_the_style_and_the_script_whole():
    head = frontend.head()
    script = html.unescape(re.search(r'onload="([^"]*)"', head)[1])
    assert script == Path(frontend.__file__).with_name("panel.js").read_text()
    for name in (frontend.PANEL, frontend.LIVE, frontend.QUIET, frontend.OFF, frontend.WORDS):
        assert f".{name}" in head or f"&quot;{name}&quot;" in head, name


def test_after_a_run_the_static_picture_shows_the_result():
    panel = loops.panel(budget_s=1, predict=False)
    panel.start()
    html = panel._repr_mimebundle_()["text/html"]
    assert 'src="data:image/png;base64,' in html
    assert panel.comparison.sentences[0] in html


def test_text_of_the_experiment_is_no_markup():
    panel = lab.experiment(kind=["<b>", "c"])(lambda kind: {}).panel()
    assert "<b>" not in panel._static_html()


def test_a_slider_shows_small_steps():
    slider = make_control(parse("rate", (0.001, 0.01, 0.001)), 0.004, lambda value: None)
    assert slider.readout_format == ".3g"


def test_the_values_of_a_sweep_are_allowed_and_few():
    for given in [(1, 4), (0.0, 1.0), (1, 1000), (0, 100, 7), (0.001, 1.0, 0.001), 5, 0.5]:
        parameter = parse("x", given)
        values = sweep_values(parameter)
        assert 2 <= len(values) <= 6, given
        assert values == sorted(set(values)), given
        for value in values:
            parameter.check(value)


def test_scores_say_how_far_off_a_prediction_was():
    ratio = lab.Ratio("b", "a", log_ratios=(0.69, 0.70, 0.68) * 20)
    assert score(2.0, ratio).endswith("your prediction lies in the interval.")
    assert score(2.08, ratio).endswith("within 5 %.")
    assert score(1.0, ratio).endswith("2 times more than you said.")
    assert score(4.0, ratio).endswith("2 times less than you said.")
    assert "no result" in score(4.0, lab.Ratio("b", "a", log_ratios=()))


def test_a_sweep_that_is_stopped_as_its_point_ends_says_so():
    """The stop comes when the run has answered, and nobody has taken that in yet."""
    from labkit.sessions import Session

    @lab.experiment(n=[1, 2, 3])
    def loops(n):
        return {"short": lambda: sum(range(100)), "long": lambda: sum(range(1000 * n))}

    session = Session(loops, predict=False, budget_s=0.5, resolution=0.5)
    session.sweep(n=[1, 2, 3])
    run = session._run
    while not run.done:
        run.poll(0.1)
    session.stop()
    assert session.stopped
    assert len(session.sweep_result) == 1
    session.start()
    session.wait()
    assert not session.stopped
