"""The HTTP side: routes, the token, errors as objects of the protocol, pieces as server-sent events."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tuneloop.lm.asking import Ask, Failed
from tuneloop.lm.batching import Batching
from tuneloop.lm.decode import Job, Said, Token
from tuneloop.serve import replies
from tuneloop.serve.requests import ChatRequest, Common, CompletionRequest, Refused
from tuneloop.store import sha256_text

# Whole answers that are kept for a repeated Idempotency-Key.
KEPT_ANSWERS = 1024
DEFAULT_TOKENS = 512
LOOK_SECONDS = 0.1  # between two looks whether the client is still there


@dataclass
class Kept:
    """Answers by idempotency key and body: the same request sent again after a lost connection costs nothing."""

    answers: OrderedDict[str, dict[str, Any]] = field(default_factory=OrderedDict)

    async def get(self, key: str | None, body: Common, make: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        if not key:
            return await make()
        name = sha256_text(f"{key}\n{body.model_dump_json()}")
        if name not in self.answers:
            self.answers[name] = await make()
            while len(self.answers) > KEPT_ANSWERS:
                self.answers.popitem(last=False)
        return self.answers[name]


class Guard:
    """Lets in who carries the token. Plain ASGI: a middleware of functions would hide that a client went away."""

    def __init__(self, app: Any, token: str) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] != "/health":
            given = dict(scope["headers"]).get(b"authorization", b"").removeprefix(b"Bearer ").strip()
            if not hmac.compare_digest(given, self.token.encode()):
                from fastapi.responses import JSONResponse

                error = Refused("a wrong token, or none", status=401, code="invalid_api_key")
                return await _error(JSONResponse, error)(scope, receive, send)  # type: ignore[no-any-return]
        await self.app(scope, receive, send)


def build(teacher: Batching, *, token: str | None = None) -> Any:
    """The ASGI application. With a token every request must carry it as `Authorization: Bearer`."""
    from fastapi import FastAPI, Request
    from fastapi.responses import StreamingResponse

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        yield
        await teacher.close()

    app = FastAPI(title="tuneloop", lifespan=life, docs_url=None, redoc_url=None, openapi_url=None)
    kept = Kept()

    _tell_errors(app)
    if token:
        app.add_middleware(Guard, token=token)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "under_way": teacher.under_way, "given_up": teacher.given_up}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return replies.models(teacher.name, teacher.capabilities)

    async def answered(request: Request, body: Common, make: Callable[[], Coroutine[Any, Any, dict[str, Any]]]) -> Any:
        return await kept.get(request.headers.get("idempotency-key"), body, lambda: _while_there(request, make()))

    async def chat(body: ChatRequest, request: Request) -> Any:
        body.check()
        job = _chat_job(teacher, body)
        if body.stream:
            return StreamingResponse(_events(_chat_pieces(teacher, body, job)), media_type="text/event-stream")
        return await answered(request, body, lambda: _chat(teacher, body, job))

    async def complete(body: CompletionRequest, request: Request) -> Any:
        job = _text_job(teacher, body)
        if body.stream:
            return StreamingResponse(_events(_text_pieces(teacher, body, job)), media_type="text/event-stream")
        return await answered(request, body, lambda: _text(teacher, body, job))

    # Annotations are strings here, and these classes are local names: FastAPI is given the real ones.
    chat.__annotations__ = {"body": ChatRequest, "request": Request}
    complete.__annotations__ = {"body": CompletionRequest, "request": Request}
    app.post("/v1/chat/completions")(chat)
    app.post("/v1/completions")(complete)
    return app


def _tell_errors(app: Any) -> None:
    """Whatever goes wrong is told as an error object of the protocol."""
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse
    from starlette.exceptions import HTTPException

    def named(request: Any, error: Any) -> Refused:
        if isinstance(error, Refused):
            return error
        if isinstance(error, RequestValidationError):
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"] if part != "body")
            return Refused(f"{place}: {first['msg']}")
        if isinstance(error, HTTPException):
            what = f"{request.method} {request.url.path}: {error.detail}"
            return Refused(what, status=error.status_code, code="not_found")
        return Refused(
            f"this server failed: {type(error).__name__}", status=500, code="server_error"
        )  # the log has all

    async def told(request: Any, error: Any) -> Any:
        return _error(JSONResponse, named(request, error))

    for kind in (Refused, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, told)


async def _while_there(request: Any, answer: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    """The answer; given up where the client goes away before it, so that nobody waits behind it for nothing."""
    task = asyncio.create_task(answer)
    try:
        while not (await asyncio.wait([task], timeout=LOOK_SECONDS))[0]:
            if await request.is_disconnected():
                raise Refused("the client went away", status=499, code="client_closed_request")
        return task.result()
    finally:
        task.cancel()


def _error(response: Any, error: Refused) -> Any:
    body = {"error": {"message": error.what, "type": "invalid_request_error", "param": None, "code": error.code}}
    return response(body, status_code=error.status)


def _job(teacher: Batching, body: Common, **asked: Any) -> Job:
    if body.model not in (None, "", teacher.name):
        raise Refused(f"no model '{body.model}'; this server has '{teacher.name}'", status=404, code="model_not_found")
    limit = getattr(body, "max_completion_tokens", None) or body.max_tokens or DEFAULT_TOKENS
    ask = Ask(
        **asked, max_new_tokens=limit, temperature=body.temperature, top_p=body.top_p, seed=body.seed, stop=body.stops()
    )
    try:
        return teacher.job(ask)
    except Failed as failure:
        raise Refused(failure.what, code="context_length_exceeded") from failure


def _chat_job(teacher: Batching, body: ChatRequest) -> Job:
    job = _job(teacher, body, messages=tuple(turn.as_message() for turn in body.messages))
    job.top_logprobs = body.top_logprobs if body.logprobs else 0
    return job


def _text_job(teacher: Batching, body: CompletionRequest) -> Job:
    job = _job(teacher, body, prompt=body.text())
    job.top_logprobs = body.logprobs or 0
    return job


async def _chat(teacher: Batching, body: ChatRequest, job: Job) -> dict[str, Any]:
    said = await teacher.run(job)
    logprobs = replies.chat_logprobs(said.tokens, body.top_logprobs) if body.logprobs else None
    choice = replies.chat_choice(said.text, said.finish, logprobs)
    return replies.head("chat.completion", teacher.name) | {"choices": [choice], "usage": replies.usage(job, said)}


async def _text(teacher: Batching, body: CompletionRequest, job: Job) -> dict[str, Any]:
    said = await teacher.run(job)
    logprobs = None if body.logprobs is None else replies.text_logprobs(said.tokens, body.logprobs)
    choice = replies.text_choice(said.text, said.finish, logprobs)
    return replies.head("text_completion", teacher.name) | {"choices": [choice], "usage": replies.usage(job, said)}


async def _pieces(teacher: Batching, job: Job) -> AsyncIterator[tuple[str, list[Token]] | Said]:
    """Pieces as they are decoded, then the whole; a client that goes away cancels its row."""
    loop, pieces = asyncio.get_running_loop(), asyncio.Queue[Any]()

    def tell(text: str, tokens: list[Token]) -> None:
        loop.call_soon_threadsafe(pieces.put_nowait, (text, tokens))

    job.tell = tell
    task = asyncio.create_task(teacher.run(job))
    task.add_done_callback(lambda _: pieces.put_nowait(None))
    try:
        while (piece := await pieces.get()) is not None:
            yield piece
        yield task.result()
    finally:
        job.cancelled = True
        task.cancel()


async def _chat_pieces(teacher: Batching, body: ChatRequest, job: Job) -> AsyncIterator[dict[str, Any]]:
    top = replies.head("chat.completion.chunk", teacher.name)
    yield top | {"choices": [replies.chat_delta({"role": "assistant", "content": ""}, None)]}
    async for piece in _pieces(teacher, job):
        if isinstance(piece, Said):
            yield top | {"choices": [replies.chat_delta({}, piece.finish)]}
            if body.stream_options and body.stream_options.include_usage:
                yield top | {"choices": [], "usage": replies.usage(job, piece)}
        else:
            text, tokens = piece
            logprobs = replies.chat_logprobs(tokens, body.top_logprobs) if body.logprobs else None
            yield top | {"choices": [replies.chat_delta({"content": text}, None, logprobs)]}


async def _text_pieces(teacher: Batching, body: CompletionRequest, job: Job) -> AsyncIterator[dict[str, Any]]:
    top = replies.head("text_completion", teacher.name)
    start = 0
    async for piece in _pieces(teacher, job):
        if isinstance(piece, Said):
            yield top | {"choices": [replies.text_choice("", piece.finish, None)]}
            if body.stream_options and body.stream_options.include_usage:
                yield top | {"choices": [], "usage": replies.usage(job, piece)}
        else:
            text, tokens = piece
            logprobs = None if body.logprobs is None else replies.text_logprobs(tokens, body.logprobs, start)
            start += sum(len(token.text) for token in tokens)
            yield top | {"choices": [replies.text_choice(text, None, logprobs)]}


async def _events(pieces: AsyncIterator[dict[str, Any]]) -> AsyncIterator[str]:
    async for piece in pieces:
        yield f"data: {json.dumps(piece)}\n\n"
    yield "data: [DONE]\n\n"
