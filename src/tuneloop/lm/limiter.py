"""How many calls run at once: more while all goes well, half after a 429 or 503, none before its Retry-After."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from types import TracebackType


class Limiter:
    """Additive increase, multiplicative decrease, as TCP does it: `async with limiter: call`.

    Starts with `start` and grows by one a success until the first overload, then by one a round of successes.
    """

    def __init__(self, most: int, start: int = 16) -> None:
        self.most, self.limit = most, float(min(start, most))
        self.running, self.peak, self.cuts = 0, 0, 0
        self._grown = False
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._paused_until = self._last_cut = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def ok(self) -> None:
        self.limit = min(float(self.most), self.limit + (1 / self.limit if self._grown else 1))

    def overloaded(self, wait: float | None, started: float) -> None:
        """Halves the limit, once for all calls that were sent before the last cut; `started` is `time.monotonic()`."""
        if wait:
            self._paused_until = max(self._paused_until, time.monotonic() + wait)
        self._grown = True
        if started >= self._last_cut:
            self._last_cut = time.monotonic()
            self.limit = max(1.0, self.limit / 2)
            self.cuts += 1

    def _open(self) -> bool:
        return self.running < int(self.limit) and time.monotonic() >= self._paused_until

    async def __aenter__(self) -> None:
        while not self._open():
            self._wake_later()
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            try:
                await future
            except asyncio.CancelledError:
                self._wake()  # the turn of a cancelled call goes to the next
                raise
        self.running += 1
        self.peak = max(self.peak, self.running)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.running -= 1
        self._wake()

    def _wake(self) -> None:
        free = max(0, int(self.limit) - self.running)
        while free and self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                free -= 1

    def _wake_later(self) -> None:
        """While paused no call ends that could wake the others, so a timer does."""
        left = self._paused_until - time.monotonic()
        if left > 0 and (self._timer is None or self._timer.cancelled()):
            self._timer = asyncio.get_running_loop().call_later(left + 0.001, self._timed)

    def _timed(self) -> None:
        self._timer = None
        self._wake()
