"""A model in this process as a teacher: requests that wait together are answered together, in one thread."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from tuneloop.lm.asking import Answer, Ask, Failed
from tuneloop.lm.decode import Job, Said, decode, room
from tuneloop.prompts import encode_prompt
from tuneloop.prompts.templates import start_ids

BATCH = 16


@dataclass
class _Waiting:
    job: Job
    answer: asyncio.Future[Said]


class Batching:
    """`ask` queues; one worker takes what waits, up to BATCH, and decodes it in a thread."""

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.capabilities = frozenset({"chat", "completions", "logprobs"})
        self.under_way = self.given_up = 0  # requests that somebody waits for, and that nobody waited for any more
        self._queue: asyncio.Queue[_Waiting] | None = None
        self._worker: asyncio.Task[None] | None = None

    @classmethod
    def load(cls, name: str, *, template: str | None = None) -> Batching:
        from tuneloop.models import load_model, load_tokenizer
        from tuneloop.prompts import apply_template

        tokenizer = load_tokenizer(name)
        apply_template(tokenizer, template)
        return cls(load_model(name), tokenizer, name)

    def job(self, ask: Ask) -> Job:
        """Raises Failed ('request') where the prompt does not fit the context."""
        if ask.prompt is not None:
            found = self.tokenizer(ask.prompt, add_special_tokens=False)["input_ids"]
            ids = [*start_ids(self.tokenizer), *found]
        else:
            ids = encode_prompt(list(ask.messages), self.tokenizer)
        left = room(self.model, self.tokenizer, ids)
        if left < 1 or not ids:
            raise Failed("request", f"the prompt has {len(ids)} tokens; the context holds {left + len(ids)}")
        return Job(
            ids, min(ask.max_new_tokens, left), ask.temperature, ask.top_p, ask.seed or 0, ask.stop,
            top_logprobs=1 if ask.logprobs else 0,
        )  # fmt: skip

    async def ask(self, ask: Ask, key: str) -> Answer:
        job = self.job(ask)
        said = await self.run(job)
        logprobs = tuple(token.logprob for token in said.tokens) if ask.logprobs else None
        return Answer(said.text, said.finish, len(job.ids), len(said.tokens), logprobs)

    async def run(self, job: Job) -> Said:
        loop = asyncio.get_running_loop()
        if self._queue is None:
            self._queue = asyncio.Queue()
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work(self._queue))
        waiting = _Waiting(job, loop.create_future())
        self._queue.put_nowait(waiting)
        self.under_way += 1
        try:
            return await waiting.answer
        except asyncio.CancelledError:
            job.cancelled = True
            self.given_up += 1
            raise
        finally:
            self.under_way -= 1

    async def _work(self, queue: asyncio.Queue[_Waiting]) -> None:
        while True:
            batch = [await queue.get()]
            await asyncio.sleep(0)  # lets requests of this moment join
            while not queue.empty() and len(batch) < BATCH:
                batch.append(queue.get_nowait())
            batch = [waiting for waiting in batch if not waiting.answer.done()]
            if not batch:
                continue
            try:
                said = await asyncio.to_thread(decode, self.model, self.tokenizer, [w.job for w in batch])
            except Exception as error:  # handed to those who wait; the worker goes on
                for waiting in batch:
                    if not waiting.answer.done():
                        waiting.answer.set_exception(error)
                continue
            for waiting, answer in zip(batch, said, strict=True):
                if not waiting.answer.done():
                    waiting.answer.set_result(answer)

    async def close(self) -> None:
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        self._worker = self._queue = None
