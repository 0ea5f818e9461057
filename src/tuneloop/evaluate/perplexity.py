"""Perplexity of a split under a contender's prompts."""

from __future__ import annotations

import math

from tuneloop.evaluate.prompting import answer_of, question_of
from tuneloop.evaluate.rows import Part, blank, score
from tuneloop.evaluate.split import Split
from tuneloop.prompts import encode
from tuneloop.records import Example
from tuneloop.scoring import Pair, Scorer


def run_perplexity(split: Split, scorer: Scorer) -> Part:
    """Perplexity over trained tokens; a row's `correct` is its mean log-probability a token."""
    part, task = Part(), f"{split.which}:perplexity"
    pairs = [_spans(split, e, scorer.max_length) for e in split.rows]
    kept = [(e, p) for e, p in zip(split.rows, pairs, strict=True) if p]
    scored = scorer.score([p for _, p in kept], task)
    total = tokens = 0.0
    for (e, _), found in zip(kept, scored, strict=True):
        sums, n = math.fsum(s.logprob for s in found), sum(s.n_tokens for s in found)
        total, tokens = total + sums, tokens + n
        row = blank(task, split.keys[id(e)], correct=sums / n, question=question_of(e), group=e.group)
        row |= {"logprobs": [sums], "tokens": [n], "truncated": any(s.truncated for s in found)}
        row |= {"category": e.label or "", "text_gold": answer_of(e)}
        part.rows.append(row | {"prompt_hash": part.prompt(question_of(e))})
    if len(kept) < len(split.rows):
        part.warnings.append(f"{task}: {len(split.rows) - len(kept):,} rows have no token to predict")
    # The interval of a ratio of sums: residuals of the rows against the common mean (delta method).
    mean, n = total / tokens, len(part.rows)
    residuals = [r["logprobs"][0] - mean * r["tokens"][0] for r in part.rows]
    error = math.sqrt(math.fsum(v * v for v in residuals)) / tokens * math.sqrt(n / max(1, n - 1))
    value = math.exp(-mean)
    interval = (value * error, math.exp(-mean - 1.96 * error), math.exp(-mean + 1.96 * error))
    note = f"{int(tokens):,} tokens; lower is better; chance is the vocabulary"
    known = {"chance": float(len(split.tokenizer)), "shots": split.prompting.shots, "note": note}
    part.scores.append(score(task, "perplexity", value, n=n, interval=interval, **known))
    split.remark(part, task)
    return part


def _spans(split: Split, example: Example, room: int) -> list[Pair]:
    """A pair for each run of trained tokens; text longer than the context is cut into windows of it."""
    found = encode(split.shown(example), split.tokenizer)
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
