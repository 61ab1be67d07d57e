"""Why a variant is not faster: planted causes are named, and nothing is named without evidence."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

import labkit as lab
from labkit.caveats import throttled, waited
from labkit.peaks import CopyRate, GemmRate, Peaks
from labkit.results import Comparison
from labkit.traces import CompileWatch, OperatorUse, Trace
from labkit.trials import Failure, Trial

pytestmark = pytest.mark.alone

PEAKS = Peaks((CopyRate(2**20, 100e9), CopyRate(2**28, 10e9)), (GemmRate(1024, 100e9),), threads=2)
MIB = 2**20


def machine(**known):
    here = lab.machine(accelerators=False)
    return replace(here, usable_cores=2.0, isa=("avx2",), architecture="x86_64", **known)


def use(name, time_s, *, moved=1000, calls=1, dtype="float32", device="cpu", shapes="8x8"):
    return OperatorUse(f"aten.{name}", dtype, device, shapes, calls, time_s, moved)


def trace(*operators, **known):
    return Trace(operators, **{"dispatch_s": 1e-6, "threads": 2, **known})


def compared(base, variant, seconds=(1e-3, 1e-3), *, caveats=(), peaks=(PEAKS,), ended="answered"):
    """Two variants with these traces, that took these times in every round."""
    rounds = tuple(range(60))
    trials = {
        name: Trial(name, (s,) * 60, rounds, trace=t)
        for name, s, t in zip(("before", "after"), seconds, (base, variant), strict=True)
    }
    return Comparison(
        trials, machine=machine(), peaks=peaks, caveats=caveats, ended=ended, resolution=0.05
    )


SORT = use("sort", 0.9e-3, moved=10)
SMALL = use("mm", 0.1e-3, moved=10)


# Each cause, on records made by hand.


def test_operators_that_did_not_change_are_the_same_work():
    view = use("view", 1e-6, moved=0)
    found = compared(trace(SORT), trace(view, SORT)).explain()
    assert found.limit == "the same work"
    assert "the same 1 operator as before" in found.causes[0].evidence


def test_the_same_operators_at_another_speed_are_not_called_the_same_work():
    assert compared(trace(SORT), trace(SORT), (1e-3, 0.5e-3)).explain().limit != "the same work"


def test_a_technique_that_leaves_most_of_the_time_alone_meets_amdahl():
    base = trace(SORT, SMALL)
    found = compared(base, trace(SORT, use("int8_mm", 0.02e-3)), (1e-3, 0.92e-3)).explain()
    assert found.limit == "untouched operators"
    assert "90 % of before's time" in found.causes[0].evidence
    assert "1.11x as fast" in found.causes[0].evidence


def test_amdahl_is_not_named_against_what_was_reached():
    found = compared(trace(SORT, SMALL), trace(SORT, use("int8_mm", 0.02e-3)), (1e-3, 0.2e-3))
    assert found.explain().limit != "untouched operators"


def test_bytes_at_the_rate_of_a_copy_are_memory_bandwidth():
    adds = trace(use("add", 9e-3, moved=90 * MIB), working_set_bytes=90 * MIB)
    muls = trace(use("mul", 9e-3, moved=90 * MIB), working_set_bytes=90 * MIB)
    found = compared(adds, muls, (10e-3, 10e-3)).explain()
    assert found.limit == "memory bandwidth"
    assert "90 MiB at 9.44 GB/s, 94 % of" in found.causes[0].evidence


def test_a_working_set_that_fits_a_cache_is_held_against_the_cache():
    moved = {"moved": 8 * MIB, "calls": 16}
    adds = trace(use("add", 9e-5, **moved), working_set_bytes=MIB // 2)
    muls = trace(use("mul", 9e-5, **moved), working_set_bytes=MIB // 2)
    assert compared(adds, muls, (1e-4, 1e-4)).explain().limit == "cache bandwidth"


def test_operations_at_the_rate_of_the_best_product_are_arithmetic():
    one = trace(use("mm", 9e-3, shapes="a"), flops=8 * 10**8)
    two = trace(use("mm", 9e-3, shapes="b"), flops=8 * 10**8)
    found = compared(one, two, (10e-3, 10e-3)).explain()
    assert found.limit == "arithmetic"
    assert "80 % of the best float32 product" in found.causes[0].evidence


def test_a_rate_far_above_what_was_measured_names_no_limit():
    one = trace(use("mm", 9e-3, shapes="a"), flops=8 * 10**9)
    two = trace(use("mm", 9e-3, shapes="b"), flops=8 * 10**9)
    assert compared(one, two, (10e-3, 10e-3)).explain().limit == ""


def test_many_small_operators_are_dispatch_overhead():
    many = {"calls": 800, "moved": 10}
    found = compared(trace(use("add", 4e-4, **many)), trace(use("mul", 4e-4, **many))).explain()
    assert found.limit == "dispatch overhead"
    assert "800 operators and takes 1.25 µs for each" in found.causes[0].evidence


def test_on_an_accelerator_small_operators_are_launch_overhead():
    many = {"calls": 100, "moved": 10, "device": "cuda:0"}
    adds, muls = (trace(use(n, 9e-4, **many), dispatch_s=8e-6) for n in ("add", "mul"))
    found = compared(adds, muls).explain()
    assert found.limit == "launch overhead"
    assert "CUDA graphs" in found.causes[0].advice


def test_time_outside_of_the_operators_is_python():
    found = compared(trace(use("add", 1e-5)), trace(use("mul", 1e-5))).explain()
    assert found.limit == "outside torch"


def test_threads_that_wait_for_each_other_on_busy_cores_are_not_called_other_code():
    traces = trace(use("add", 1e-5)), trace(use("mul", 1e-5))
    found = compared(*traces, caveats=(waited(0.6),)).explain()
    assert found.limit == ""
    assert waited(0.6).text in str(found)
    assert "99 % of its time was outside of torch's 1 operators" in str(found)


def test_one_thread_waits_for_no_other():
    traces = (trace(use(name, 1e-5), threads=1) for name in ("add", "mul"))
    assert compared(*traces, caveats=(waited(0.6),)).explain().limit == "outside torch"


def test_an_idle_processor_is_waiting():
    found = compared(trace(use("add", 1e-5)), trace(use("mul", 1e-5), cpu_share=0.05)).explain()
    assert found.limit == "waiting"
    assert "95 %" in found.causes[0].evidence


@pytest.mark.parametrize("missing", [throttled(0.6), waited(0.6)], ids=lambda c: c.kind)
def test_a_processor_that_was_held_back_is_not_called_waiting(missing):
    idle = trace(use("mul", 1e-5), cpu_share=0.4)
    # Faster, so that the quota cannot be what keeps it from being so.
    found = compared(trace(use("add", 1e-5)), idle, (2e-3, 1e-3), caveats=(missing,)).explain()
    assert found.limit == ""
    assert "used no processor for 60 % of its time" in found.unknown
    assert missing.text in found.unknown
    assert found.unknown.endswith(f"Next: {missing.remedy}.")


def test_a_busy_machine_does_not_hide_other_causes():
    held = trace(use("add", 9e-3, moved=90 * MIB), working_set_bytes=90 * MIB, cpu_share=0.4)
    base = trace(use("mul", 9e-3, moved=90 * MIB), working_set_bytes=90 * MIB)
    found = compared(base, held, (10e-3, 10e-3), caveats=(waited(0.6),)).explain()
    assert found.limit == "memory bandwidth"


def test_copies_between_devices_are_transfer():
    copy = use("_to_copy", 0.8e-3, device="cuda:0")
    moved = trace(copy, transfer_s=0.8e-3, transfer_bytes=16 * MIB)
    found = compared(trace(use("add", 0.9e-3)), moved).explain()
    assert found.limit == "transfer"
    assert "80 % of its time goes into moving 16 MiB" in found.causes[0].evidence


def test_more_threads_than_cores_are_named():
    found = compared(trace(SORT), trace(SORT, threads=8), (1e-3, 2e-3)).explain()
    assert found.limit == "threads"
    assert "8 threads share 2 cores" in found.causes[0].evidence
    assert "threads=2" in found.causes[0].advice


def test_a_quota_that_stops_the_run_is_named():
    found = compared(trace(SORT), trace(SMALL), caveats=(throttled(0.4),)).explain()
    assert found.limit == "the processor quota"


def test_a_format_without_instructions_is_named_by_its_measured_rate():
    half = replace(PEAKS, dtype="bfloat16", gemms=(GemmRate(1024, 20e9),))
    products = trace(use("mm", 0.9e-3, dtype="bfloat16"))
    found = compared(trace(SMALL), products, (1e-3, 2e-3), peaks=(PEAKS, half)).explain()
    assert found.limit == "instructions"
    assert "a bfloat16 product reaches 20 GFLOP/s" in found.causes[0].evidence


def test_a_format_that_is_fast_here_is_not_blamed():
    fast = replace(PEAKS, dtype="bfloat16", gemms=(GemmRate(1024, 900e9),))
    products = trace(use("mm", 0.9e-3, dtype="bfloat16"))
    found = compared(trace(SMALL), products, (1e-3, 2e-3), peaks=(PEAKS, fast)).explain()
    assert "instructions" not in [cause.limit for cause in found.causes]


def test_int8_without_its_instructions_is_named_from_what_the_processor_says():
    products = trace(use("_int_mm", 0.9e-3, dtype="int8"))
    found = compared(trace(SMALL), products, (1e-3, 2e-3)).explain()
    assert found.limit == "instructions"
    assert "has no vnni" in found.causes[0].evidence


def test_graph_breaks_of_a_compiled_function_are_named():
    compiled = trace(SORT, graphs=3, graph_breaks={"call to print": 2})
    found = compared(trace(SORT), compiled).explain()
    assert found.limit == "graph breaks"
    assert "2 times: call to print" in found.causes[0].evidence


def test_a_slower_variant_that_does_more_is_extra_work():
    base = trace(use("mm", 0.9e-3, moved=10**6))
    slow = trace(use("dequantize", 1e-3, moved=4 * 10**6), use("mm", 0.9e-3, moved=10**6))
    found = compared(base, slow, (1e-3, 2e-3)).explain()
    assert found.limit == "extra work"
    assert "aten.dequantize" in found.causes[0].evidence


def test_another_kernel_for_the_same_work_is_no_extra_work():
    base = trace(use("addmm", 1e-3, moved=10**6))
    slow = trace(use("t", 0), use("mm", 6.8e-3, moved=10**6), use("add", 0.2e-3, moved=10**4))
    found = compared(base, slow, (1e-3, 7e-3)).explain()
    assert found.limit == ""
    assert "aten.mm (97 %), aten.add (2.9 %)" in found.sentence
    assert "where before has aten.addmm (100 %): look there" in found.sentence


def test_another_kernel_and_more_beside_it_is_extra_work():
    base = trace(use("addmm", 1e-3, moved=10**6))
    packs = use("quantize", 1e-3, moved=4 * 10**6)
    found = compared(base, trace(packs, use("_int_mm", 2e-3, moved=10**6)), (1e-3, 3e-3)).explain()
    assert found.limit == "extra work"
    assert "aten.quantize (33 %) are new" in found.sentence


def test_the_baseline_is_explained_by_itself():
    many = {"calls": 800, "moved": 10}
    found = compared(trace(use("add", 4e-4, **many)), trace(SORT)).explain("before")
    assert found.limit == "dispatch overhead"
    assert found.verdict == "before is the baseline"


# Cases of none.


def test_without_a_cause_the_largest_operators_are_shown_and_none_is_blamed():
    found = compared(trace(SORT), trace(use("cumsum", 0.95e-3))).explain()
    assert found.limit == ""
    assert "cannot tell" in found.sentence
    assert "aten.cumsum (100 %)" in found.sentence


def test_an_open_verdict_is_not_explained():
    rounds = tuple(range(4))
    trials = {n: Trial(n, (1e-3,) * 4, rounds, trace=trace(SORT)) for n in ("a", "b")}
    found = Comparison(trials, machine=machine()).explain()
    assert found.limit == ""
    assert "not known yet" in found.sentence


def test_a_failed_variant_says_why_it_has_no_result():
    done = compared(trace(SORT), None)
    failure = Failure("after", "measuring", "raised", "ValueError: no")
    found = replace(done, failures={"after": failure}).explain()
    assert "ValueError: no" in found.sentence


def test_a_stopped_run_was_not_traced():
    assert "not traced" in compared(None, None, ended="stopped").explain().sentence


def test_a_variant_that_cannot_be_traced_says_why():
    skipped = Trace(skipped="RuntimeError: no")
    assert "RuntimeError: no" in compared(trace(SORT), skipped).explain().sentence


def test_an_unknown_variant_is_refused_with_what_there_is():
    with pytest.raises(KeyError, match=r"no variant 'int9'.*before"):
        compared(trace(SORT), trace(SORT)).explain("int9")


def test_the_evidence_is_kept_with_the_result():
    done = compared(trace(SORT), trace(SORT, graph_breaks={"print": 1}))
    again = Comparison.from_json(done.to_json())
    assert again.trials == done.trials
    assert again.peaks == done.peaks
    assert again.explain() == done.explain()


def test_a_result_without_evidence_of_an_older_labkit_can_be_read():
    data = compared(None, None).to_dict() | {"schema_version": 1}  # which had no checksum
    del data["peaks"]
    for each in data["trials"]:
        del each["trace"]
    assert "not traced" in Comparison.from_json(json.dumps(data)).explain().sentence


def test_compilation_is_counted_for_the_variant_that_caused_it():
    import torch

    watch = CompileWatch()

    def broken(x):
        x = x + 1
        torch._dynamo.graph_break()
        return x * 2

    watch("whole", "setup")
    torch.compile(lambda x: x + 1, backend="eager")(torch.ones(3))
    watch(None, "")
    watch("cut", "warm-up")
    torch.compile(broken, backend="eager")(torch.ones(3))
    watch(None, "")
    whole, cut = watch.add_to(Trace(), "whole"), watch.add_to(Trace(), "cut")
    assert (whole.graphs, whole.graph_breaks) == (1, {})
    assert cut.graphs == 2
    assert sum(cut.graph_breaks.values()) == 1


def test_in_a_process_that_has_compiled_nothing_is_called_the_same_work():
    import torch

    compiled = torch.compile(lambda x: x + 1, backend="eager")
    compiled(torch.ones(3))
    assert CompileWatch().add_to(Trace(), "unwatched").graphs >= 1


# Each cause planted in real work, measured in the worker.


def explained(variants, **settings):
    # One thread: two would wait for each other whenever another program holds a core.
    settings = {"budget_s": 5.0, "resolution": 0.2, "threads": 1, **settings}
    return lab.compare(variants, **settings).explain()


def test_planted_memory_bandwidth():
    import torch

    x, y, out = (torch.ones(8 * MIB) for _ in range(3))
    found = explained(
        {"add": lambda: torch.add(x, y, out=out), "multiply": lambda: torch.mul(x, y, out=out)}
    )
    assert found.limit == "memory bandwidth"


def test_planted_arithmetic():
    import torch

    x, y = torch.rand(768, 768), torch.rand(768, 768)
    found = explained({"mm": lambda: x @ y, "addmm": lambda: torch.addmm(x, x, y)})
    assert found.limit == "arithmetic"


def test_planted_dispatch_overhead():
    import torch

    x = torch.ones(4)

    def repeated(operator):
        def call():
            for _ in range(200):
                operator(x, x)

        return call

    found = explained({"add": repeated(torch.add), "multiply": repeated(torch.mul)})
    assert found.limit == "dispatch overhead"


def test_planted_python():
    import torch

    x = torch.ones(4)

    def slow(operator):
        def call():
            sum(i * i for i in range(20_000))
            return operator(x, x)

        return call

    assert explained({"add": slow(torch.add), "multiply": slow(torch.mul)}).limit == "outside torch"


def test_planted_waiting():
    import torch

    x = torch.ones(4)

    def slow(operator):
        def call():
            time.sleep(0.005)
            return operator(x, x)

        return call

    assert explained({"add": slow(torch.add), "multiply": slow(torch.mul)}).limit == "waiting"


def test_planted_same_work():
    import torch

    model = torch.nn.Linear(256, 256)
    x = torch.rand(64, 256)
    # Only far apart would they be different: this is no test of the machine's peace.
    variants = {"model": lambda: model(x), "eval": lambda: model.eval()(x)}
    found = explained(variants, resolution=0.5)
    assert found.limit == "the same work"


def test_planted_untouched_operators():
    import torch

    x, small, large = torch.rand(400_000), torch.rand(32, 32), torch.rand(64, 64)

    found = explained(
        {
            "large": lambda: (torch.sort(x), large @ large),
            "small": lambda: (torch.sort(x), small @ small),
        }
    )
    assert found.limit == "untouched operators"
    assert "aten.sort" in found.causes[0].evidence


def test_planted_threads():
    import torch

    x = torch.rand(400, 400)
    many = 4 * lab.machine().usable_threads
    found = explained({"mm": lambda: x @ x, "addmm": lambda: torch.addmm(x, x, x)}, threads=many)
    assert found.limit == "threads"


def test_planted_graph_break():
    import torch

    def step(x):
        x = x + 1
        torch._dynamo.graph_break()
        return x * 2

    x = torch.rand(1000)

    def whole():
        return step(x)

    compiled = lab.Variant(lambda f: f(x), setup=lambda: torch.compile(step, backend="eager"))
    assert explained({"eager": whole, "compiled": compiled}).limit == "graph breaks"


def test_planted_extra_work():
    import torch

    weights = torch.rand(512, 512)
    scale, packed = torch.tensor(0.01), (weights * 100).to(torch.int8)
    x = torch.rand(1, 512)
    found = explained({"float32": lambda: x @ weights, "int8": lambda: x @ (packed * scale)})
    assert found.limit == "extra work"


def test_work_without_torch_is_not_explained():
    found = explained({"short": lambda: sum(range(900)), "long": lambda: sum(range(3000))})
    assert found.limit == ""
    assert "no operator of torch" in found.sentence


def test_an_evaluation_that_dies_under_the_trace_loses_nothing():
    import os

    import torch

    x = torch.ones(4)

    def fragile():
        # Below a trace torch has a mode; in a measurement it has none.
        if torch.utils._python_dispatch._get_current_dispatch_mode() is not None:
            os.abort()
        return x + 1

    done = lab.compare({"add": lambda: x + 2, "fragile": fragile}, budget_s=2.0, resolution=0.2)
    assert not done.failures
    assert done.ended in ("answered", "budget")
    assert done["fragile"].rounds > 10
    assert "not traced" in done.explain().sentence


def test_rates_that_are_known_are_not_measured_again(monkeypatch):
    import torch

    from labkit import worker

    x = torch.rand(256, 256)
    variants = {"mm": lambda: x @ x, "addmm": lambda: torch.addmm(x, x, x)}
    known = [replace(PEAKS, threads=1)]
    monkeypatch.setattr(worker, "_peaks", known)
    done = lab.compare(variants, budget_s=0.5, resolution=0.5, threads=1)
    assert done.peaks == tuple(known)


def test_rates_are_measured_when_the_memory_of_the_variants_is_free_again(monkeypatch):
    import torch

    from labkit import worker

    monkeypatch.setattr(worker, "_peaks", [])
    began = []
    begin = worker.Run._begin

    def noted(run, kind, names):
        began.append((kind, [trial.median_s > 0 for trial in run.comparison.trials.values()]))
        begin(run, kind, names)

    monkeypatch.setattr(worker.Run, "_begin", noted)
    x = torch.rand(256, 256)
    variants = {"mm": lambda: x @ x, "addmm": lambda: torch.addmm(x, x, x)}
    done = lab.compare(variants, budget_s=0.5, resolution=0.5, threads=1)
    assert [kind for kind, _ in began] == ["time", "peaks"]
    assert began[1][1] == [True, True]
    assert [p.place for p in done.peaks] == [("cpu", "float32", 1)]


def test_losing_the_process_that_measures_rates_loses_nothing_else(monkeypatch):
    import os
    import signal

    import torch

    from labkit import worker

    monkeypatch.setattr(worker, "_peaks", [])
    begin = worker.Run._begin

    def killed(run, kind, names):
        begin(run, kind, names)
        if kind == "peaks":
            os.kill(run._worker.pid, signal.SIGKILL)

    monkeypatch.setattr(worker.Run, "_begin", killed)
    x = torch.rand(64, 64)
    variants = {"mm": lambda: x @ x, "addmm": lambda: torch.addmm(x, x, x)}
    done = lab.compare(variants, budget_s=0.5, resolution=0.5, threads=1)
    assert not done.failures
    assert not done.peaks
    assert done["addmm"].rounds > 10


def test_rates_of_a_busy_moment_are_not_kept_for_the_next_run(monkeypatch):
    from labkit import worker
    from labkit.recorder import Settings
    from labkit.variants import as_variants

    kept = []
    monkeypatch.setattr(worker, "_peaks", kept)
    run = worker.Run(as_variants({"a": time.time, "b": time.time}), Settings())
    run._take(replace(PEAKS, waiting_share=0.5))
    assert kept == []
    run._take(PEAKS)
    assert kept == [PEAKS]
    assert len(run.comparison.peaks) == 2


def test_without_trace_nothing_runs_after_the_timing():
    import torch

    x = torch.ones(4)
    done = lab.compare(
        {"add": lambda: x + 1, "multiply": lambda: x * 2}, budget_s=0.5, resolution=0.5, trace=False
    )
    assert done.trials["add"].trace is None
    assert not done.peaks


def test_an_explanation_is_text_and_html_without_numbers_in_its_repr():
    found = compared(trace(SORT), trace(SORT)).explain()
    assert repr(found) == "Explanation(after)"
    assert str(found).splitlines()[1].startswith("what binds after: the same work")
    assert 'class="labkit-result"' in found._repr_html_()
