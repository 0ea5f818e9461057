"""The frame of a prompt (how it opens, its last line, its answer's shape), in training against the benchmark."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from tuneloop.analyze.training import Shown

Frame = tuple[str, str]
GROUP = 0.04  # share of the training rows below which a frame is an accident
KNOWN = 0.01  # share of a task's prompts that makes a frame one of the task's own
LONGEST_END = 4  # words of a last line that is still a cue and not content


def frame(prompt: str) -> Frame:
    """(opening word, cue): the cue is a short last line, or the last word of a single line."""
    tokens = prompt.split()
    if not tokens:
        return "", ""
    lines = prompt.rstrip().splitlines()
    last = lines[-1].split()
    cue = " ".join(last) if len(lines) > 1 and len(last) <= LONGEST_END else ""
    opening = tokens[0] if re.search(r"\W$", tokens[0]) else ""
    return opening, cue


def foreign(train: list[Shown], tasks: dict[str, list[str]]) -> dict[str, list[int]]:
    """Task -> places of the training rows whose frame no task has although their content is nearest to that task's.

    `tasks` holds the prompts of each task. Nothing is foreign where a task's prompts have no frame of their own.
    """
    from tuneloop.neighbours.tfidf import Index

    own = {name: Counter(frame(p) for p in prompts) for name, prompts in tasks.items()}
    known = {f for name, counts in own.items() for f, n in counts.items() if n >= KNOWN * len(tasks[name])}
    cues = {cue for _, cue in known if cue}
    counts = Counter(frame(row.prompt) for row in train)
    odd = {f for f, n in counts.items() if n >= GROUP * len(train) and f not in known and f != ("", "")}
    # An opening alone is content ("Well, ..."); a cue that no task has, or a task's cue dropped, is a format.
    odd = {(opening, cue) for opening, cue in odd if cue and (cue not in cues or opening)}
    # Rows with lettered options are another kind of task where no task has such prompts.
    other = not any(lists_options(p) for prompts in tasks.values() for p in prompts)
    places = [
        i for i, row in enumerate(train) if frame(row.prompt) in odd and not (other and lists_options(row.prompt))
    ]
    if not places:
        return {}
    names = [name for name, prompts in tasks.items() for _ in prompts]
    index = Index([inner(p) for prompts in tasks.values() for p in prompts])
    near, _ = index.nearest([inner(train[i].prompt) for i in places], 1)
    found: dict[str, list[int]] = {}
    for place, nearest in zip(places, near, strict=True):
        if len(nearest):
            found.setdefault(names[int(nearest[0])], []).append(place)
    return found


def pattern(prompts: list[str]) -> str:
    """The layout of most of these prompts as text around '{}': 'Q: {}\\nA:'. '{}' alone where they share nothing."""
    most = Counter(frame(p) for p in prompts).most_common(1)[0][0]
    own = [p.strip() for p in prompts if frame(p) == most]
    shared = own[0].split()
    for prompt in own[1:]:
        same = [a == b for a, b in zip(shared, prompt.split(), strict=False)]
        shared = shared[: same.index(False) if False in same else len(same)]
    # Words that all questions begin with ('What is') are content; an opening ends in a sign ('Question:').
    while shared and not re.search(r"\W$", shared[-1]):
        shared.pop()
    cue = most[1]
    gap = re.search(r"\s*$", own[0].removesuffix(cue)) if cue else None
    return (" ".join(shared) + " " if shared else "") + "{}" + (f"{gap[0]}{cue}" if gap else "")


def relaid(prompt: str, old: str, new: str) -> str:
    """The prompt in the layout `new` where it stands in `old`, else as it is."""
    head, tail = old.split("{}")
    text = prompt.strip()
    if not (text.startswith(head) and text.endswith(tail)) or len(text) <= len(head) + len(tail):
        return prompt
    return new.replace("{}", text[len(head) : len(text) - len(tail)].strip())


def inner(prompt: str) -> str:
    """The prompt without its frame."""
    opening, cue = frame(prompt)
    text = prompt.rstrip()
    text = text[: -len(cue)] if cue and text.endswith(cue) else text
    return text.strip().removeprefix(opening).strip()


def shape(answer: str) -> dict[str, bool]:
    """What one sees of an answer without reading it."""
    text = answer.strip()
    return {
        "ends with a full stop": text.endswith("."),
        "begins with a capital": text[:1].isupper(),
        "is one letter": bool(re.fullmatch(r"\(?[A-Za-z]\)?\.?", text)),
        "has more than eight words": len(text.split()) > 8,
    }


def answer_gaps(train: list[Shown], rows: list[dict[str, Any]], prompts: list[str]) -> list[tuple[str, float, float]]:
    """(trait, share in training, share of right answers) that differ by more than half, for rows of one frame."""
    frames = {f for f, n in Counter(frame(p) for p in prompts).items() if n >= KNOWN * len(prompts)}
    answers = [row.answer for row in train if frame(row.prompt) in frames]
    golds = [due(r) for r in rows if 0 <= int(r.get("gold", -1)) < len(r.get("options") or [])]
    if len(answers) < 20 or len(golds) < 20:
        return []
    found = []
    for trait in shape(""):
        a = sum(shape(x)[trait] for x in answers) / len(answers)
        b = sum(shape(x)[trait] for x in golds) / len(golds)
        if abs(a - b) > 0.5:
            found.append((trait, a, b))
    return found


def lists_options(prompt: str) -> bool:
    """Whether the options stand in the prompt, a line each."""
    return len(re.findall(r"^\s*\(?[A-J][.):]\s", prompt, re.MULTILINE)) > 1


def lettered(row: dict[str, Any]) -> bool:
    """Whether the options of a scored row are 'A. ...', 'B. ...': the letter alone is then what is answered."""
    options = [str(o) for o in row.get("options") or []]
    return len(options) > 1 and all(o[:1] == "ABCDEFGHIJ"[i] for i, o in enumerate(options[:10]))


def due(row: dict[str, Any]) -> str:
    """The right answer as it is scored."""
    option = str(row["options"][int(row["gold"])])
    return option[:1] if lettered(row) else option


def letters(train: list[Shown]) -> Counter[str]:
    """How often each single letter is the answer."""
    return Counter(m[1].upper() for row in train if (m := re.fullmatch(r"\(?([A-Ja-j])\)?\.?", row.answer.strip())))
