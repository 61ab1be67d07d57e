"""Records: every result that was kept is there, whole, and nothing else is taken for one."""

from __future__ import annotations

import errno
import json
import math
import multiprocessing
import os
import platform
import resource
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

import labkit as lab
from labkit import files
from labkit.caveats import Caveat
from labkit.files import seal, unseal, write_new
from labkit.machines import machine
from labkit.records import read_folder, read_record
from labkit.sweeps import SweepPoint
from labkit.trials import Failure, PeakMemory, Trial

ROUNDS = 20


@pytest.fixture(autouse=True)
def _nobody(monkeypatch):
    monkeypatch.delenv("LABKIT_NAME", raising=False)
    monkeypatch.delenv("LABKIT_RECORDS", raising=False)


def comparison(**changes):
    times = {"float32": (2e-3,) * ROUNDS, "int8": (1e-3,) * ROUNDS}
    trials = {name: Trial(name, t, tuple(range(ROUNDS))) for name, t in times.items()}
    about = {
        "title": "matrix product",
        "parameters": {"size": 256, "fused": True},
        "prediction": 3.0,
        "machine": machine(),
        "started_utc": "2026-11-21T20:00:00+00:00",
        "duration_s": 1.0,
    }
    return lab.Comparison(trials, **{**about, **changes})


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def without_sha(text):
    data = json.loads(text)
    del data["sha256"]
    return data


# Writing.


def test_a_folder_gets_a_file_with_a_name_of_its_own(tmp_path):
    paths = {comparison().save(tmp_path) for _ in range(20)}
    assert len(paths) == 20
    assert all(p.parent == tmp_path and p.name.endswith("-matrix-product.json") for p in paths)


def test_without_a_path_it_goes_where_LABKIT_RECORDS_says(tmp_path, monkeypatch):  # noqa: N802
    monkeypatch.setenv("LABKIT_RECORDS", str(tmp_path / "class"))
    path = comparison().save()
    assert path.parent == tmp_path / "class"
    assert len(lab.history()) == 2


def test_without_LABKIT_RECORDS_it_goes_to_a_folder_beside_the_work(tmp_path, monkeypatch):  # noqa: N802
    monkeypatch.chdir(tmp_path)
    assert comparison().save().parent == Path("records")
    assert len(lab.history()) == 2


def test_a_file_that_exists_is_never_overwritten(tmp_path):
    path = tmp_path / "one.json"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="give another name"):
        comparison().save(path)
    assert path.read_text() == "mine"
    assert names(tmp_path) == ["one.json"]


def test_a_folder_that_is_missing_is_named_with_the_way_out(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"mkdir -p .*nowhere"):
        comparison().save(tmp_path / "nowhere" / "one.json")


