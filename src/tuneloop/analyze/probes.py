"""Further forwards on the wrong rows that tell causes apart which the scores alone do not.

blank: the question left out. The same pick again: prior-driven.
rotate: the options in another order (lettered rows). A pick that stays with its letter: position bias.
cloze: the options' texts scored after the question alone (lettered rows). Right so, wrong by letter: format failure.
shots: other examples before the question. Wrong under all of them and in the cloze form: knowledge gap.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from tuneloop.analyze.causes import Tagged

Request = tuple[str, list[str]]
# Requests (prompt, continuations) -> summed log-probability of each continuation
Probe = Callable[[list[Request]], list[list[float]]]
LETTERED = re.compile(r"^[A-J][.)]\s*(.+)$", re.DOTALL)
MOST_ROWS = 200  # wrong rows of a task that are asked again
SHOTS = 2


def add_probes(tagged: list[Tagged], prompts: dict[str, list[str]], wanted: Sequence[str], probe: Probe) -> None:
    """Adds the causes that the wanted probes show to the wrong rows of choice tasks."""
    by_task: dict[str, list[tuple[Tagged, str]]] = {}
    seen: dict[str, int] = {}
    for item in tagged:
        place = seen.get(item.task, 0)
        seen[item.task] = place + 1
        by_task.setdefault(item.task, []).append((item, prompts[item.task][place]))
    for rows in by_task.values():
        right = [(item, prompt) for item, prompt in rows if not item.wrong]
        wrong = [(i, p) for i, p in rows if i.wrong and len(i.row.get("options") or []) > 1][:MOST_ROWS]
        failed: dict[int, int] = {}
        for name in wanted:
            asked = {k: r for k, (i, p) in enumerate(wrong) if (r := _request(name, i, p, right))}
            answers = probe(list(asked.values()))
            for k, scores in zip(asked, answers, strict=True):
                failed[k] = failed.get(k, 0) + _read(name, wrong[k][0], scores)
        if {"cloze", "shots"} <= set(wanted):
            for k, times in failed.items():
                if times == 2:
                    wrong[k][0].causes.append("knowledge gap")


def _texts(item: Tagged) -> list[str]:
    """What lettered options stand for; empty when the options are not lettered."""
    found = [LETTERED.match(str(o)) for o in item.row["options"]]
    return [m[1] for m in found if m] if all(found) else []


def _request(name: str, item: Tagged, prompt: str, right: list[tuple[Tagged, str]]) -> Request | None:
    question, texts = str(item.row.get("question") or ""), _texts(item)
    options = [str(o) for o in item.row["options"]]
    said = [f" {o[0]}" for o in options] if texts else [f" {o}" for o in options]
    if name == "blank":
        return (prompt.replace(question, "", 1).strip() or "\n", said) if question in prompt else None
    if name == "shots":
        shown = [(p, _gold(i)) for i, p in right if i is not item][:SHOTS]
        return ("".join(f"{p} {gold}\n\n" for p, gold in shown) + prompt, said) if shown else None
    if not texts:
        return None
    if name == "cloze":
        return f"{question}\n", [f" {t}" for t in texts]
    turned = texts[1:] + texts[:1]
    lines = [o[: -len(t)] + u for o, t, u in zip(options, texts, turned, strict=True)]
    body = "\n".join(options)
    return (prompt.replace(body, "\n".join(lines)), said) if body in prompt else None


def _gold(item: Tagged) -> str:
    option = str(item.row["options"][int(item.row["gold"])])
    return option[0] if _texts(item) else option


def _read(name: str, item: Tagged, scores: list[float]) -> int:
    """Adds the cause that these scores show; 1 where the row is wrong in this form too."""
    pick, gold, before = scores.index(max(scores)), int(item.row["gold"]), int(item.row["pred"])
    if name == "blank" and pick == before:
        item.causes.append("prior-driven")
    if name == "rotate" and pick == before:
        item.causes.append("position bias")
    if name == "cloze" and pick == gold:
        item.causes.append("format failure")
    return int(name in ("cloze", "shots") and pick != gold)
