"""Any OpenAI-compatible server: vLLM, Ollama, llama.cpp, `tuneloop serve`, a hosted one."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import Any

from tuneloop.errors import PrerequisiteError
from tuneloop.lm.asking import Answer, Ask, Failed, Message
from tuneloop.text import shorten

# Calls at once of `complete`; a generation run has a limiter of its own.
AT_ONCE = 8
# A client looks at each of its connections twice a request: at hundreds of them that is most of a request's cost, so
# hundreds of calls are spread over several clients.
CALLS_A_CLIENT = 16


class Http:
    """One model of one server. The key is never shown: what a server says about it is cut out of messages.

    `timeout` is seconds for a whole answer, however slowly it drips. No retry happens in here but in `complete`.
    """

    def __init__(
        self,
        model: str,
        base_url: str = "http://127.0.0.1:8000/v1",
        api_key: str = "none",
        temperature: float = 0.0,
        timeout: float = 60.0,
        capabilities: Sequence[str] = ("chat",),
    ) -> None:
        self.name, self.base_url, self.temperature, self.timeout = model, base_url, temperature, timeout
        self.capabilities = frozenset(capabilities)
        self._api_key = api_key
        self._clients: list[Any] = []
        self._busy: list[int] = []  # calls under way of each

    def __repr__(self) -> str:
        return f"Http({self.name!r}, {self.base_url!r})"

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[Any]:
        """The client with the least under way; another one where all have CALLS_A_CLIENT."""
        busy = self._busy
        if not busy or min(busy) >= CALLS_A_CLIENT:
            busy.append(0)
            self._clients.append(self._new())
        at = busy.index(min(busy))
        busy[at] += 1
        try:
            yield self._clients[at]
        finally:
            busy[at] -= 1

    def _new(self) -> Any:
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        return AsyncOpenAI(
            base_url=self.base_url, api_key=self._api_key, timeout=self.timeout, max_retries=0,
            http_client=DefaultAsyncHttpxClient(),
        )  # fmt: skip

    async def close(self) -> None:
        clients, self._clients, self._busy = self._clients, [], []
        for client in clients:
            await client.close()

    async def ask(self, ask: Ask, key: str) -> Answer:
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        try:
            async with asyncio.timeout(self.timeout):
                async with self._client() as client:
                    text = (await self._send(client, ask, key)).text
        except (APITimeoutError, TimeoutError) as error:
            raise Failed("timeout", f"no whole answer in {self.timeout:g} s") from error
        except APIConnectionError as error:
            raise Failed("transport", self._clean(f"{error} {error.__cause__ or ''}")) from error
        except APIStatusError as error:
            raise self._refused(error) from error
        except Exception as error:
            if type(error).__module__.split(".")[0] not in ("httpx2", "httpx", "httpcore", "httpcore2", "h11"):
                raise
            raise Failed("transport", self._clean(f"{type(error).__name__}: {error}")) from error
        return _read(text, ask)

    async def _send(self, client: Any, ask: Ask, key: str) -> Any:
        settings: dict[str, Any] = {
            "model": self.name,
            "max_tokens": ask.max_new_tokens,
            "temperature": ask.temperature,
            "top_p": ask.top_p,
            "extra_headers": {"Idempotency-Key": key},
        }
        if ask.seed is not None:
            settings["seed"] = ask.seed
        if ask.stop:
            settings["stop"] = list(ask.stop)
        if ask.prompt is not None:
            settings["logprobs"] = 1 if ask.logprobs else None
            return await client.completions.with_raw_response.create(prompt=ask.prompt, **settings)
        if ask.logprobs:
            settings["logprobs"] = True
        if ask.schema is not None:
            schema = {"name": "answer", "schema": ask.schema, "strict": True}
            settings["response_format"] = {"type": "json_schema", "json_schema": schema}
        return await client.chat.completions.with_raw_response.create(messages=list(ask.messages), **settings)

    def _refused(self, error: Any) -> Failed:
        status = int(error.status_code)
        what = self._clean(f"HTTP {status}: {error.message}")
        if status in (429, 503):
            return Failed("rate_limit", what, wait=retry_after(error.response.headers))
        if status in (408, 409) or status >= 500:
            return Failed("timeout" if status == 408 else "server", what, wait=retry_after(error.response.headers))
        return Failed("request", what)

    def _clean(self, text: str) -> str:
        if len(self._api_key) > 4:
            text = text.replace(self._api_key, "***")
        return shorten(text, 300)

    def complete(self, asks: Sequence[str | list[Message]], *, max_new_tokens: int = 128) -> list[str]:
        """Answers in order, a few at once, up to three tries each, then PrerequisiteError 211."""

        async def one(gate: asyncio.Semaphore, ask: Ask) -> str:
            async with gate:
                for wait in (0.5, 2.0, None):
                    try:
                        return (await self.ask(ask, "")).text
                    except Failed as failure:
                        if wait is None or failure.kind == "request":
                            raise self._unanswered(failure) from failure
                        await asyncio.sleep(failure.wait if failure.wait is not None else wait)
            raise AssertionError("the last try returns or raises")

        async def all_of() -> list[str]:
            gate = asyncio.Semaphore(AT_ONCE)
            try:
                return list(
                    await asyncio.gather(*(one(gate, chat_ask(a, self.temperature, max_new_tokens)) for a in asks))
                )
            finally:
                await self.close()

        return asyncio.run(all_of())

    def _unanswered(self, failure: Failed) -> PrerequisiteError:
        return PrerequisiteError(
            211,
            f"the model server does not answer: {failure.what}",
            where=self.base_url,
            expected=f"an OpenAI-compatible server with the model {self.name}",
            cure="start the server or mend its address",
        )


def chat_ask(ask: str | list[Message], temperature: float, max_new_tokens: int) -> Ask:
    """A bare string is one user message."""
    messages = [{"role": "user", "content": ask}] if isinstance(ask, str) else ask
    return Ask(messages=tuple(messages), temperature=temperature, max_new_tokens=max_new_tokens)


def retry_after(headers: Any) -> float | None:
    """Seconds that the server asks to wait (RFC 9110: a number or a date); None where it does not say."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _read(text: str, ask: Ask) -> Answer:
    """The answer in a response body, checked by hand: a proxy's error page or a cut body is a failure."""
    try:
        body = json.loads(text)
        choice = body["choices"][0]
        content = choice["text"] if ask.prompt is not None else choice["message"]["content"]
        usage = body.get("usage") or {}
        logprobs = _logprobs(choice) if ask.logprobs else None
        if content is None:
            content = ""
        if not isinstance(content, str):
            raise TypeError(f"content is a {type(content).__name__}")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        what = f"the body is no completion ({type(error).__name__}: {error})"
        raise Failed("protocol", shorten(what, 200), raw=text[:2000]) from error
    finish = str(choice.get("finish_reason") or "stop")
    return Answer(content, finish, usage.get("prompt_tokens"), usage.get("completion_tokens"), logprobs)


def _logprobs(choice: dict[str, Any]) -> tuple[float, ...]:
    found = choice["logprobs"]
    values = found["token_logprobs"] if "token_logprobs" in found else [t["logprob"] for t in found["content"]]
    return tuple(float(value) for value in values)
