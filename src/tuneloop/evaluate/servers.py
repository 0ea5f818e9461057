"""Models and judges behind an address, and the files in which their answers are kept."""

from __future__ import annotations

import os
from pathlib import Path

from tuneloop.config import JudgeSpec, ModelConfig
from tuneloop.errors import UsageError
from tuneloop.evaluate.written import Judge
from tuneloop.judge import CRITERIA, Criterion
from tuneloop.lm import Http, Local
from tuneloop.lm.kept import Kept
from tuneloop.models import load_model, load_tokenizer
from tuneloop.prompts import apply_template
from tuneloop.scoring import Served
from tuneloop.store import sha256_text


def served(model: ModelConfig, kept: Path) -> Served:
    """The server as a scorer of options; what it has answered stands in `kept`."""
    return Served(model.name, str(model.base_url), journal(kept, "scores", model.name, model.base_url), _key(model))


def journal(kept: Path, what: str, name: str, url: str | None) -> Path:
    """Where a server's answers are kept, its own file for each server."""
    return kept / f"{what}-{sha256_text(f'{name} {url}')[:8]}.jsonl"


def endpoint(model: ModelConfig | JudgeSpec) -> Http:
    """The server behind `base_url`."""
    name = model.name if isinstance(model, ModelConfig) else model.model
    return Http(name, base_url=str(model.base_url), api_key=_key(model))


def _key(model: ModelConfig | JudgeSpec) -> str:
    """The server's key, from the environment; it stands in no file."""
    if not model.api_key_env:
        return "none"
    key = os.environ.get(model.api_key_env, "")
    if not key:
        raise UsageError(
            155, f"the environment variable {model.api_key_env} is empty", where="api_key_env",
            expected="the server's key", cure=f"export {model.api_key_env}=...",
        )  # fmt: skip
    return key


def judge_from(spec: JudgeSpec | None, kept: Path) -> Judge | None:
    """The judge of eval.judge: a server, whose answers are kept below `kept`, or a model that is loaded here."""
    if spec is None:
        return None
    criteria = [Criterion(n, q) for n, q in spec.criteria.items()] if spec.criteria else CRITERIA
    if spec.base_url:
        return Kept(endpoint(spec), journal(kept, "judge", spec.model, spec.base_url)), criteria
    tokenizer = load_tokenizer(spec.model)
    apply_template(tokenizer, spec.template)
    return Local(load_model(spec.model), tokenizer), criteria
