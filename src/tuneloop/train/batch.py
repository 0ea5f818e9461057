"""Encoded examples, and how those of one forward pass are laid out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(slots=True)
class Item:
    """One example ready to train on; `trained[i]` says that token i is a target.

    A preference pair holds its shared beginning once: with `fork` (a, b), tokens [0, a) followed by [a, b) are the
    chosen text, and [0, a) followed by [b, end) the rejected one.
    """

    id: str
    input_ids: list[int]
    trained: list[bool]
    weight: float
    fork: tuple[int, int] | None = None
    desirable: bool = True


@dataclass(slots=True)
class Layout:
    """Examples of one forward pass. Packed: one row of T tokens. Padded: a row a text and an attention mask.

    A text is what attends to itself: one an example, or the two of a preference pair, chosen first.
    """

    input_ids: torch.Tensor  # [1, T] or [B, T]
    positions: torch.Tensor  # like input_ids, restarting at each text
    mask: torch.Tensor | None  # [B, T] when padded
    texts: list[Sequence[int]]  # the tokens of each text: indices into the packed row
    source: torch.Tensor  # [N] flat index of the token that predicts
    target: torch.Tensor  # [N] the token to predict
    owner: torch.Tensor  # [N] which text of the pass it belongs to


def first_fit(items: list[Item], capacity: int) -> list[list[Item]]:
    """Items, shortest first, in bins of at most `capacity` tokens: the longest first, each into the first with room.

    At most 11/9 of the fewest bins and one more (Johnson 1973). One that is longer than a bin stands alone.
    """
    bins: list[list[Item]] = []
    room: list[int] = []
    for item in reversed(items):
        length = len(item.input_ids)
        place = next((i for i, left in enumerate(room) if left >= length), len(bins))
        if place == len(bins):
            bins.append([])
            room.append(capacity)
        bins[place].append(item)
        room[place] -= length
    return [found[::-1] for found in bins]


def texts(item: Item) -> list[Sequence[int]]:
    """The indices of the tokens of each text of an item."""
    if item.fork is None:
        return [range(len(item.input_ids))]
    end, second = item.fork
    return [range(second), [*range(end), *range(second, len(item.input_ids))]]


def targets(item: Item) -> list[tuple[int, int, int]]:
    """(text, place in the text of the token that predicts, the trained token), for every trained token."""
    found = []
    for number, text in enumerate(texts(item)):
        for place, index in enumerate(text[1:]):
            if item.trained[index]:
                found.append((number, place, item.input_ids[index]))
    return found


def pack(items: list[Item], device: torch.device) -> Layout:
    """All examples end to end in one row."""
    ids: list[int] = []
    positions: list[int] = []
    laid: list[Sequence[int]] = []
    goals: list[tuple[int, int, int]] = []
    for item in items:
        start, first = len(ids), len(laid)
        ids += item.input_ids
        own = texts(item)
        if item.fork is None:
            positions += range(len(item.input_ids))
            laid.append(range(start, len(ids)))
        else:
            end, second = item.fork
            positions += [*range(second), *range(end, end + len(item.input_ids) - second)]
            laid += [[start + i for i in text] for text in own]
        goals += [(first + text, start + own[text][place], token) for text, place, token in targets(item)]
    return _layout([ids], [positions], None, laid, goals, device)


def pad(items: list[Item], pad_id: int, device: torch.device) -> Layout:
    """A row a text, padded on the right."""
    rows: list[list[int]] = []
    goals: list[tuple[int, int, int]] = []
    for item in items:
        first = len(rows)
        rows += [[item.input_ids[i] for i in text] for text in texts(item)]
        goals += [(first + text, place, token) for text, place, token in targets(item)]
    width = max(map(len, rows))
    mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
    ids = [row + [pad_id] * (width - len(row)) for row in rows]
    flat = [(row, row * width + place, token) for row, place, token in goals]
    laid = [range(len(row)) for row in rows]
    return _layout(ids, [list(range(width))] * len(rows), mask, laid, flat, device)


def _layout(
    ids: list[list[int]],
    positions: list[list[int]],
    mask: list[list[int]] | None,
    laid: Sequence[Sequence[int]],
    goals: list[tuple[int, int, int]],
    device: torch.device,
) -> Layout:
    owner, source, target = zip(*goals, strict=True) if goals else ((), (), ())
    return Layout(
        torch.tensor(ids, device=device),
        torch.tensor(positions, device=device),
        torch.tensor(mask, device=device) if mask is not None else None,
        list(laid),
        torch.tensor(source, dtype=torch.long, device=device),
        torch.tensor(target, dtype=torch.long, device=device),
        torch.tensor(owner, dtype=torch.long, device=device),
    )
