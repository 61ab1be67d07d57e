"""Whose turn it is: timed runs on one machine wait for each other, whoever started them."""

from __future__ import annotations

import contextlib
import math
import os
import stat
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from filelock import FileLock, Timeout

from labkit.machines import machine

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Sequence

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Lock(Protocol):
    """What a run takes before it measures; ``with`` takes it, or raises Timeout at once."""

    def acquire(self, timeout: float = 0) -> object:
        """Take it, or raise Timeout."""

    def release(self) -> None:
        """Give it back; a second time does nothing."""

    def __enter__(self) -> object:
        """Take it."""

    def __exit__(self, *_: object) -> None:
        """Give it back."""


def queue_lock(at_once: int = 1) -> Lock:
    """The lock that timed runs queue for: those of one person, and those of one machine.

    Where everybody may use all cores, runs of all people take turns. Where each person has a
    quota, as on a hub, as many run at once as the machine has cores for; the runs of one person
    still take turns, for they share one quota.

    Containers on one machine see each other if the environment variable LABKIT_QUEUE names a
    folder that all of them share.

    Args:
        at_once: 1: alone; more: together with other runs that say so, up to this many.

    Raises:
        NotADirectoryError: LABKIT_QUEUE names no folder.
        PermissionError: no file can be made or opened in that folder.
    """
    owner = os.getuid() if hasattr(os, "getuid") else "user"
    mine = Path(tempfile.gettempdir()) / f"labkit-{owner}.lock"
    if sys.platform == "win32":
        return FileLock(mine, thread_local=False)
    locks = [Places(mine, at_once)]
    everybody = _file_of_the_machine()
    if everybody is not None:
        locks.append(Places(everybody, max(at_once, seats())))
    return Turn(locks)


def seats() -> int:
    """How many can measure on this machine, each with the cores that this process may use."""
    return max(1, (os.cpu_count() or 1) // math.ceil(machine().usable_cores))


class Turn:
    """Several locks, taken together or not at all."""

    def __init__(self, locks: Sequence[Places]) -> None:
        self._locks = locks

    def acquire(self, timeout: float = 0) -> None:
        """Take all of them now.

        Args:
            timeout: 0, as nobody waits in here.

        Raises:
            Timeout: it is somebody else's turn.
        """
        if timeout:
            raise ValueError(f"timeout={timeout}: ask again instead")
        try:
            for lock in self._locks:
                lock.acquire()
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Give them back; a second time does nothing."""
        for lock in self._locks:
            lock.release()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Places:
    """A file that one holds alone, or a few share.

    ``flock`` knows both kinds, and lets go when the process ends, however it ends.

    Args:
        path: of the file.
        places: 1: alone; more: how many may share it at the same time.
    """

    def __init__(self, path: Path, places: int) -> None:
        self._path = path
        self._places = places
        self._held: list[int] = []

    def acquire(self) -> None:
        """Take a place now.

        Raises:
            Timeout: somebody is alone on it, or all places are taken.
        """
        alone = self._places == 1
        if self._take(self._path, fcntl.LOCK_EX if alone else fcntl.LOCK_SH):
            if alone:
                return
            for number in range(self._places):
                if self._take(self._path.with_suffix(f".{number}"), fcntl.LOCK_EX):
                    return
            self.release()
        raise Timeout(str(self._path))

    def release(self) -> None:
        """Give it back; a second time does nothing."""
        while self._held:
            os.close(self._held.pop())

    def __del__(self) -> None:
        """A run that nobody holds any more must not keep others waiting."""
        self.release()

    def _take(self, path: Path, kind: int) -> bool:
        handle = open_for_all(path)
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except BaseException as error:
            os.close(handle)
            if isinstance(error, BlockingIOError):
                return False
            raise
        self._held.append(handle)
        return True


def open_for_all(path: Path) -> int:
    """Open a lock file that others may have made, or make it so that others can open it."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        # Asking to create a file that is somebody else's is refused in a folder like /tmp
        # (fs.protected_regular), though opening it is not.
        with contextlib.suppress(FileNotFoundError):
            return os.open(path, flags)
        with contextlib.suppress(FileExistsError):
            handle = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
            os.fchmod(handle, 0o666)  # whatever the umask is
            return handle


def _file_of_the_machine() -> Path | None:
    """The lock file that everybody here can open; None: there is no such place."""
    # A folder can be shared by several machines; containers on one have names of their own.
    boot = _BOOT_ID.read_text(encoding="ascii").strip() if _BOOT_ID.exists() else "machine"
    named = os.environ.get("LABKIT_QUEUE", "").strip()
    folder = Path(named or "/tmp")  # noqa: S108 - TMPDIR differs from person to person
    path = folder / f"labkit-{boot[:13]}.lock"
    if not named and not (folder.is_dir() and folder.stat().st_mode & stat.S_ISVTX):
        return None
    try:
        os.close(open_for_all(path))
    except OSError as error:
        if not named:
            return None
        way_out = (
            f"LABKIT_QUEUE={named}: name a folder that everybody on this machine can write to "
            f"(mkdir -p {named}; chmod 1777 {named}), or leave the variable out"
        )
        kind = PermissionError if isinstance(error, PermissionError) else NotADirectoryError
        raise kind(way_out) from error
    return path
