"""Runs candidates of a method many at once and accepts them in order, so that what is accepted depends on no timing.

Candidate i may start once the candidates before i - w(i) have been decided, where w grows from 8 to `window`: so a run
that yields nothing has cost little when it is noticed, and what i sees of the pool is fixed. Whether i starts at all is
decided by the decided ones alone: rows wanted, tokens and money spent so far. Only a limit in seconds reads the clock.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from tuneloop.config.generate import GenerateConfig, Price
from tuneloop.errors import PartialError
from tuneloop.generate.candidate import Candidate, Dropped
from tuneloop.generate.pool import Pool
from tuneloop.lm.asking import Failed
from tuneloop.lm.caller import Caller, Stopped
from tuneloop.lm.journal import Journal
from tuneloop.records import Example
from tuneloop.text import shorten

FIRST_WINDOW = 8
# So many candidates without a row mean that something is wrong with prompt, teacher or filters.
HOPELESS_AFTER = 20
# And so many in a row later on: the teacher has nothing new to say, and the run ends with what it has.
EXHAUSTED_AFTER = 150
Make = Callable[[Candidate], Awaitable[list[Example | Dropped]]]


@dataclass
class Tokens:
    """Tokens of the answers that the decided candidates used; each answer once."""

    asked: int = 0
    told: int = 0

    @property
    def all(self) -> int:
        return self.asked + self.told


@dataclass
class Outcome:
    """What became of one candidate. `rows` are finished rows and rows already dropped, in the order they were made."""

    state: str  # made | dropped | failed
    rows: list[Example | Dropped] = field(default_factory=list)
    reason: str = ""
    value: str = ""
    raw: str = ""
    requests: list[str] = field(default_factory=list)
    judged: list[str] = field(default_factory=list)


@dataclass
class Tally:
    """Counts of the run so far; `refused` holds what the rejected file says."""

    candidates: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    refused: list[dict[str, Any]] = field(default_factory=list)
    teacher: Tokens = field(default_factory=Tokens)
    judge: Tokens = field(default_factory=Tokens)
    stopped: str = ""
    last_raw: str = ""


def spent(price: Price | None, tokens_in: int, tokens_out: int) -> float | None:
    """US dollars, or None where the price is unknown."""
    return None if price is None else (tokens_in * price.input + tokens_out * price.output) / 1e6


class Engine:
    def __init__(
        self, config: GenerateConfig, make: Make, new: Callable[[int, Pool], Candidate], pool: Pool,
        callers: list[Caller], journal: Journal, total: int | None,
    ) -> None:  # fmt: skip
        self.config, self.make, self.new, self.pool, self.callers = config, make, new, pool, callers
        self.journal, self.total = journal, total
        self.tally = Tally()
        self.started, self.seconds = time.monotonic(), 0.0
        self.stopping = False
        self._fruitless = 0
        self._counted: set[str] = set()

    def stop(self) -> None:
        """What was sent is waited for; no new call is made."""
        self.stopping = True
        for caller in self.callers:
            caller.stop()

    async def run(self, show: Callable[[Engine], None]) -> None:
        """Until a limit, the end of the inputs, or `stop`. Raises PartialError 430 where nothing comes of it."""
        running: deque[asyncio.Task[Outcome]] = deque()
        try:
            while True:
                while self._may_start(len(running)):
                    candidate = self.new(self.tally.candidates + len(running), self.pool)
                    running.append(asyncio.create_task(self._work(candidate)))
                if not running:
                    break
                try:
                    outcome = await running.popleft()
                except Stopped:
                    break  # what was begun after it cannot be accepted before it
                self._decide(outcome)
                show(self)
                self._check_hope()
        finally:
            self.seconds = time.monotonic() - self.started
            await self._end(running)

    async def _end(self, running: deque[asyncio.Task[Outcome]]) -> None:
        if self.stopping:
            await asyncio.gather(*running, return_exceptions=True)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _may_start(self, running: int) -> bool:
        done, limits = self.tally.candidates, self.config.limits
        index = done + running
        if self.stopping or self.tally.stopped or (self.total is not None and index >= self.total):
            return False
        if running >= min(self.config.window, FIRST_WINDOW + index // 2):
            return False
        accepted = len(self.pool.rows)
        if limits.rows is not None:
            rate = (accepted + 1) / (done + 1)  # rows a candidate, one assumed ahead
            if running and running * rate >= limits.rows - accepted:
                return False
        share = (running + 1) / done if done else 0.0
        tokens = self.tally.teacher.all + self.tally.judge.all
        if limits.tokens is not None and tokens * (1 + share) > limits.tokens:
            return self._out_of("tokens", running)
        cost = self.cost()
        if limits.usd is not None and cost is not None and cost * (1 + share) > limits.usd:
            return self._out_of("usd", running)
        if limits.seconds is not None and time.monotonic() - self.started > limits.seconds:
            return self._out_of("seconds", running)
        return True

    def cost(self) -> float | None:
        """US dollars so far, or None where a price is unknown. A teacher that judges itself has one price."""
        tally, judge = self.tally, self.config.judge and self.config.judge.teacher
        asked = spent(self.config.teacher.price, tally.teacher.asked, tally.teacher.told)
        graded = spent((judge or self.config.teacher).price, tally.judge.asked, tally.judge.told)
        return None if asked is None or (graded is None and tally.judge.all) else asked + (graded or 0.0)

    def _out_of(self, what: str, running: int) -> bool:
        if not running:
            self.tally.stopped = what
        return False

    async def _work(self, candidate: Candidate) -> Outcome:
        try:
            rows = await self.make(candidate)
            found = Outcome("made", rows)
        except Dropped as dropped:
            found = Outcome("dropped", [], dropped.reason, dropped.value)
        except Failed as failed:
            found = Outcome("failed", [], failed.kind, failed.what, failed.raw)
        found.raw = found.raw or candidate.raw
        found.requests, found.judged = candidate.requests, candidate.judged
        return found

    def _decide(self, outcome: Outcome) -> None:
        """The next candidate in order: its rows join the pool or are dropped, and the journal says so."""
        index = self.tally.candidates
        self.tally.candidates += 1
        self.tally.last_raw = outcome.raw or self.tally.last_raw
        self._count(outcome.requests, self.tally.teacher)
        self._count(outcome.judged, self.tally.judge)
        before = len(self.pool.rows)
        self._settle(index, outcome)
        self._fruitless = self._fruitless + 1 if len(self.pool.rows) == before else 0
        if self.config.limits.rows is not None and len(self.pool.rows) >= self.config.limits.rows:
            self.tally.stopped = "rows"

    def _count(self, requests: list[str], tokens: Tokens) -> None:
        for key in requests:
            answer = self.journal.answers.get(key)
            if answer is not None and key not in self._counted:
                self._counted.add(key)
                tokens.asked += answer.prompt_tokens or 0
                tokens.told += answer.completion_tokens or 0

    def _settle(self, index: int, outcome: Outcome) -> None:
        if outcome.state == "failed":
            self.tally.failed[outcome.reason] += 1
        if outcome.state != "made":
            self._refuse(index, outcome.state, outcome.reason, outcome.value, outcome)
            self.journal.candidate(
                index, outcome.state, reason=outcome.reason, value=shorten(outcome.value, 200),
                calls=outcome.requests,
            )  # fmt: skip
            return
        kept, reasons = self._admit(index, outcome)
        state = "accepted" if kept else "dropped"
        self.journal.candidate(index, state, rows=kept, reasons=reasons, calls=outcome.requests)

    def _admit(self, index: int, outcome: Outcome) -> tuple[list[str], list[str]]:
        kept: list[str] = []
        reasons: list[str] = []
        for row in outcome.rows:
            try:
                if isinstance(row, Dropped):
                    raise row
                if self.config.limits.rows is not None and len(self.pool.rows) >= self.config.limits.rows:
                    raise Dropped("enough", "the rows wanted were there")
                self.pool.admit(row)
                kept.append(row.id)
            except Dropped as found:
                reasons.append(found.reason)
                self._refuse(index, "dropped", found.reason, found.value, outcome)
        if not outcome.rows:
            reasons.append("empty")
            self._refuse(index, "dropped", "empty", "no row in the answer", outcome)
        return kept, reasons

    def _refuse(self, index: int, state: str, reason: str, value: str, outcome: Outcome) -> None:
        if state == "dropped":
            self.tally.dropped[reason] += 1
        calls = outcome.requests[-1:]
        self.tally.refused.append(
            {"candidate": index, "state": state, "reason": reason, "value": shorten(value, 300), "calls": calls,
             "raw": outcome.raw[:2000]}
        )  # fmt: skip

    def _check_hope(self) -> None:
        if self._fruitless >= EXHAUSTED_AFTER and not self.tally.stopped:
            self.tally.stopped = f"no row in {EXHAUSTED_AFTER} candidates"
        if self.tally.candidates == HOPELESS_AFTER and not self.pool.rows:
            ranked = (self.tally.dropped + self.tally.failed).most_common()
            listed = ", ".join(f"{count} {reason}" for reason, count in islice(ranked, 6))
            raise PartialError(
                430,
                f"the first {HOPELESS_AFTER} candidates gave no row: {listed}",
                where=f"last answer: {shorten(self.tally.last_raw, 500) or '(none)'}",
                expected="some rows among so many; rejected.jsonl and journal.jsonl hold all of them",
                cure="look at the prompt with --dry-run, then mend the template, the teacher or generate.filters",
            )
