"""`serve`: one model behind the OpenAI protocol."""

from __future__ import annotations

from typing import Annotated

import typer

from tuneloop.cli.options import Config, Model, Quiet, Set, Verbose, load, mode


def serve(
    model: Model = None,
    host: Annotated[str, typer.Option(help="another than loopback wants $TUNELOOP_SERVE_TOKEN")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one")] = 8000,
    template: str | None = None, config: Config = None, sets: Set = None,
    quiet: Quiet = False, verbose: Verbose = False,
) -> None:  # fmt: skip
    """Serves a model to OpenAI clients: chat, completions, streaming, log-probabilities."""
    mode(quiet, verbose)
    settings = load(config, sets, model__name=model, model__template=template).model
    from tuneloop.serve import run_server

    run_server(settings.name, host=host, port=port, template=settings.template)
