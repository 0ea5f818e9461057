"""Encoded examples, the order of steps, and how the examples of one step are laid out."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tuneloop.console import say
from tuneloop.errors import DataError
from tuneloop.prompts import encode
from tuneloop.records import Example, read_examples
from tuneloop.store import append_jsonl


@dataclass(slots=True)
class Item:
    """One example ready to train on; `trained[i]` says that token i is a target."""

    id: str
    input_ids: list[int]
    trained: list[bool]
    weight: float


@dataclass(slots=True)
class Layout:
    """Examples of one forward pass. Packed: one row of T tokens. Padded: a row an example and an attention mask."""

    input_ids: torch.Tensor  # [1, T] or [B, T]
    positions: torch.Tensor  # like input_ids, restarting at each example
    mask: torch.Tensor | None  # [B, T] when padded
    lengths: list[int]
    source: torch.Tensor  # [N] flat index of the token that predicts
    target: torch.Tensor  # [N] the token to predict
    owner: torch.Tensor  # [N] which example of the pass it belongs to


def load_items(data: Path, split: str, tokenizer: Any, max_length: int, dropped: Path) -> list[Item]:
    """Encoded examples of a split. Too long or without a trained token: dropped aloud, listed in `dropped`."""
    items, lost = [], 0
    for example in read_examples(data, split):
        item = _item(example, tokenizer)
        reason = ""
        if example.kind == "preference" or example.desirable is False:
            reason = "no single good answer to imitate"
        elif len(item.input_ids) > max_length:
            reason = f"{len(item.input_ids)} tokens, more than max_length {max_length}"
        elif not any(item.trained[1:]) or item.weight <= 0:
            reason = "no trained token"
        if reason:
            lost += 1
            append_jsonl(dropped, {"id": example.id, "split": split, "reason": reason, "source": example.source})
            continue
        items.append(item)
    if lost:
        say(f"{split}: {lost} of {lost + len(items)} examples dropped, reasons in {dropped}")
    if split == "train" and not items:
        raise DataError(
            350,
            "no example is left to train on",
            where=str(data),
            expected=f"examples of at most {max_length} tokens with at least one trained token",
            cure=f"see {dropped}" if lost else "look at the rejected rows of the data folder",
        )
    return items


def _item(example: Example, tokenizer: Any) -> Item:
    found = encode(example, tokenizer)
    return Item(example.id, found.input_ids, found.trained, example.weight)


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


def targets(item: Item) -> list[int]:
    """Positions whose next token is trained."""
    return [i for i, on in enumerate(item.trained[1:]) if on]


def pack(items: list[Item], device: torch.device) -> Layout:
    """All examples end to end in one row."""
    ids = [t for item in items for t in item.input_ids]
    positions = [p for item in items for p in range(len(item.input_ids))]
    lengths = [len(item.input_ids) for item in items]
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    flat = [start + p for start, item in zip(starts, items, strict=True) for p in targets(item)]
    return _layout([ids], [positions], None, lengths, flat, [ids[i + 1] for i in flat], items, device)


def pad(items: list[Item], pad_id: int, device: torch.device) -> Layout:
    """A row an example, padded on the right."""
    width = max(len(item.input_ids) for item in items)
    ids = [item.input_ids + [pad_id] * (width - len(item.input_ids)) for item in items]
    mask = [[1] * len(item.input_ids) + [0] * (width - len(item.input_ids)) for item in items]
    flat = [row * width + p for row, item in enumerate(items) for p in targets(item)]
    goal = [item.input_ids[p + 1] for item in items for p in targets(item)]
    lengths = [len(item.input_ids) for item in items]
    return _layout(ids, [list(range(width))] * len(items), mask, lengths, flat, goal, items, device)


def _layout(
    ids: list[list[int]],
    positions: list[list[int]],
    mask: list[list[int]] | None,
    lengths: list[int],
    source: list[int],
    target: list[int],
    items: list[Item],
    device: torch.device,
) -> Layout:
    owner = [i for i, item in enumerate(items) for _ in targets(item)]
    return Layout(
        torch.tensor(ids, device=device),
        torch.tensor(positions, device=device),
        torch.tensor(mask, device=device) if mask is not None else None,
        lengths,
        torch.tensor(source, dtype=torch.long, device=device),
        torch.tensor(target, dtype=torch.long, device=device),
        torch.tensor(owner, dtype=torch.long, device=device),
    )
