"""Accuracy over labels, or over the options that a row brings, by log-likelihood."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from tuneloop import metrics
from tuneloop.evaluate.baselines import label_baselines
from tuneloop.evaluate.rows import Part, Row, choice_row, score, share_score
from tuneloop.evaluate.split import Split
from tuneloop.evaluate.thinking import Thought, think
from tuneloop.prompts import encode
from tuneloop.records import Example
from tuneloop.scoring import OptionScore, Pair, Scorer

RESAMPLES = 1000


def run_labels(split: Split, scorer: Scorer) -> Part:
    """Classification: log-likelihood of each label of the train split with its end token, no length correction."""
    part, task = Part(), f"{split.which}:accuracy"
    labels = split.labels
    unseen = {e.label for e in split.labelled} - {e.label for e in split.train}
    if unseen:
        part.warnings.append(f"{task}: {len(unseen)} labels of the split stand in no train row")
    index = {label: i for i, label in enumerate(labels)}
    gold = [index[str(e.label)] for e in split.labelled]
    _rows(split, scorer, part, task, split.labelled, [labels] * len(gold), gold)
    for row, e in zip(part.rows, split.labelled, strict=True):
        row |= {"correct_norm": None, "text_gold": e.label}
    draw = (split.config.limit, split.config.seed, split.config.half)
    baselines = label_baselines(str(split.data), *draw) if split.which == "test" else {}
    known = {"chance": 1 / len(labels), "baselines": baselines, "shots": split.prompting.shots}
    groups = [r["group"] for r in part.rows]
    part.scores.append(share_score(task, "accuracy", [r["correct"] for r in part.rows], groups=groups, **known))
    part.scores.append(_macro_f1(task, part.rows, labels, split.prompting.shots))
    split.remark(part, task)
    return part


def run_chosen(split: Split, scorer: Scorer) -> Part:
    """Rows with options of their own: the likeliest option, as benchmarks of choices are scored."""
    part, task = Part(), f"{split.which}:choice"
    options = [[str(o) for o in e.meta["options"]] for e in split.chosen]
    gold = [int(e.meta["gold"]) for e in split.chosen]
    _rows(split, scorer, part, task, split.chosen, options, gold)
    right = [[g] for g in gold]
    known: dict[str, Any] = {"chance": metrics.chance([len(o) for o in options], [1] * len(gold))}
    known |= {"shots": split.prompting.shots, "baselines": metrics.trivial(options, right)}
    groups = [r["group"] for r in part.rows]
    for name, column in (("acc", "correct"), ("acc_norm", "correct_norm")):
        part.scores.append(share_score(task, name, [r[column] for r in part.rows], groups=groups, **known))
    split.remark(part, task)
    return part


def _rows(
    split: Split, scorer: Scorer, part: Part, task: str, examples: list[Example], options: list[list[str]],
    gold: list[int],
) -> None:  # fmt: skip
    """Scores the options of every row, behind each of its thoughts, and lets the thoughts vote."""
    pairs = option_pairs(split, examples, options)
    thoughts = think(split, scorer.model, examples)
    asked = [_behind(row, thought) for row, found in zip(pairs, thoughts, strict=True) for thought in found]
    scored = iter(scorer.score(asked, task))
    for e, row_pairs, names, right, found in zip(examples, pairs, options, gold, thoughts, strict=True):
        votes = [next(scored) for _ in found]
        row = choice_row(task, split.keys[id(e)], _voted(votes), names, [right])
        row |= split.known(e, part, row_pairs[0].prompt)
        row |= {"text_pred": names[row["pred"]]}
        row["answer_tokens"] += sum(len(t.ids) for t in found)
        row["prompt_tokens"] *= len(found)
        if split.prompting.thinks:
            row["samples"] = [t.text for t in found]
        part.rows.append(row)


def _behind(pairs: list[Pair], thought: Thought) -> list[Pair]:
    return [Pair(p.prompt + thought.ids, p.scored, p.mismatch) for p in pairs] if thought.ids else pairs


def _voted(votes: Sequence[list[OptionScore]]) -> list[OptionScore]:
    """One vote is itself. Of several, the sample whose pick most samples share, and of those the surest, stands."""
    if len(votes) == 1:
        return votes[0]
    picks = [metrics.best([s.logprob for s in row]) for row in votes]
    sure = [metrics.shares([s.logprob for s in row])[pick] for row, pick in zip(votes, picks, strict=True)]
    counts = Counter(picks)
    totals = {p: sum(s for q, s in zip(picks, sure, strict=True) if q == p) for p in counts}
    winner = max(counts, key=lambda p: (counts[p], totals[p], -p))
    return max((row for row, p in zip(votes, picks, strict=True) if p == winner), key=lambda r: r[winner].logprob)


def option_pairs(split: Split, examples: list[Example], options: list[list[str]]) -> list[list[Pair]]:
    """Prompt and option tokens of every row.

    Options that are the same for all rows (labels) are encoded once, where the first rows prove the join clean.
    """

    def slow(e: Example, names: list[str]) -> list[Pair]:
        shown, pairs = split.shown(e), []
        for name in names:
            found = encode(_answered(shown, name), split.tokenizer)
            at = found.trained.index(True)
            end = len(found.trained) - found.trained[::-1].index(True)
            pairs.append(Pair(found.input_ids[:at], found.input_ids[at:end]))
        return pairs

    if not examples or any(names is not options[0] for names in options):
        return [slow(e, names) for e, names in zip(examples, options, strict=True)]
    probes = [slow(e, options[0]) for e in examples[:2]]
    prompts = [split.prompt_ids(e) for e in examples]
    tails = [p.scored for p in probes[0]]
    clean = all(
        p.prompt == prompts[i] and p.scored == tail
        for i, pairs in enumerate(probes)
        for p, tail in zip(pairs, tails, strict=True)
    )
    if not clean:
        return [slow(e, options[0]) for e in examples]
    return [[Pair(prompt, tail) for tail in tails] for prompt in prompts]


def _answered(shown: Example, text: str) -> Example:
    """The row with another answer; blanks before the real one stay."""
    if shown.messages is not None:
        return Example(messages=[*shown.messages[:-1], {"role": "assistant", "content": text}])
    real = shown.completion or ""
    return Example(kind="completion", prompt=shown.prompt, completion=real[: len(real) - len(real.lstrip())] + text)


def _macro_f1(task: str, rows: list[Row], labels: list[str], shots: int) -> dict[str, Any]:
    """Macro F1 with a bootstrap interval over rows: it is no mean of rows, so no closed form holds."""
    gold, pred = np.array([r["gold"] for r in rows]), np.array([r["pred"] for r in rows])
    value = metrics.macro_f1(gold.tolist(), pred.tolist())
    rng, found = np.random.default_rng(0), np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        drawn = rng.integers(0, len(rows), len(rows))
        found[i] = _f1(gold[drawn], pred[drawn], len(labels))
    low, high = (float(v) for v in np.quantile(found, [0.025, 0.975]))
    note = f"over the {len(set(gold.tolist()))} labels that occur"
    return score(task, "macro_f1", value, n=len(rows), interval=(float(found.std()), low, high), note=note, shots=shots)


def _f1(gold: np.ndarray, pred: np.ndarray, labels: int) -> float:
    asked, said = np.bincount(gold, minlength=labels), np.bincount(pred, minlength=labels)
    hit = np.bincount(gold[gold == pred], minlength=labels)
    real = asked > 0
    return float((2 * hit[real] / (asked[real] + said[real])).mean())
