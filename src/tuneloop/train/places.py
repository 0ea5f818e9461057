"""Where the tokens of a packed row stand while texts attend: side by side, in groups of near length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch


@dataclass(slots=True)
class Group:
    """`count` texts laid out `width` tokens wide.

    `spread` (count * width,) says which token of the packed row fills each place; None when the places are the
    tokens [start, start + count * width). `real` (count, width) says which places are read; None when all are.
    """

    start: int
    count: int
    width: int
    spread: torch.Tensor | None
    real: torch.Tensor | None = None


@dataclass(slots=True)
class Line:
    """All texts end to end, a shared beginning once for each: what a kernel of varying lengths reads.

    `order` (S,): the token at each place; `first` (T,): the first place of each token; both None when place is token.
    `ends` (N + 1,) int32: where texts begin and end.
    """

    ends: torch.Tensor
    longest: int
    order: torch.Tensor | None
    first: torch.Tensor | None


@dataclass(slots=True)
class Plan:
    """The groups, and `collect` (T,): where in their joined places each token's result stands (None: in order).

    `again` (2, S): places that hold a token for a second time, and these tokens.
    """

    groups: list[Group]
    collect: torch.Tensor | None
    again: torch.Tensor | None = None
    lengths: torch.Tensor = field(default_factory=lambda: torch.zeros(0))  # (T,) of the first text of each token
    line: Line | None = None  # on CUDA


def runs(lengths: list[int]) -> list[Sequence[int]]:
    """Texts of these lengths end to end."""
    ends = list(accumulate(lengths))
    return [range(end - length, end) for end, length in zip(ends, lengths, strict=True)]


def plan(texts: Sequence[Sequence[int]], device: str = "cpu") -> Plan:
    """Neighbouring texts share a group while the longest is at most a quarter (or 8 tokens) above the shortest.

    A token that several texts share is taken from the first of them: before it they are the same.
    """
    lengths = [len(text) for text in texts]
    groups: list[Group] = []
    where: dict[int, int] = {}
    again: list[tuple[int, int]] = []
    first = offset = 0
    for i in range(1, len(texts) + 1):
        inside = lengths[first : i + 1]
        if i < len(texts) and max(inside) <= max(min(inside) * 1.25, min(inside) + 8):
            continue
        groups.append(_group(texts[first:i], offset, where, again, device))
        offset += groups[-1].count * groups[-1].width
        first = i
    total = max(where) + 1 if where else 0
    collect = [where[token] for token in range(total)]
    in_order = offset == total and collect == list(range(total))
    order = None if in_order else torch.tensor(collect, device=device)
    own = torch.zeros(total)
    for text in reversed(texts):
        own[list(text)] = float(len(text))
    twice = torch.tensor(again, device=device).t() if again else None
    return Plan(groups, order, twice, own, line(texts, device) if device.startswith("cuda") else None)


def line(texts: Sequence[Sequence[int]], device: str) -> Line:
    order = [token for text in texts for token in text]
    ends = torch.tensor([0, *accumulate(map(len, texts))], dtype=torch.int32, device=device)
    longest = max(map(len, texts))
    if order == list(range(len(order))):
        return Line(ends, longest, None, None)
    first: dict[int, int] = {}
    for place, token in enumerate(order):
        first.setdefault(token, place)
    at = [first[token] for token in range(len(first))]
    return Line(ends, longest, torch.tensor(order, device=device), torch.tensor(at, device=device))


def _group(
    texts: Sequence[Sequence[int]], offset: int, where: dict[int, int], again: list[tuple[int, int]], device: str
) -> Group:
    """Notes in `where` at which place of all groups each token stands, and in `again` its later places."""
    width = max(map(len, texts))
    spread: list[int] = []
    real: list[list[bool]] = []
    for row, text in enumerate(texts):
        real.append([False] * width)
        for place, token in enumerate(text):
            at = offset + row * width + place
            real[-1][place] = where.setdefault(token, at) == at
            if not real[-1][place]:
                again.append((at, token))
        spread += [*text, *[text[-1]] * (width - len(text))]
    start = texts[0][0]
    plain = spread == list(range(start, start + len(spread)))
    return Group(
        start,
        len(texts),
        width,
        None if plain else torch.tensor(spread, device=device),
        None if all(map(all, real)) else torch.tensor(real, device=device),
    )


def spread(x: torch.Tensor, group: Group) -> torch.Tensor:
    """(count, width, H, D): what the tokens x (T, H, D) put into the places of the group."""
    if group.spread is None:
        laid = x[group.start : group.start + group.count * group.width]
    else:
        laid = x.index_select(0, group.spread)
    return laid.reshape(group.count, group.width, *x.shape[1:])
