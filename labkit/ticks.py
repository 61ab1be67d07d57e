"""Work that is done in small pieces on the event loop of the kernel, while cells are answered.

No thread is started: the loop that ran when the panel was made calls back between cells.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Ticker:
    """Calls a function again and again until it has enough.

    Args:
        tick: returns the seconds until its next call; None to end. It must not raise.
    """

    def __init__(self, tick: Callable[[], float | None]) -> None:
        self._tick = tick
        self._scheduled = False
        self._loop = _running_loop()

    def start(self) -> bool:
        """Begin, from whichever thread.

        Returns:
            False if there is no loop that could call: the caller has to wait by itself.
        """
        loop = self._loop if self._loop and self._loop.is_running() else _running_loop()
        if loop is None:
            return False
        self._loop = loop
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon_threadsafe(self._call)
        return True

    def _call(self) -> None:
        # Before the call: a start() that comes while it ends must not be lost.
        self._scheduled = False
        delay_s = self._tick()
        if delay_s is not None and self._loop is not None and not self._scheduled:
            self._scheduled = True
            self._loop.call_later(delay_s, self._call)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
