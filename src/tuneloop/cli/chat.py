"""`chat`: talk to one model or two."""

from __future__ import annotations

from typing import Annotated

import typer


def chat(
    model: Annotated[str, typer.Option("--model", "-m", help="a model or tune")],
    against: Annotated[str | None, typer.Option(help="a second model that answers the same prompts")] = None,
    template: str | None = None,
    prompt: Annotated[str | None, typer.Option(help="ask once and leave")] = None,
    max_new_tokens: int = 128,
) -> None:
    """Talk to a model; `--against` shows a second one's answer below."""
    from tuneloop.cli.talk import chat as run_chat

    run_chat([model, *([against] if against else [])], template, prompt, max_new_tokens)
