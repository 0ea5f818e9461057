"""Answers that the model writes, scored against the expected ones by text metrics and, where asked, by a judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tuneloop import metrics
from tuneloop.evaluate.prompting import answer_of, question_of
from tuneloop.evaluate.rows import Part, Row, blank, score, share_score
from tuneloop.evaluate.split import Split, drawn
from tuneloop.evaluate.thinking import think, vote
from tuneloop.judge import Case, Criterion, Judged, rubric
from tuneloop.lm import LM, generate, prompt_room
from tuneloop.records import Example
from tuneloop.text import normalise

MOST = 64  # tokens of an answer where nothing is asked for
DEFAULT = ["exact_match", "rouge_l", "similarity"]
CORPUS = ("bleu", "chrf")


@dataclass(slots=True)
class Answer:
    """One written answer; counts are None where a server does not tell them."""

    text: str
    prompt: str
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    samples: list[str] = field(default_factory=list)
    truncated: bool = False


Judge = tuple[LM, Sequence[Criterion]]
Writer = Callable[[Sequence[Example], int], list[Answer]]


def local_writer(split: Split, model: Any) -> Writer:
    """Writes with a model in this process: greedy answers, or the majority of those behind several thoughts."""

    def write(examples: Sequence[Example], room: int) -> list[Answer]:
        tokenizer, prompts = split.tokenizer, [split.prompt_ids(e) for e in examples]
        thoughts = think(split, model, examples)
        asked = [ids + t.ids for ids, found in zip(prompts, thoughts, strict=True) for t in found]
        texts = iter(generate(model, tokenizer, asked, max_new_tokens=room, stop=stops(split)))
        found, fits = [], prompt_room(model, tokenizer, room)
        for ids, own in zip(prompts, thoughts, strict=True):
            said = [next(texts).strip() for _ in own]
            extra = sum(len(t.ids) for t in own)
            count = extra + sum(len(tokenizer(s, add_special_tokens=False)["input_ids"]) for s in said)
            answer = Answer(said[vote(said, normal(split))], tokenizer.decode(ids), len(ids) * len(own), count)
            answer.truncated = any(len(ids) + len(t.ids) > fits for t in own)
            if split.prompting.thinks:
                answer.samples = [f"{t.text}\n-> {s}" for t, s in zip(own, said, strict=True)]
            found.append(answer)
        return found

    return write


def normal(split: Split) -> Callable[[str], str]:
    """The form in which two votes are the same answer: the number, where numbers are scored, else the text."""
    if "numeric" in split.config.metrics:
        return lambda text: str(metrics.final_number(text) or normalise(text))
    return normalise


def stops(split: Split) -> tuple[str, ...]:
    """Where an answer ends for a model that does not write an end token: at a line break, or an empty line, that no
    answer of the train split holds. The same for every contender."""
    answers = [answer_of(e) for e in split.train]
    return next(((mark,) for mark in ("\n", "\n\n") if answers and not any(mark in a for a in answers)), ())


def run_written(
    split: Split, write: Writer, examples: list[Example], task: str, names: Sequence[str], judge: Judge | None = None
) -> Part:
    """Rows with the answer and `score_<metric>` of each of `names`; the first is the headline, the row's `correct`."""
    part = Part()
    chosen = drawn(examples, split.config.generate_limit, split.config.seed)
    room = _room(split, chosen)
    answers = write(chosen, room)
    for e, answer in zip(chosen, answers, strict=True):
        row = blank(task, split.keys[id(e)], group=e.group, category=e.label or "", text_pred=answer.text)
        row |= {"text_gold": answer_of(e), "prompt_hash": part.prompt(answer.prompt), "samples": answer.samples}
        row |= {"prompt_tokens": answer.prompt_tokens, "answer_tokens": answer.answer_tokens}
        row["truncated"] = answer.truncated
        part.rows.append(row | {"question": question_of(e), "flags": [] if answer.text.strip() else ["empty"]})
    grade(part, task, names, judge, shots=split.prompting.shots)
    for entry in part.scores:
        entry["note"] = "; ".join(
            t for t in (entry["note"], f"{len(chosen):,} of {len(examples):,} rows, up to {room} new tokens") if t
        )
    empty = sum("empty" in r["flags"] for r in part.rows)
    if empty:
        part.warnings.append(f"{task}: {empty:,} of {len(part.rows):,} rows were answered with nothing")
    split.remark(part, task)
    return part


def _room(split: Split, examples: list[Example]) -> int:
    """Tokens that an answer may have (`eval.max_new_tokens`)."""
    if split.config.max_new_tokens is not None:
        return split.config.max_new_tokens
    if split.tokenizer is None:
        return MOST
    longest = max((len(split.tokenizer(answer_of(e))["input_ids"]) for e in examples), default=0)
    return min(MOST, longest + 8)


def grade(part: Part, task: str, names: Sequence[str], judge: Judge | None = None, **known: Any) -> None:
    """Fills `score_<name>` of every row and appends a score for each name; needs the stored texts alone, no model."""
    for place, name in enumerate(names):
        values = _judged(part.rows, judge) if name == "judge" and judge else _measured(part.rows, name)
        for row, value in zip(part.rows, values, strict=True):
            row[column(name)] = value
            if place == 0:
                row["correct"] = value
        part.scores.append(_score(part.rows, task, name, values, known))
        if name == "judge" and judge:
            part.scores += _criteria(part.rows, task, judge[1], known)


def column(name: str) -> str:
    return f"score_{name}"


def _measured(rows: list[Row], name: str) -> list[float | None]:
    metric = metrics.text_metric("exact_match" if name == "free_text" else name)
    return [metric(str(r["text_pred"] or ""), str(r["text_gold"] or "")) for r in rows]


def _judged(rows: list[Row], judge: Judge) -> list[float | None]:
    lm, criteria = judge
    cases = [Case(str(r["question"]), str(r["text_pred"] or ""), str(r["text_gold"] or "")) for r in rows]
    found: list[Judged] = rubric(lm, cases, criteria)
    for row, one in zip(rows, found, strict=True):
        row["judge_raw"] = one.raw
        for criterion in criteria:
            row[column(f"judge_{criterion.name}")] = one.parts.get(criterion.name)
        if one.score is None:
            row["flags"] = [*row["flags"], "judge unread"]
    return [one.score for one in found]


def _score(
    rows: list[Row], task: str, name: str, values: Sequence[float | None], known: dict[str, Any]
) -> dict[str, Any]:
    if name in CORPUS and rows:
        whole = metrics.corpus(
            name, [str(r["text_pred"] or "") for r in rows], [str(r["text_gold"] or "") for r in rows]
        )
        interval = (whole.error, whole.low, whole.high)
        return score(task, name, whole.value, n=len(rows), interval=interval, note=whole.signature, **known)
    read = [(v, str(r["group"])) for v, r in zip(values, rows, strict=True) if v is not None]
    lost = len(values) - len(read)
    note = f"the judge could not be read on {lost:,} of {len(values):,} rows" if lost else ""
    more = known | {"note": note, "chance": 0.0 if name in ("exact_match", "free_text", "numeric") else None}
    return share_score(task, name, [v for v, _ in read], groups=[g for _, g in read], **more)


def _criteria(rows: list[Row], task: str, criteria: Sequence[Criterion], known: dict[str, Any]) -> list[dict[str, Any]]:
    names = [f"judge_{c.name}" for c in criteria]
    return [_score(rows, task, name, [r[column(name)] for r in rows], known) for name in names]
