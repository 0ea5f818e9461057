"""The rows of a task as they are scored: chosen, with header and shots in place."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from tuneloop.console import say
from tuneloop.errors import DataError, TuneloopError
from tuneloop.store import sha256_text
from tuneloop.tasks.base import Item, Task
from tuneloop.tasks.docs import load_docs, to_items

LM_EVAL_SEED = 1234  # simple_evaluate's fewshot_random_seed


@dataclass
class Built:
    """`items` in the order of the file; `notes` say what differs from the plain definition."""

    items: list[Item]
    notes: list[str] = field(default_factory=list)


@dataclass
class Shots:
    """`count` worked examples before each row. `fixed`: the same for all rows (of one category, where a task says so),
    drawn by `seed`. `lm-eval`: as lm-eval draws them, anew for each row in the order of the whole file.
    Without `lend` no row leaves the scored set to become a shot: what is compared must be scored on the same rows.
    """

    count: int = 0
    mode: str = "fixed"
    seed: int = 0
    lend: bool = True


def build_items(
    task: Task, shots: Shots | int = 0, *, data: str | None = None, limit: int | None = None, quick: int | None = None
) -> Built:
    """The scored rows. `limit` takes the first ones (evenly over categories), `quick` a fixed stratified subset."""
    asked = Shots(shots) if isinstance(shots, int) else shots
    docs, origin = load_docs(task, task.scored, data)
    say(f"{task.name}: {len(docs):,} rows from {origin}")
    every = to_items(task, docs, origin)
    kept = [i for i, item in enumerate(every) if not task.only or item.category in task.only]
    if not kept:
        raise DataError(373, f"{task.name}: no rows of {', '.join(task.only)}", where=origin)
    chosen = _quick(every, kept, quick) if quick else _first(every, kept, limit, even=task.by_category)
    built = Built([])
    if asked.count and not task.pinned and task.shots_from is not None:
        pool, chosen = _pool(task, asked, data, every, chosen, built.notes)
        block = _blocks(task, asked, pool, len(every)) if pool else _no_shots
    else:
        block = _no_shots
    for index in chosen:
        item = every[index]
        head, shown = task.head(item) if task.head else "", block(index, item)
        if shown and f"{item.prompt} {item.options[item.gold[0]]}\n\n" in shown:
            item.flags.append("own answer among the shots")
        item.prompt = head + shown + item.prompt
        built.items.append(item)
    seen = sum(bool(item.flags) for item in built.items)
    if seen:
        built.notes.append(f"{task.name}: {seen:,} rows have their own question and answer among their shots")
    return built


def _no_shots(_: int, __: Item) -> str:
    return ""


def _first(items: list[Item], kept: list[int], limit: int | None, *, even: bool) -> list[int]:
    """The first `limit` rows, or, where `even`, as many of each category as there are, in order."""
    if not limit or limit >= len(kept):
        return kept
    if not even:
        return kept[:limit]
    by: dict[str, list[int]] = {}
    for index in kept:
        by.setdefault(items[index].category, []).append(index)
    chosen: list[int] = []
    for depth in range(max(map(len, by.values()))):
        chosen += [rows[depth] for rows in by.values() if depth < len(rows)]
        if len(chosen) >= limit:
            break
    return sorted(chosen[:limit])


def _quick(items: list[Item], kept: list[int], size: int) -> list[int]:
    """`size` rows, spread over the categories in proportion; their text decides which, so they are always the same."""
    if size >= len(kept):
        return kept
    by: dict[str, list[tuple[str, int]]] = {}
    for index in kept:
        by.setdefault(items[index].category, []).append((sha256_text(items[index].prompt), index))
    spread = [((rank + 0.5) / len(rows), name, index) for name, rows in by.items()
              for rank, (_, index) in enumerate(sorted(rows))]  # fmt: skip
    return sorted(index for _, _, index in sorted(spread)[:size])


def _pool(
    task: Task, shots: Shots, data: str | None, every: list[Item], chosen: list[int], notes: list[str]
) -> tuple[list[Item], list[int]]:
    """Rows to take shots from, and the rows to score. Where there are too few, rows outside the scored set join them,
    and where every row is scored the last ones leave it, or (without `lend`) there are no shots."""
    assert task.shots_from is not None
    count = shots.count
    try:
        docs, origin = load_docs(task, task.shots_from, data)
        pool = to_items(task, docs, origin)
    except TuneloopError:
        if task.by_category:
            raise
        docs, origin, pool = [], "", []
    missing = count - len(pool)
    if missing <= 0 or task.by_category:
        return pool, chosen
    inside = set(chosen)
    lent = [i for i in range(len(every)) if i not in inside][-missing:]
    where, own = "outside the scored set", missing - len(lent)
    if own and not shots.lend:
        notes.append(f"{task.name}: {len(pool)} rows to take {count} shots from, scored without shots")
        return [], chosen
    if own:
        lent, chosen, where = [*lent, *chosen[-own:]], chosen[:-own], "taken out of the scored set"
    if len(lent) < missing or not chosen:
        raise DataError(374, f"{task.name}: {count} shots asked, {len(pool)} rows to take them from", where=origin)
    notes.append(f"{task.name}: {missing} of {count} shots are rows of the split '{task.scored}' {where}")
    return [*pool, *(_copy(every[i]) for i in lent)], chosen


def _copy(item: Item) -> Item:
    return Item(item.prompt, item.options, item.gold, category=item.category)


def _blocks(task: Task, shots: Shots, pool: list[Item], rows: int) -> Callable[[int, Item], str]:
    """The shots of row `index` as text."""
    if shots.mode not in ("fixed", "lm-eval"):
        raise ValueError(f"unknown shot mode {shots.mode}")
    if task.by_category:
        by: dict[str, list[Item]] = {}
        for p in pool:
            by.setdefault(p.category, []).append(p)
        known = {name: _text(task, _drawn(task, shots, own)) for name, own in by.items() if len(own) >= shots.count}

        def of_category(_: int, item: Item) -> str:
            if item.category not in known:
                have = len(by.get(item.category, []))
                raise DataError(374, f"{task.name}: {shots.count} shots asked, {have} rows to take them from",
                                where=f"category {item.category}", cure="ask for fewer shots")  # fmt: skip
            return known[item.category]

        return of_category
    if shots.mode == "lm-eval" and not task.first_shots:
        rng = random.Random(LM_EVAL_SEED + shots.seed)
        order = range(len(pool))
        size = shots.count + (task.one_more and len(pool) > shots.count)
        drawn = [rng.sample(order, size)[: shots.count] for _ in range(rows)]
        return lambda index, _: _text(task, [pool[i] for i in drawn[index]])
    same = _text(task, _drawn(task, shots, pool))
    return lambda _, __: same


def _drawn(task: Task, shots: Shots, pool: list[Item]) -> list[Item]:
    if task.first_shots and not shots.seed:
        return pool[: shots.count]
    return random.Random(shots.seed).sample(pool, shots.count)


def _text(task: Task, shots: list[Item]) -> str:
    return "".join(f"{p.prompt} {p.options[p.gold[0]]}\n\n" for p in shots)
