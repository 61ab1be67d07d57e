"""Turns: who measures now, among the runs of one person and of one machine."""

import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from filelock import Timeout

from labkit import turns
from labkit.turns import Places, queue_lock, seats

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there, each run is alone")

SHARED = Path("/tmp")  # noqa: S108 - where everybody may write

HOLD = """
import os, pathlib, sys
from labkit.turns import Places
os.umask(0o077)
if sys.argv[3:]:
    os.setuid(int(sys.argv[3]))
place = Places(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
place.acquire()
print("held", flush=True)
input()
"""


@contextlib.contextmanager
def held_by_another(path, places, *user):
    """Another process that has a place, until the end of the block."""
    command = [sys.executable, "-c", HOLD, str(path), str(places), *map(str, user)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        line = process.stdout.readline()
        assert line == "held\n", process.stderr.read()
        try:
            yield process
        finally:
            process.kill()


def is_free(lock):
    try:
        lock.acquire()
    except Timeout:
        return False
    lock.release()
    return True


@pytest.mark.parametrize(
    ("held", "asked", "free"),
    [(1, 1, False), (1, 2, False), (2, 1, False), (2, 2, True)],
    ids=["alone and alone", "alone and shared", "shared and alone", "shared and shared"],
)
def test_who_is_alone_waits_for_everybody_and_who_shares_for_those_alone(
    tmp_path, held, asked, free
):
    path = tmp_path / "x.lock"
    with held_by_another(path, held):
        assert is_free(Places(path, asked)) == free
    assert is_free(Places(path, asked))


def test_a_place_is_free_again_when_its_holder_is_killed(tmp_path):
    path = tmp_path / "x.lock"
    with held_by_another(path, 1) as process:
        process.kill()
        process.wait()
        assert is_free(Places(path, 1))


def test_a_place_is_free_again_when_nobody_holds_the_lock_any_more(tmp_path):
    path = tmp_path / "x.lock"
    Places(path, 1).acquire()
    assert is_free(Places(path, 1))


def test_no_more_share_it_than_there_are_places(tmp_path):
    path = tmp_path / "x.lock"
    first, second, third = (Places(path, 2) for _ in range(3))
    first.acquire()
    second.acquire()
    assert not is_free(third)
    first.release()
    assert is_free(third)


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="needs root")
@pytest.mark.parametrize("nobody_is_first", [True, False])
def test_people_with_different_accounts_wait_for_each_other(nobody_is_first):
    first, second = ((65534,), ()) if nobody_is_first else ((), (65534,))
    # Not tmp_path: pytest's folders are for one account.
    with tempfile.TemporaryDirectory(dir=SHARED) as folder:
        path = Path(folder, "x.lock")
        path.parent.chmod(0o1777)
        for user in (first, second):
            with held_by_another(path, 1, *user):
                assert not is_free(Places(path, 1))
        assert path.stat().st_mode & 0o666 == 0o666


@pytest.mark.parametrize(
    ("cores", "usable", "expected"), [(8, 8.0, 1), (8, 2.0, 4), (8, 0.5, 8), (2, 1.5, 1), (1, 4, 1)]
)
def test_there_are_as_many_seats_as_quotas_fit_into_the_machine(
    monkeypatch, cores, usable, expected
):
    monkeypatch.setattr(turns.os, "cpu_count", lambda: cores)
    monkeypatch.setattr(turns, "machine", lambda: type("M", (), {"usable_cores": usable}))
    assert seats() == expected


def test_runs_of_one_person_take_turns_also_where_the_machine_has_more_seats(monkeypatch):
    monkeypatch.setattr(turns, "seats", lambda: 8)
    with queue_lock():
        assert not is_free(queue_lock())
    assert is_free(queue_lock())


def test_people_take_turns_on_a_machine_and_measure_at_once_on_a_hub(tmp_path, monkeypatch):
    def person(name):
        """The lock that somebody with a temporary folder of their own takes."""
        (tmp_path / name).mkdir(exist_ok=True)
        monkeypatch.setattr(turns.tempfile, "gettempdir", lambda: str(tmp_path / name))
        return queue_lock()

    monkeypatch.setenv("LABKIT_QUEUE", str(tmp_path))
    for number, free in ((1, [False, False]), (2, [True, False])):
        monkeypatch.setattr(turns, "seats", lambda number=number: number)
        with person("Ada"):
            found = []
            with contextlib.ExitStack() as stack:
                for name in ("Bo", "Cy"):
                    found.append(is_free(person(name)))
                    if found[-1]:
                        stack.enter_context(person(name))
        assert found == free
        assert is_free(person("Dee"))


def test_a_run_refused_its_turn_leaves_nothing_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_QUEUE", str(tmp_path))
    (path,) = [turns._file_of_the_machine()]
    with held_by_another(path, 1):
        for _ in range(3):
            assert not is_free(queue_lock())
    assert is_free(queue_lock())


def test_a_folder_that_is_none_is_refused_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_QUEUE", str(tmp_path / "missing"))
    with pytest.raises(NotADirectoryError, match=r"chmod 1777 .*missing.*leave the variable out"):
        queue_lock()


def test_where_no_folder_is_shared_each_person_has_a_queue(monkeypatch):
    def refused(path, opened=turns.open_for_all):
        if path.parent == SHARED:
            raise PermissionError(path)
        return opened(path)

    monkeypatch.delenv("LABKIT_QUEUE")
    monkeypatch.setattr(turns, "open_for_all", refused)
    with queue_lock():
        assert not is_free(queue_lock())
