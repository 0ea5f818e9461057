"""Prompts in other words, by a model that is asked. The answer stays, so what changes the meaning must not pass."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from tuneloop.config import DataConfig
from tuneloop.lm import LM, Http, Local
from tuneloop.records import Example
from tuneloop.text import decisive, key, normalise, words

ASK = (
    "Rewrite the following request in other words. Keep its meaning, every name and every number. "
    "Give only the request.\n\n{}"
)
LONGEST = 2000  # characters of a prompt that is worth asking for
# Shares of words: above, nothing changed; below, it is about something else.
MOST_SHARED, LEAST_SHARED = 0.95, 0.2


@lru_cache(maxsize=2)
def model(name: str) -> LM:
    """A server where the name is an address ('http://host/v1#model'), else a model in this process."""
    if name.startswith(("http://", "https://")):
        address, _, served = name.partition("#")
        return Http(model=served or "default", base_url=address, temperature=0.8)
    from tuneloop.models import load_model, load_tokenizer
    from tuneloop.prompts import apply_template

    tokenizer = load_tokenizer(name)
    apply_template(tokenizer, None if getattr(tokenizer, "chat_template", None) else "plain")
    return Local(load_model(name), tokenizer, temperature=0.8)


def ask(
    batch: list[Example], config: DataConfig, counts: Counter[str]
) -> Iterator[tuple[Example, str, dict[str, Any]]]:
    """(parent, paraphrase, how it was made); what does not pass is counted with its reason."""
    share = config.augment.paraphrase
    wanted: list[tuple[Example, str]] = []
    for example in batch:
        asked = [str(m["content"]) for m in example.messages or [] if m["role"] == "user"]
        rng = random.Random(f"{config.seed}/paraphrase/{example.id}")
        if asked and len(asked[-1]) <= LONGEST:
            wanted += [(example, asked[-1])] * (int(share) + (rng.random() < share % 1))
    if not wanted:
        return
    assert config.paraphraser is not None
    answers = model(config.paraphraser).complete([ASK.format(text) for _, text in wanted], max_new_tokens=256)
    for (example, before), text in zip(wanted, answers, strict=True):
        text = text.strip().strip('"')
        if reason := fault(before, text):
            counts[f"paraphrase refused: {reason}"] += 1
            continue
        request = key(config.paraphraser, ASK, before)[:16]
        yield example, text, {"model": config.paraphraser, "template": "paraphrase", "request": request}


def fault(before: str, after: str) -> str:
    """Why a paraphrase is not taken; '' for a good one."""
    if not after:
        return "empty"
    one, two = normalise(before), normalise(after)
    if decisive(one).split() != decisive(two).split():
        return "a number or a no changed"
    shared = set(words(before)) & set(words(after))
    share = len(shared) / max(1, len(set(words(before)) | set(words(after))))
    if share > MOST_SHARED:
        return "nothing changed"
    return "about something else" if share < LEAST_SHARED or len(after) > 4 * len(before) + 80 else ""
