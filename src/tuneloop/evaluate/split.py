"""Scores the user's own test split."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

from tuneloop import metrics
from tuneloop.config import EvalConfig
from tuneloop.evaluate.baselines import label_baselines
from tuneloop.evaluate.rows import Part, blank, choice_row, score, share_score
from tuneloop.lm import generate
from tuneloop.prompts import encode, encode_prompt
from tuneloop.records import Example, read_examples
from tuneloop.scoring import Pair, Scorer


class Split:
    """The test rows of a data folder, with `few_shot` fixed examples of its train split before each prompt."""

    def __init__(self, data: Path, config: EvalConfig, tokenizer: Any, few_shot: int) -> None:
        self.data, self.config, self.tokenizer, self.few_shot = data, config, tokenizer, few_shot
        test = read_examples(data, "test")
        self.test = test[: config.limit] if config.limit else test
        self.train = read_examples(data, "train")
        self.labelled = [e for e in self.test if e.kind == "classification"]
        self.asked = [e for e in self.test if e.kind in ("chat", "completion") and _answer(e)]
        pool = [e for e in self.train if e.kind != "text" and _answer(e)]
        self.shots = random.Random(config.seed).sample(pool, min(few_shot, len(pool)))

    def prompted(self, example: Example) -> Example:
        """The example with the shots before it."""
        if not self.shots or example.kind == "text":
            return example
        if example.messages is None:
            head = "".join(f"{s.prompt or ''}{s.completion or ''}\n\n" for s in self.shots if s.messages is None)
            return Example(kind=example.kind, prompt=head + (example.prompt or ""), completion=example.completion)
        turns = [m for s in self.shots for m in (s.messages or []) if m["role"] != "system"]
        system = [m for m in example.messages if m["role"] == "system"]
        # Shots are not what is scored: weight 0 keeps their answers out of the mask.
        shown = [{**m, "weight": 0} if m["role"] == "assistant" else m for m in turns]
        rest = [m for m in example.messages if m["role"] != "system"]
        return Example(kind=example.kind, messages=[*system, *shown, *rest], label=example.label)

    def prompt_ids(self, example: Example) -> list[int]:
        """Token ids up to the answer."""
        shown = self.prompted(example)
        if shown.messages is not None:
            return encode_prompt(shown.messages[:-1], self.tokenizer)
        found = encode(shown, self.tokenizer)
        return found.input_ids[: found.trained.index(True)]


def _answer(example: Example) -> str:
    """What the model should write; empty where the last turn is not an answer."""
    if example.messages:
        last = example.messages[-1]
        return str(last["content"]).strip() if last["role"] == "assistant" else ""
    return (example.completion or "").strip()


def _question(example: Example) -> str:
    if example.messages:
        asked = [str(m["content"]) for m in example.messages[:-1] if m["role"] == "user"]
        return asked[-1] if asked else ""
    return example.prompt or (example.text or "")[:500]


def _rows_ids(examples: list[Example]) -> list[str]:
    seen: dict[str, int] = {}
    ids = []
    for e in examples:
        seen[e.id] = seen.get(e.id, 0) + 1
        ids.append(e.id if seen[e.id] == 1 else f"{e.id}-{seen[e.id]}")
    return ids


def run_accuracy(split: Split, scorer: Scorer) -> Part:
    """Classification: log-likelihood of each label of the train split with its end token, no length correction."""
    part, task = Part(), "test:accuracy"
    labels = sorted({e.label for e in [*split.train, *split.labelled] if e.kind == "classification" and e.label})
    unseen = {e.label for e in split.labelled} - {e.label for e in split.train}
    if unseen:
        part.warnings.append(f"{task}: {len(unseen)} labels of the test split stand in no train row")
    index = {label: i for i, label in enumerate(labels)}
    pairs = _label_pairs(split, labels)
    scored = scorer.score(pairs, task)
    for key, e, options in zip(_rows_ids(split.labelled), split.labelled, scored, strict=True):
        row = choice_row(task, key, options, labels, [index[str(e.label)]])
        row |= {"question": _question(e), "category": e.label, "group": e.group, "correct_norm": None}
        row |= {"prompt_hash": part.prompt(_question(e)), "text_gold": e.label, "text_pred": labels[row["pred"]]}
        part.rows.append(row)
    baselines = label_baselines(str(split.data), len(split.labelled))
    known = {"chance": 1 / len(labels), "baselines": baselines, "shots": len(split.shots)}
    part.scores.append(share_score(task, "accuracy", [r["correct"] for r in part.rows], **known))
    f1 = metrics.macro_f1([r["gold"] for r in part.rows], [r["pred"] for r in part.rows])
    part.scores[0]["note"] = f"macro F1 {f1:.4f} over {len(labels)} labels"
    _count(part, task)
    return part


def _label_pairs(split: Split, labels: list[str]) -> list[list[Pair]]:
    """Prompt and label tokens of every row; labels are encoded once where the first rows prove the join clean."""

    def slow(e: Example) -> list[Pair]:
        shown = split.prompted(e)
        pairs = []
        for label in labels:
            last = {"role": "assistant", "content": label}
            found = encode(Example(messages=[*(shown.messages or [])[:-1], last]), split.tokenizer)
            at = found.trained.index(True)
            end = len(found.trained) - found.trained[::-1].index(True)
            pairs.append(Pair(found.input_ids[:at], found.input_ids[at:end]))
        return pairs

    probes = [slow(e) for e in split.labelled[:2]]
    prompts = [split.prompt_ids(e) for e in split.labelled]
    tails = [p.scored for p in probes[0]]
    clean = all(
        p.prompt == prompts[i] and p.scored == tail
        for i, pairs in enumerate(probes)
        for p, tail in zip(pairs, tails, strict=True)
    )
    if not clean:
        return [slow(e) for e in split.labelled]
    return [[Pair(prompt, tail) for tail in tails] for prompt in prompts]


def run_generated(split: Split, model: Any, examples: list[Example], task: str) -> Part:
    """Greedy answers compared with the expected text, blanks at the ends and letter case aside."""
    part = Part()
    chosen = examples[: split.config.generate_limit]
    prompts = [split.prompt_ids(e) for e in chosen]
    longest = max((len(split.tokenizer(_answer(e))["input_ids"]) for e in chosen), default=0)
    room = min(split.config.max_new_tokens, longest + 8)
    texts = generate(model, split.tokenizer, prompts, max_new_tokens=room)
    for key, e, ids, text in zip(_rows_ids(chosen), chosen, prompts, texts, strict=True):
        hit = " ".join(text.split()).casefold() == " ".join(_answer(e).split()).casefold()
        part.rows.append(
            blank(
                task,
                key,
                correct=float(hit),
                question=_question(e),
                group=e.group,
                category=e.label or "",
                prompt_hash=part.prompt(split.tokenizer.decode(ids)),
                text_pred=text,
                text_gold=_answer(e),
            )
        )
    name = "free_text" if task.endswith("free_text") else "exact_match"
    note = f"the first {len(chosen)} of {len(examples)} rows, greedy, up to {room} new tokens"
    part.scores.append(
        share_score(task, name, [r["correct"] for r in part.rows], note=note, shots=len(split.shots), chance=0.0)
    )
    return part


def run_perplexity(split: Split, scorer: Scorer) -> Part:
    """Perplexity over trained tokens; a row's `correct` is its mean log-probability a token."""
    part, task = Part(), "test:perplexity"
    pairs = [_spans(split, e, scorer.max_length) for e in split.test]
    kept = [(e, p) for e, p in zip(split.test, pairs, strict=True) if p]
    scored = scorer.score([p for _, p in kept], task)
    total = tokens = 0.0
    for key, (e, _), found in zip(_rows_ids([e for e, _ in kept]), kept, scored, strict=True):
        sums, n = math.fsum(s.logprob for s in found), sum(s.n_tokens for s in found)
        total, tokens = total + sums, tokens + n
        row = blank(task, key, correct=sums / n, question=_question(e), group=e.group, category=e.label or "")
        row |= {"logprobs": [sums], "tokens": [n], "truncated": any(s.truncated for s in found)}
        part.rows.append(row | {"prompt_hash": part.prompt(_question(e)), "text_gold": _answer(e)})
    # The interval of a ratio of sums: residuals of the rows against the common mean (delta method).
    mean, n = total / tokens, len(part.rows)
    residuals = [r["logprobs"][0] - mean * r["tokens"][0] for r in part.rows]
    error = math.sqrt(math.fsum(v * v for v in residuals)) / tokens * math.sqrt(n / max(1, n - 1))
    value = math.exp(-mean)
    interval = (value * error, math.exp(-mean - 1.96 * error), math.exp(-mean + 1.96 * error))
    vocabulary = float(len(split.tokenizer))
    part.scores.append(
        score(
            task,
            "perplexity",
            value,
            n=n,
            interval=interval,
            chance=vocabulary,
            shots=len(split.shots),
            note=f"{int(tokens):,} tokens; lower is better; chance is the vocabulary",
        )
    )
    _count(part, task)
    return part


def _spans(split: Split, example: Example, room: int) -> list[Pair]:
    """A pair for each run of trained tokens; text longer than the context is cut into windows of it."""
    found = encode(split.prompted(example), split.tokenizer)
    ids, pairs, at = found.input_ids, [], 0
    while at < len(ids):
        end = at
        while end < len(ids) and found.trained[end]:
            end += 1
        if end > at:
            start = max(at, 1)  # the very first token has nothing to be predicted from
            if example.kind == "text":
                pairs += [Pair([ids[i - 1]], ids[i : min(end, i + room)]) for i in range(start, end, room)]
            elif end > start:
                pairs.append(Pair(ids[:start], ids[start:end]))
        at = end + 1
    return pairs


def _count(part: Part, task: str) -> None:
    cut = sum(r["truncated"] for r in part.rows)
    if cut:
        part.warnings.append(f"{task}: {cut:,} of {len(part.rows):,} rows lost the beginning to the context length")
