"""Children of training rows, each kind asked for by name and seeded.

A child names its parent and shares its group, split and licence. Only training rows have children, so nothing that was
made from a test row can come near them.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from tuneloop.config import DataConfig
from tuneloop.console import progress, say
from tuneloop.data.asked import asked_and_answered, core, everything
from tuneloop.data.write import PartWriter
from tuneloop.neighbours.overlap import OverlapIndex
from tuneloop.records import Example, encode, example_id, example_schema, iter_examples
from tuneloop.text import normalise

BATCH = 256
TEMPLATES = (
    "{}", "Please help me with this: {}", "{}\n\nAnswer carefully.", "Here is a task.\n\n{}", "I have a question. {}",
    "Task: {}", "{} Thank you.", "Could you do the following? {}", "Read this and respond.\n\n{}",
)  # fmt: skip
# Neighbours on a QWERTY keyboard.
KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
NEAR = {
    sign: "".join(
        other
        for r, line in enumerate(KEYS)
        for c, other in enumerate(line)
        if abs(r - row) <= 1 and abs(c - column) <= 1 and other != sign
    )
    for row, keys in enumerate(KEYS)
    for column, sign in enumerate(keys)
}
UNANSWERABLE = "The text does not say."
CONTEXT_MARK = "\n\n"
Made = tuple[Example, dict[str, Any]]


def augment(config: DataConfig, out: Path, overlap: OverlapIndex | None = None) -> dict[str, int]:
    """Writes the children as further parts of `out/train`; returns how many of each kind there are, and what failed.

    A child that repeats an item of `overlap`, the benchmarks that will be reported, is counted and not written.
    """
    counts: Counter[str] = Counter()
    held: list[dict[str, Any]] = []
    seen: set[str] = set()
    folder = out / "train"
    writer = PartWriter(folder / ".children", example_schema())
    import pyarrow as pa

    with progress("augment") as bar:
        for batch in _batches(iter_examples(out, "train")):
            made = list(_children(batch, config, counts))
            repeats = _repeats([child for _, child in made], overlap)
            for number, (kind, child) in enumerate(made):
                if child.id in seen or number in repeats:
                    counts["repeated" if child.id in seen else "contaminated"] += 1
                    continue
                seen.add(child.id)
                counts[kind] += 1
                held.append(encode(child))
            writer.add(pa.Table.from_pylist(held, schema=example_schema()))
            held.clear()
            bar.advance(len(batch), children=writer.total)
    writer.close()
    first = len(list(folder.glob("part-*.parquet")))
    for number, path in enumerate(sorted((folder / ".children").glob("part-*.parquet"))):
        path.rename(folder / f"part-{first + number:05d}.parquet")
    (folder / ".children").rmdir()
    say("  children: " + (", ".join(f"{n:,} {name}" for name, n in counts.most_common()) or "none"))
    return dict(counts)


def _repeats(children: list[Example], overlap: OverlapIndex | None) -> set[int]:
    """Which of them repeat an item of a benchmark."""
    if overlap is None or not children:
        return set()
    asked = [asked_and_answered(child) for child in children]
    cores = [core(child, one[0]) for child, one in zip(children, asked, strict=True)]
    texts = [everything(child, *one) for child, one in zip(children, asked, strict=True)]
    return {found.text for found in overlap.search(texts, cores)}


def _batches(rows: Iterator[Example]) -> Iterator[list[Example]]:
    while batch := list(islice(rows, BATCH)):
        yield batch


def _children(batch: list[Example], config: DataConfig, counts: Counter[str]) -> Iterator[tuple[str, Example]]:
    for example in batch:
        for kind, make in MAKERS.items():
            share = float(getattr(config.augment, kind))
            # The draw hangs on the row alone: rows that are added change nothing for those that stand.
            rng = random.Random(f"{config.seed}/{kind}/{example.id}")
            for _ in range(int(share) + (rng.random() < share % 1)):
                made = make(example, rng, batch)
                if made is not None:
                    yield kind, _adopt(example, *made, kind, config.seed)
    if config.augment.paraphrase:
        yield from _paraphrases(batch, config, counts)


def _adopt(parent: Example, child: Example, how: dict[str, Any], kind: str, seed: int) -> Example:
    licence = parent.source.get("licence")
    child.parents, child.group, child.split = [parent.id], parent.group, parent.split
    child.source, child.scores, child.flags = dict(parent.source), {}, [f"made by {kind}"]
    child.generator = {"augment": kind, "seed": seed, "split": parent.split, "licence": licence, **how}
    child.id = example_id(child)
    return child


def _with_prompt(example: Example, change: Callable[[str], str]) -> Example | None:
    """A copy with another last user turn; raw prompts keep their layout, and have no children of this kind."""
    for place in range(len(example.messages or []) - 1, -1, -1):
        messages = [dict(m) for m in example.messages or []]
        if messages[place]["role"] == "user":
            text = change(str(messages[place]["content"]))
            if text == messages[place]["content"]:
                return None
            messages[place]["content"] = text
            return replace(example, messages=messages)
    return None


def _template(example: Example, rng: random.Random, _: list[Example]) -> Made | None:
    number = rng.randrange(1, len(TEMPLATES))
    child = _with_prompt(example, lambda text: TEMPLATES[number].replace("{}", text))
    return (child, {"template": number}) if child else None


def typos(text: str, rng: random.Random, share: float = 0.04) -> str:
    """Neighbouring keys, doubled, lost and swapped letters in words of four letters and more; code and numbers stay."""
    out = []
    for word in text.split(" "):
        if len(word) < 4 or not word.isalpha() or rng.random() > share * len(word):
            out.append(word)
            continue
        at = rng.randrange(1, len(word) - 1)
        kind = rng.randrange(4)
        near = NEAR.get(word[at].lower(), word[at])
        middle = (word[at + 1] + word[at], rng.choice(near), word[at] * 2, "")[kind]
        out.append(word[:at] + middle + word[at + 1 + (kind == 0) :])
    return " ".join(out)


def _noise(example: Example, rng: random.Random, _: list[Example]) -> Made | None:
    child = _with_prompt(example, lambda text: typos(text, rng))
    return (child, {"template": "typing errors"}) if child else None


FORMATS: tuple[tuple[str, str, Callable[[str], str]], ...] = (
    ("json", 'Answer as JSON: {"answer": ...}.', lambda answer: json.dumps({"answer": answer}, ensure_ascii=False)),
    ("capitals", "Answer in capital letters.", str.upper),
    ("quoted", "Put the answer in double quotes.", lambda answer: f'"{answer}"'),
    ("bullet", "Answer as a bulleted list.", lambda a: "\n".join(f"- {x}" for x in a.splitlines() if x.strip())),
)


def _format(example: Example, rng: random.Random, _: list[Example]) -> Made | None:
    """The same answer in a form that the prompt asks for; short answers only, where the form is all that changes."""
    answer = str((example.messages or [{"content": ""}])[-1]["content"])
    if example.kind != "chat" or not answer or len(answer) > 400 or "```" in answer or example.tools:
        return None
    name, ask, change = FORMATS[rng.randrange(len(FORMATS))]
    child = _with_prompt(example, lambda text: f"{text}\n\n{ask}")
    if child is None or change(answer) == answer:
        return None
    child.messages = [*(child.messages or [])[:-1], {**(child.messages or [])[-1], "content": change(answer)}]
    return child, {"template": name}


def _negative(example: Example, rng: random.Random, batch: list[Example]) -> Made | None:
    """The question of a row with the text of another one: what the text does not say is answered so."""
    found = _question_and_text(example)
    others = [held for other in batch if other.group != example.group and (held := _question_and_text(other))]
    if found is None or not others:
        return None
    other = others[rng.randrange(len(others))]
    # The answer must not stand in the text that is put in.
    answer = normalise(asked_and_answered(example)[1])
    if answer and answer in normalise(other[1]):
        return None
    child = _with_prompt(example, lambda _: f"{found[0]}{CONTEXT_MARK}{other[1]}")
    if child is None:
        return None
    child.messages = [*(child.messages or [])[:-1], {"role": "assistant", "content": UNANSWERABLE}]
    child.meta = {**child.meta, "unanswerable": True}
    return child, {"template": "unanswerable"}


def _question_and_text(example: Example) -> tuple[str, str] | None:
    """A prompt that is a question over a text, as Alpaca's `input` and Dolly's context make them."""
    messages = example.messages or []
    if example.kind != "chat" or len(messages) != 2:
        return None
    question, mark, text = str(messages[0]["content"]).partition(CONTEXT_MARK)
    return (question, text) if mark and question.rstrip().endswith("?") and len(text) >= 80 else None


def _options(example: Example, rng: random.Random, _: list[Example]) -> Made | None:
    """Lettered options in another order, and the letter of the answer with them."""
    from tuneloop.data.choices import reordered

    return reordered(example, rng)


MAKERS: dict[str, Callable[[Example, random.Random, list[Example]], Made | None]] = {
    "templates": _template,
    "noise": _noise,
    "formats": _format,
    "negatives": _negative,
    "options": _options,
}


def _paraphrases(batch: list[Example], config: DataConfig, counts: Counter[str]) -> Iterator[tuple[str, Example]]:
    from tuneloop.data import paraphrase

    for parent, text, how in paraphrase.ask(batch, config, counts):
        child = _with_prompt(parent, lambda _, text=text: text)  # type: ignore[misc]
        if child is not None:
            yield "paraphrase", _adopt(parent, child, how, "paraphrase", config.seed)
