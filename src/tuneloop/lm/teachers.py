"""A teacher from its config: a server where there is an address, else a model in this process."""

from __future__ import annotations

import os
from typing import Any

from tuneloop.errors import UsageError
from tuneloop.lm.asking import Teacher
from tuneloop.lm.http import Http


def open_teacher(config: Any) -> Teacher:
    """`config` is a `TeacherConfig`. Raises UsageError 169 where the environment holds no key."""
    if config.base_url is None:
        from tuneloop.lm.batching import Batching

        return Batching.load(config.name, template=config.template)
    key = "none"
    if config.api_key_env is not None:
        key = os.environ.get(config.api_key_env, "")
        if not key:
            raise UsageError(
                169,
                f"the environment variable {config.api_key_env} holds no key",
                where="generate.teacher.api_key_env",
                cure=f"export {config.api_key_env}=...",
            )
    return Http(config.name, config.base_url, key, config.temperature, config.timeout, capabilities=config.capabilities)
