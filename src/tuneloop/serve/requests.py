"""What a client may ask, checked: unknown fields are passed over as OpenAI's own servers do, wrong values are named."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

MOST_LOGPROBS = 20


class Refused(Exception):
    """A request that cannot be answered; becomes an error object of the protocol."""

    def __init__(self, what: str, *, status: int = 400, code: str = "invalid_request_error") -> None:
        super().__init__(what)
        self.what, self.status, self.code = what, status, code


class StreamOptions(BaseModel):
    include_usage: bool = False


class Common(BaseModel):
    model_config = ConfigDict(extra="ignore")

    model: str | None = None
    max_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(1.0, ge=0, le=10)
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: int = Field(1, ge=1, le=1, description="one answer a request")

    def stops(self) -> tuple[str, ...]:
        listed = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(text for text in listed if text)


class Turn(BaseModel):
    model_config = ConfigDict(extra="ignore")

    role: str
    content: str | list[dict[str, Any]] | None = None

    def as_message(self) -> dict[str, Any]:
        if isinstance(self.content, list):
            if any(part.get("type") != "text" for part in self.content):
                raise Refused("only text content is read")
            return {"role": self.role, "content": "".join(str(part.get("text", "")) for part in self.content)}
        return {"role": self.role, "content": self.content or ""}


class ChatRequest(Common):
    messages: list[Turn] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=MOST_LOGPROBS)
    response_format: dict[str, Any] | None = None
    tools: list[Any] | None = None

    def check(self) -> None:
        """What would be passed over silently and change the answer is refused."""
        if (self.response_format or {}).get("type", "text") != "text":
            raise Refused("this server does not enforce a response_format", code="unsupported_parameter")
        if self.tools:
            raise Refused("this server does not call tools", code="unsupported_parameter")


class CompletionRequest(Common):
    prompt: str | list[str]
    logprobs: int | None = Field(None, ge=0, le=MOST_LOGPROBS)
    echo: bool = False

    def text(self) -> str:
        if self.echo:
            raise Refused("this server does not echo the prompt", code="unsupported_parameter")
        if isinstance(self.prompt, list):
            if len(self.prompt) != 1:
                raise Refused("one prompt a request")
            return self.prompt[0]
        return self.prompt
