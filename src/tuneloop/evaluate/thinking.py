"""Thoughts before an answer: written by the model, then the answer is read behind them; several, then a vote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tuneloop.evaluate.prompting import SO, THINK
from tuneloop.evaluate.split import Split
from tuneloop.lm import generate
from tuneloop.records import Example

TEMPERATURE = 0.7  # of the samples that vote. Source: Wang et al. 2023, arXiv 2203.11171


@dataclass(slots=True)
class Thought:
    """What was written before the answer, and all tokens between prompt and answer."""

    text: str
    ids: list[int]


def think(split: Split, model: Any, examples: Sequence[Example]) -> list[list[Thought]]:
    """The thoughts of every row, `samples` of them; empty lists of one empty thought for a contender that answers
    straight away. One sample is greedy, several are drawn at a temperature, each with a seed of its own."""
    prompting, config = split.prompting, split.config
    if not prompting.thinks:
        return [[Thought("", [])] for _ in examples]
    tokenizer = split.tokenizer
    lead, tail = _ids(tokenizer, " " + THINK), _ids(tokenizer, SO)
    prompts = [split.prompt_ids(e) + lead for e in examples]
    found: list[list[Thought]] = [[] for _ in examples]
    for sample in range(prompting.samples):
        texts = generate(
            model, tokenizer, prompts, max_new_tokens=config.thought_tokens, stop=("\n\n",),
            temperature=TEMPERATURE if prompting.samples > 1 else 0.0, seed=config.seed + sample,
        )  # fmt: skip
        for thoughts, text in zip(found, texts, strict=True):
            ids = _ids(tokenizer, text.rstrip()) if text.strip() else []
            thoughts.append(Thought(text.strip(), [*lead, *ids, *tail]))
    return found


def _ids(tokenizer: Any, text: str) -> list[int]:
    return [int(i) for i in tokenizer(text, add_special_tokens=False)["input_ids"]]


def vote(answers: Sequence[str], normal: Callable[[str], str]) -> int:
    """Index of the first answer of the largest group of equal ones; a tie goes to the group that came first."""
    keys = [normal(a) for a in answers]
    counts = Counter(keys)
    return max(range(len(keys)), key=lambda i: (counts[keys[i]], -i))
