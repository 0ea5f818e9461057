"""Many requests to one server, each answer kept as it comes: one that dies half-way costs only what was under way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tuneloop.console import progress, warn
from tuneloop.errors import PartialError, PrerequisiteError
from tuneloop.lm.asking import Answer, Ask, Failed, Message
from tuneloop.lm.caller import Caller
from tuneloop.lm.http import Http, chat_ask
from tuneloop.lm.journal import Journal
from tuneloop.lm.limiter import Limiter

AT_ONCE = 32
FIRST_WAIT_S = 0.5


@dataclass(slots=True)
class Kept:
    """A server as an LM; what stands in `journal` is not asked again. A refused request has an empty answer."""

    lm: Http
    journal: Path

    def complete(self, asks: Sequence[str | list[Message]], *, max_new_tokens: int = 128) -> list[str]:
        wanted = [chat_ask(ask, self.lm.temperature, max_new_tokens) for ask in asks]
        return [found.text if isinstance(found, Answer) else "" for found in ask_all(self.lm, wanted, self.journal)]


def ask_all(lm: Http, asks: Sequence[Ask], journal: Path) -> list[Answer | Failed]:
    """The answers in order, and Failed ('request') for what the server refuses, which is counted aloud.

    Raises PartialError 430 when the server stops answering, PrerequisiteError 211 when it never did.
    """
    found = asyncio.run(_all(lm, asks, journal))
    refused = [f for f in found if isinstance(f, Failed)]
    if refused:
        warn(f"the server refused {len(refused):,} of {len(asks):,} requests, which count as empty: {refused[0].what}")
    return found


async def _all(lm: Http, asks: Sequence[Ask], path: Path) -> list[Answer | Failed]:
    journal = Journal(path)
    caller = Caller(lm, journal, Limiter(AT_ONCE), first_wait_s=FIRST_WAIT_S)
    try:
        with progress(f"asking {lm.name}", len(asks)) as bar:

            async def one(ask: Ask) -> Answer | Failed:
                try:
                    return await caller(ask)
                except Failed as failure:
                    if failure.kind != "request":
                        raise
                    return failure
                finally:
                    bar.advance()

            tasks = [asyncio.ensure_future(one(ask)) for ask in asks]
            try:
                found = list(await asyncio.gather(*tasks))
            except (Failed, PrerequisiteError) as error:
                caller.stop()
                await asyncio.gather(*tasks, return_exceptions=True)
                raise _stopped(lm, journal, len(asks), error) from error
        if asks and all(isinstance(f, Failed) for f in found):
            raise _never(lm, str(found[0]))
        return found
    finally:
        journal.close()
        await lm.close()


def _stopped(lm: Http, journal: Journal, asked: int, error: Exception) -> PartialError | PrerequisiteError:
    if not journal.answers:
        return _never(lm, str(error).splitlines()[0])
    return PartialError(
        430, f"the server stopped after {len(journal.answers):,} of {asked:,} answers: {str(error).splitlines()[0]}",
        where=lm.base_url, expected="an answer to every request; those that came are kept",
        cure="mend the server and run the same command again: it goes on where it stopped",
    )  # fmt: skip


def _never(lm: Http, what: str) -> PrerequisiteError:
    return PrerequisiteError(
        211, f"the model server does not answer: {what}", where=lm.base_url,
        expected=f"an OpenAI-compatible server with the model {lm.name}", cure="start the server or mend its address",
    )  # fmt: skip
