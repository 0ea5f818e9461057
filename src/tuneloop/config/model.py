"""Which model, and how its conversations are laid out."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tuneloop.config.base import Section


class ModelConfig(Section):
    name: str = Field(
        "world",
        description="folder, hub name, or 'world' for the base that the package ships",
    )
    revision: str | None = None
    # None: the tokenizer's own template; a base without one needs a name here.
    template: str | None = None
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = "auto"
    adapter: str | None = None
    base_url: str | None = Field(None, description="an OpenAI-compatible server that answers as `name`; eval only")
    api_key_env: str | None = Field(None, description="environment variable that holds the server's key")