def test_the_others_of_a_class_may_read_what_one_wrote(tmp_path):
    before = os.umask(0o022)
    try:
        path = comparison().save(tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def _write(folder, barrier, number, won):
    mine = comparison(prediction=float(number))
    barrier.wait()
    for _ in range(5):
        mine.save(folder, person=f"student {number}")
    try:
        write_new(folder / "wanted-by-all.json", seal(mine.to_dict(), person="the first"))
    except FileExistsError:
        return
    won.put(number)


def test_forty_writers_at_once_lose_nothing_and_overwrite_nothing(tmp_path):
    fork = multiprocessing.get_context("fork")
    barrier, won = fork.Barrier(40), fork.SimpleQueue()
    writers = [fork.Process(target=_write, args=(tmp_path, barrier, n, won)) for n in range(40)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [w.exitcode for w in writers] == [0] * 40

    records = [read_record(p) for p in tmp_path.glob("*.json")]
    kept = [r.person for r in records if r.file != "wanted-by-all.json"]
    assert sorted(kept) == sorted(f"student {n}" for n in range(40) for _ in range(5))
    winner = won.get()
    assert won.empty()
    assert read_record(tmp_path / "wanted-by-all.json").result.prediction == winner
    assert not list(tmp_path.glob(".*"))


def _write_for_ever(folder):
    while True:
        comparison().save(folder)


def test_a_writer_that_is_killed_leaves_no_half_of_a_record(tmp_path):
    fork = multiprocessing.get_context("fork")
    for _ in range(5):
        before = len(list(tmp_path.glob("*.json")))
        writer = fork.Process(target=_write_for_ever, args=(tmp_path,))
        writer.start()
        while len(list(tmp_path.glob("*.json"))) < before + 3:
            assert writer.is_alive()
        writer.kill()
        writer.join(60)
    assert not [r for r in read_folder(tmp_path)[1].values() if not r.startswith("a copy of")]


def _fill(folder, kept, report):
    # What is above the limit is refused by the kernel, as on a disk that is full.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    try:
        kept.save(folder)
    except OSError as error:
        report.put((error.errno, str(error), names(folder)))


def test_where_the_kernel_takes_no_more_nothing_is_left_behind(tmp_path):
    fork = multiprocessing.get_context("fork")
    report = fork.SimpleQueue()
    process = fork.Process(target=_fill, args=(tmp_path, comparison(), report))
    process.start()
    process.join(60)
    number, text, left = report.get()
    assert number == errno.EFBIG
    assert left == []
    assert "nothing was written: free some space there, or" in text
    assert "LABKIT_RECORDS" in text


@pytest.mark.parametrize("call", ["fsync", "link"])
def test_a_disk_that_is_full_leaves_nothing_and_names_the_way_out(tmp_path, monkeypatch, call):
    """A network file system says so as late as at fsync; a folder can be full by itself."""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, call, full)
    if call == "link":
        monkeypatch.setattr(files.os, "open", full)
    with pytest.raises(OSError, match=r"No space left on device.*free some space") as caught:
        comparison().save(tmp_path)
    assert caught.value.errno == errno.ENOSPC
    assert names(tmp_path) == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 16 KiB, where this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    small = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(small, check=False, capture_output=True).returncode:
        pytest.skip("nobody may mount a file system here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_really_full_keeps_what_it_has(small_disk):
    kept, refused = [], None
    while refused is None:
        try:
            kept.append(comparison().save(small_disk, person=str(len(kept))).name)
        except OSError as error:
            refused = error
    assert refused.errno == errno.ENOSPC
    assert "free some space" in str(refused)
    assert names(small_disk) == sorted(kept)
    records, skipped = read_folder(small_disk)
    assert len(records) == len(kept) > 0
    assert not skipped


def test_a_disk_that_is_mounted_for_reading_only(small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(OSError, match=r"must not be written to.*LABKIT_RECORDS") as caught:
        comparison().save(small_disk)
    assert caught.value.errno == errno.EROFS


def test_a_folder_that_must_not_be_written_to_is_named_with_the_way_out():
    # root may write anywhere but to what the kernel itself makes up.
    folder = Path("/sys/kernel") if os.geteuid() == 0 else Path("/")
    with pytest.raises(OSError, match=r"must not be written to.*LABKIT_RECORDS") as caught:
        comparison().save(folder)
    assert caught.value.errno in (errno.EACCES, errno.EPERM, errno.EROFS)


def test_a_file_where_the_folder_should_be_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match=r"there is no folder .*file"):
        comparison().save(tmp_path / "file" / "one.json")


@pytest.mark.parametrize("taken", [False, True])
def test_a_file_system_without_hard_links_overwrites_nothing_either(tmp_path, monkeypatch, taken):
    def refuse(*_):
        raise PermissionError(errno.EPERM, "no hard links")

    monkeypatch.setattr(files.os, "link", refuse)
    path = tmp_path / "one.json"
    if taken:
        path.write_text("mine")
        with pytest.raises(FileExistsError):
            comparison().save(path)
        assert path.read_text() == "mine"
    else:
        comparison().save(path)
        assert lab.Comparison.load(path) == comparison()
    assert names(tmp_path) == ["one.json"]


# What a record says of a person, and what not.


def test_a_record_names_no_person_no_host_and_no_folder():
    home, here = Path.home(), Path.cwd()
    details = f'Traceback:\n  File "{home}/a thesis/model.py", line 3\n  File "{here}/b.py"'
    failed = Failure("int8", "warm-up", "raised", f"cannot read {here}/data.bin", details)
    caveat = Caveat("busy cores", f"seen on {platform.node()}", "wait")
    text = seal(comparison(failures={"int8": failed}, caveats=(caveat,)).to_dict())
    for private in (str(home), str(here), platform.node(), "a thesis"):
        assert private not in text
    again = lab.Comparison.from_json(text)
    assert again.failures["int8"].message == "cannot read …/data.bin"
    assert "model.py" in again.failures["int8"].details
    assert "person" not in json.loads(text)


def test_a_name_that_somebody_gives_is_kept(tmp_path, monkeypatch):
    comparison().save(tmp_path, person="Ada")
    monkeypatch.setenv("LABKIT_NAME", "Grace")
    comparison().save(tmp_path)
    assert set(lab.history(tmp_path)["person"]) == {"Ada", "Grace"}


def test_what_a_person_gives_as_a_parameter_is_kept_as_it_is():
    given = comparison(parameters={"file": "/data/train.csv"})
    assert lab.Comparison.from_json(given.to_json()).parameters == {"file": "/data/train.csv"}


# Reading.


def test_history_is_one_tidy_table(tmp_path):
    memory = {"int8": PeakMemory(1000, 5, "cpu", "test")}
    comparison(memory=memory).save(tmp_path, person="Ada")
    frame = lab.history(tmp_path)
    assert list(frame["variant"]) == ["float32", "int8"]
    row = frame.iloc[1]
    assert row["person"] == "Ada"
    assert row["experiment"] == "matrix product"
    assert row["parameters"] == "fused=True, size=256"
    assert row["parameter_size"] == 256
    assert row["speedup"] == pytest.approx(2)
    assert row["verdict"] == "faster"
    assert row["median_s"] == 1e-3
    assert row["peak_bytes"] == 1000
    assert row["prediction"] == 3.0
    assert math.isnan(frame.iloc[0]["prediction"])  # the reader predicts the last variant
    assert row["machine_fingerprint"] == machine().fingerprint
    assert row["started_utc"].isoformat() == "2026-11-21T20:00:00+00:00"
    assert frame.attrs["skipped"] == {}


def test_a_sweep_has_a_row_for_each_point_and_variant(tmp_path):
    points = [
        SweepPoint({"size": size}, comparison(parameters={"size": size})) for size in (64, 256)
    ]
    points.append(SweepPoint({"size": 512}, None, "MemoryError: too large"))
    lab.Sweep(("size",), tuple(points), "matrix product").save(tmp_path, person="Ada")
    frame = lab.history(tmp_path)
    assert list(frame["parameter_size"]) == [64, 64, 256, 256, 512]
    assert frame.iloc[4]["failure"] == "MemoryError: too large"
    assert set(frame["person"]) == {"Ada"}


def test_a_sweep_that_was_changed_is_skipped(tmp_path):
    sweep = lab.Sweep(("size",), (SweepPoint({"size": 64}, comparison()),), "matrix product")
    path = sweep.save(tmp_path)
    assert lab.Sweep.load(path) == sweep
    path.write_text(path.read_text().replace('{"size": 64}', '{"size": 32}'))
    assert set(lab.history(tmp_path).attrs["skipped"]) == {path.name}


def test_an_empty_folder_has_no_rows_and_all_columns(tmp_path):
    frame = lab.history(tmp_path)
    assert len(frame) == 0
    assert "speedup" in frame


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="LABKIT_RECORDS"):
        lab.history(tmp_path / "nowhere")


def test_what_is_no_record_is_named_and_skipped_and_left_as_it_is(tmp_path, capsys):
    good = comparison().save(tmp_path)
    foreign = {
        "package.json": '{"name": "something", "version": 1}',
        "list.json": "[1, 2, 3]",
        "deep.json": "[" * 100_000,
        "empty.json": "",
        "binary.json": "\x00\xff",
        "other-kind.json": '{"kind": "invoice", "schema_version": 1}',
        "hollow.json": '{"kind": "comparison", "schema_version": 1, "trials": [1]}',
        "newer.json": '{"kind": "comparison", "schema_version": 99}',
    }
    for name, text in foreign.items():
        (tmp_path / name).write_text(text, encoding="latin-1")
    (tmp_path / "folder.json").mkdir()
    frame = lab.history(tmp_path)
    assert set(frame["file"]) == {good.name}
    assert set(frame.attrs["skipped"]) == {*foreign, "folder.json"}
    assert "update labkit" in frame.attrs["skipped"]["newer.json"]
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 6
    assert said[0].startswith("skipped binary.json: ")
    assert said[-1] == 'skipped 4 more: frame.attrs["skipped"]'
    for name, text in foreign.items():
        assert (tmp_path / name).read_text(encoding="latin-1") == text


def test_a_record_cut_off_at_any_byte_is_named_and_skipped(tmp_path):
    whole = comparison().save(tmp_path).read_bytes()
    for length in range(len(whole)):
        (tmp_path / f"cut-{length}.json").write_bytes(whole[:length])
    records, skipped = read_folder(tmp_path)
    assert [r.result for r in records] == [comparison()]
    assert set(skipped) == {f"cut-{length}.json" for length in range(len(whole))}


def test_a_record_changed_at_any_byte_is_never_misread():
    whole = seal(comparison().to_dict())
    seen = 0
    for i, old in enumerate(whole):
        for new in {"0", "1", " ", "e"} - {old}:
            try:
                data = unseal(whole[:i] + new + whole[i + 1 :])
            except ValueError:
                seen += 1
                continue
            # As between "2e-3" and "20e-4": other letters for the same data.
            assert data == json.loads(whole)
    assert seen > 3 * len(whole)


def test_a_record_edited_by_hand_fails_its_checksum(tmp_path):
    path = comparison().save(tmp_path)
    path.write_text(path.read_text().replace('"prediction": 3.0', '"prediction": 2.0'))
    frame = lab.history(tmp_path)
    assert len(frame) == 0
    assert "changed after it was written" in frame.attrs["skipped"][path.name]
    with pytest.raises(ValueError, match="checksum"):
        lab.Comparison.load(path)


def test_a_copy_counts_once(tmp_path):
    path = comparison().save(tmp_path)
    (tmp_path / "x-copy.json").write_bytes(path.read_bytes())
    frame = lab.history(tmp_path)
    assert len(frame) == 2
    assert frame.attrs["skipped"] == {"x-copy.json": f"a copy of {path.name}"}


def test_records_from_before_there_were_checksums_are_read(tmp_path):
    old = without_sha(comparison().to_json())
    old["schema_version"] = 1
    (tmp_path / "old.json").write_text(json.dumps(old))
    assert len(lab.history(tmp_path)) == 2
    assert lab.Comparison.load(tmp_path / "old.json") == comparison()


def test_a_record_without_the_checksum_it_should_have_is_none():
    with pytest.raises(ValueError, match="checksum"):
        unseal(json.dumps(without_sha(comparison().to_json())))


def test_a_half_written_file_is_not_looked_at(tmp_path):
    (tmp_path / ".0123.tmp").write_text(comparison().to_json()[:100])
    assert len(lab.history(tmp_path)) == 0
    assert lab.history(tmp_path).attrs["skipped"] == {}


def test_a_file_that_was_replaced_is_read_again(tmp_path):
    path = comparison().save(tmp_path / "one.json")
    lab.history(tmp_path)
    path.unlink()
    replace(comparison(), prediction=1.25).save(path)
    assert lab.history(tmp_path)["prediction"][1] == 1.25
