"""Stage: one model behind the OpenAI protocol: chat, plain completions, streaming, log-probabilities."""

from __future__ import annotations

from tuneloop.serve.run import run_server

__all__ = ["run_server"]
