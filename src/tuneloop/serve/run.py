"""Starts the server on an address that is safe to use: loopback, or any other with a token."""

from __future__ import annotations

import ipaddress
import os
import socket

from tuneloop.console import say
from tuneloop.errors import PrerequisiteError, UsageError
from tuneloop.lm.batching import Batching

TOKEN_VARIABLE = "TUNELOOP_SERVE_TOKEN"
LEAST_TOKEN = 16


def check_address(host: str, token: str | None) -> None:
    """Raises UsageError 175 for an address that others can reach without a token of some length."""
    try:
        inside = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        inside = False
    if not inside and len(token or "") < LEAST_TOKEN:
        raise UsageError(
            175, f"{host} can be reached by others, and {'no token is set' if not token else 'the token is short'}",
            where="--host", expected=f"loopback, or a token of {LEAST_TOKEN} characters or more in ${TOKEN_VARIABLE}",
            cure=f"export {TOKEN_VARIABLE}=$(openssl rand -hex 16), or leave --host out",
        )  # fmt: skip


def run_server(name: str, *, host: str = "127.0.0.1", port: int = 8000, template: str | None = None) -> None:
    """Serves until a signal. The token comes from the environment, so that it stands in no process list."""
    token = os.environ.get(TOKEN_VARIABLE) or None
    check_address(host, token)
    try:
        import fastapi  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise PrerequisiteError(
            215, f"{error.name} is not installed", where="tuneloop serve", cure="pip install 'tuneloop[serve]'"
        ) from error
    listening = _bind(host, port)
    teacher = Batching.load(name, template=template)
    from tuneloop.serve.app import build

    config = uvicorn.Config(build(teacher, token=token), log_level="warning", access_log=False)
    say(f"serving {name} on http://{host}:{listening.getsockname()[1]}/v1" + (" (token needed)" if token else ""))
    uvicorn.Server(config).run(sockets=[listening])


def _bind(host: str, port: int) -> socket.socket:
    """Bound before the model is loaded: a port in use is said at once. Port 0 takes a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise UsageError(
            176, f"cannot listen on {host}:{port}: {error.strerror or error}", where="--port",
            cure="choose another --port (0 takes a free one)",
        ) from error  # fmt: skip
    return listening
