"""Asks one teacher: from the journal where the answer stands there, else over the limiter with bounded retries."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter

from tuneloop.console import detail
from tuneloop.errors import PrerequisiteError
from tuneloop.lm.asking import TRANSIENT, Answer, Ask, Failed, Teacher, request_key
from tuneloop.lm.journal import Journal
from tuneloop.lm.limiter import Limiter

ATTEMPTS = 6
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 60.0
# So many calls in a row that fail for good, after all retries, mean that the server is gone.
GONE_AFTER = 10


class Stopped(Exception):
    """The run is ending: no new call is made."""


class Caller:
    """`await caller(ask)` gives an Answer or raises Failed (final) or Stopped. `gone` is set when the server is gone.

    Two requests with the same hash are one call. `counts` says what was done: calls (sent and answered), replayed
    (from the journal), in_flight_repeated (sent before a kill and not answered then), retries by kind, failed by kind.
    """

    def __init__(self, teacher: Teacher, journal: Journal, limiter: Limiter, *, first_wait_s: float = FIRST_WAIT_S):
        self.teacher, self.journal, self.limiter = teacher, journal, limiter
        self.first_wait_s = first_wait_s
        self.counts: Counter[str] = Counter()
        self.tokens = {"in": 0, "out": 0}
        self.stopping = False
        self.gone: PrerequisiteError | None = None
        self._shared: dict[str, asyncio.Task[Answer]] = {}
        self._streak = 0

    def stop(self) -> None:
        """Calls that were sent are waited for; none is sent after this."""
        self.stopping = True

    async def __call__(self, ask: Ask) -> Answer:
        key = request_key(self.teacher.name, ask)
        if key in self.journal.answers:
            self.counts["replayed"] += 1
            return self.journal.answers[key]
        if key in self.journal.failures:
            raise self.journal.failures[key]
        task = self._shared.get(key)
        if task is None:
            task = self._shared[key] = asyncio.create_task(self._call(key, ask))
            task.add_done_callback(lambda done: self._ended(key, done))
        return await asyncio.shield(task)

    def _ended(self, key: str, task: asyncio.Task[Answer]) -> None:
        del self._shared[key]
        if not task.cancelled():
            task.exception()  # seen: whoever asked may have gone

    async def close(self) -> None:
        """After `stop`: waits for what was sent. Otherwise drops it: nobody wants the answers any more."""
        tasks = list(self._shared.values())
        if not self.stopping:
            for task in tasks:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.teacher.close()

    async def _call(self, key: str, ask: Ask) -> Answer:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with self.limiter:
                    answer = await self._send(key, ask, attempt)
                break
            except Failed as failure:
                if failure.kind not in TRANSIENT or attempt == ATTEMPTS:
                    self._give_up(key, failure)
                    if self.stopping:
                        raise Stopped from failure
                    raise
                self.counts[f"retry_{failure.kind}"] += 1
                detail(f"call {key[:8]}: {failure.what}; try {attempt + 1} of {ATTEMPTS}")
                await self._wait(failure, attempt, key)
        self._streak = 0
        self.counts["calls"] += 1
        self.tokens["in"] += answer.prompt_tokens or 0
        self.tokens["out"] += answer.completion_tokens or 0
        self.journal.ok(key, answer)
        return answer

    async def _send(self, key: str, ask: Ask, attempt: int) -> Answer:
        if self.stopping:
            raise Stopped
        if attempt == 1:
            self.counts["in_flight_repeated"] += key in self.journal.unfinished
            self.journal.pending(key, ask.template, ask.payload())
        else:
            self.journal.pending_again(key, attempt)
        started = time.monotonic()
        try:
            answer = await self.teacher.ask(ask, key)
        except Failed as failure:
            if failure.kind == "rate_limit":
                self.limiter.overloaded(failure.wait, started)
            if failure.kind in TRANSIENT and attempt < ATTEMPTS:
                self.journal.waiting(key, failure)  # while it holds its place: no more than the limit are in flight
            raise
        self.limiter.ok()
        return answer

    async def _wait(self, failure: Failed, attempt: int, key: str) -> None:
        """Retry-After where the server says it, else twice as long each time, with jitter fixed by the request."""
        backoff = min(LONGEST_WAIT_S, self.first_wait_s * 2 ** (attempt - 1))
        jitter = 0.5 + random.Random(f"{key}{attempt}").random()
        await asyncio.sleep(failure.wait if failure.wait is not None else backoff * jitter)
        if self.stopping:
            raise Stopped

    def _give_up(self, key: str, failure: Failed) -> None:
        self.journal.failed(key, failure)
        self.counts[f"failed_{failure.kind}"] += 1
        self._streak = self._streak + 1 if failure.kind in TRANSIENT else 0
        if self._streak >= GONE_AFTER and self.gone is None:
            self.gone = PrerequisiteError(
                212,
                f"the teacher stopped answering: {self._streak} calls in a row failed ({failure.what})",
                where=self.teacher.name,
                expected="an answer within the retries; what was answered is kept in the journal",
                cure="mend the server and run the same command again: it resumes",
            )
            self.stop()
