"""Examples of a data folder as items to train on, and which of them every step holds."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

from tuneloop.config import TrainConfig
from tuneloop.console import say
from tuneloop.errors import DataError
from tuneloop.prompts import encode, encode_pair
from tuneloop.records import Example, read_examples
from tuneloop.store import append_jsonl
from tuneloop.train.batch import Item, texts

PAIRED = ("dpo", "orpo", "simpo", "reward")


def load_items(
    data: Path, split: str, tokenizer: Any, max_length: int, dropped: Path | None, objective: str = "sft"
) -> list[Item]:
    """Items of a split for an objective. What cannot serve it is dropped aloud and listed in the file `dropped`."""
    items, lost, refused = [], 0, ""
    for example in read_examples(data, split):
        try:
            item, reason = _item(example, tokenizer, max_length, objective)
        except DataError as error:  # this row does not fit the template; the next one may
            item, reason = None, f"{error.code} {error.what}"
            refused = refused or f"; first: {reason}"
        if reason or item is None:
            lost += 1
            if dropped:
                append_jsonl(dropped, {"id": example.id, "split": split, "reason": reason, "source": example.source})
            continue
        items.append(item)
    if lost:
        say(f"{split}: {lost} of {lost + len(items)} examples dropped{f', reasons in {dropped}' if dropped else ''}")
    if split == "train" and not items:
        raise DataError(
            350,
            f"no example is left to train on with objective {objective}",
            where=str(data),
            expected=f"{_wanted(objective)} of at most {max_length} tokens with at least one trained token{refused}",
            cure=f"see {dropped}" if lost and dropped else "look at the rows of the data folder, the rejected ones too",
        )
    return items


def _wanted(objective: str) -> str:
    if objective in PAIRED:
        return "preference pairs (prompt, chosen, rejected)"
    return "answers marked good or bad" if objective == "kto" else "examples"


def _item(example: Example, tokenizer: Any, max_length: int, objective: str) -> tuple[Item | None, str]:
    """The item, or why there is none."""
    if objective in PAIRED:
        if example.kind != "preference":
            return None, f"no preference pair, which {objective} needs"
        item = pair(example, tokenizer)
    else:
        if objective == "kto" and example.desirable is None:
            return None, "no mark good or bad, which kto needs"
        if objective != "kto" and (example.kind == "preference" or example.desirable is False):
            return None, "no single good answer to imitate"
        found = encode(example, tokenizer)
        item = Item(
            example.id, found.input_ids, found.trained, example.weight, desirable=example.desirable is not False
        )
    longest = max(map(len, texts(item)))
    if longest > max_length:
        return None, f"{longest} tokens, more than max_length {max_length}"
    if item.weight <= 0 or any(not any(item.trained[i] for i in text[1:]) for text in texts(item)):
        return None, "no trained token"
    return item, ""


def pair(example: Example, tokenizer: Any) -> Item:
    """Chosen and rejected over their longest common beginning, which the model then reads once."""
    chosen, rejected = encode_pair(example, tokenizer)
    ids, others = chosen.input_ids, rejected.input_ids
    end = 0
    limit = min(len(ids), len(others)) - 1
    while end < limit and ids[end] == others[end] and chosen.trained[end] == rejected.trained[end]:
        end += 1
    return Item(
        example.id, ids + others[end:], chosen.trained + rejected.trained[end:], example.weight, fork=(end, len(ids))
    )


def steps_of(config: TrainConfig, items: list[Item], size: int) -> list[list[int]]:
    """The examples of every step: `size` of them, or as many as `batch_tokens` holds."""
    if config.batch_tokens is None:
        return plan_steps(len(items), size, config.num_train_epochs, config.max_steps, config.seed)
    lengths = [len(item.input_ids) for item in items]
    return plan_tokens(lengths, config.batch_tokens, config.num_train_epochs, config.max_steps, config.seed)


def plan_steps(count: int, batch: int, epochs: float, max_steps: int | None, seed: int) -> list[list[int]]:
    """Indices of the examples of every step; a step never crosses an epoch, the last of an epoch may be smaller.

    `max_steps` wins over `epochs`: it goes through the data as often as it needs.
    The plan depends on its arguments alone, so a resumed run goes on where the step number says.
    """
    steps: list[list[int]] = []
    if max_steps:
        epochs = math.ceil(max_steps / math.ceil(count / batch))
    for epoch in range(math.ceil(epochs)):
        order = list(range(count))
        random.Random(f"{seed}/{epoch}").shuffle(order)
        order = order[: max(1, round(count * min(1.0, epochs - epoch)))]
        steps += [order[i : i + batch] for i in range(0, len(order), batch)]
    return steps[:max_steps]


def plan_tokens(lengths: list[int], budget: int, epochs: float, max_steps: int | None, seed: int) -> list[list[int]]:
    """As `plan_steps`, but a step holds examples up to `budget` tokens; one that is longer stands alone."""
    steps: list[list[int]] = []
    epoch = 0
    while epoch < math.ceil(epochs) or (max_steps and len(steps) < max_steps):
        order = list(range(len(lengths)))
        random.Random(f"{seed}/{epoch}").shuffle(order)
        share = 1.0 if max_steps else min(1.0, epochs - epoch)
        room = 0
        for i in order[: max(1, round(len(order) * share))]:
            if room < lengths[i] or not steps:
                steps.append([])
                room = budget
            steps[-1].append(i)
            room -= lengths[i]
        epoch += 1
    return steps[:max_steps]
