"""At most ten findings in plain words: what, how sure, which rows, why, and one thing to do."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tuneloop.analyze import detect, detect_test
from tuneloop.analyze.causes import PRECEDENCE
from tuneloop.analyze.evidence import Evidence, Finding, finding, percent

MOST = 10
MOST_CAUSES = 3
FEWEST, SHARE = 5, 0.01  # rows, and share of a task's rows, below which a kind of error is not worth a line
WHY = {
    "truncated prompt": "the prompt was longer than the model's context, so its beginning was cut off",
    "tie": "two options scored the same, so the first one won by position alone",
    "format failure": "right when the options are scored, but the generated text does not state it as expected",
    "length bias": "right once scores are divided by answer length, so the length of the options decided",
    "position bias": "one answer position is picked far more often than it is right",
    "prior-driven": "the same option wins when the question is left out: it is not read",
    "confident wrong": "almost all probability went to a wrong answer: a wrong label, or a wrong fact learned well",
    "near miss": "the right answer came second with a good share of the probability",
    "never near": "the right answer came last: the model does not know this",
    "knowledge gap": "wrong in every form the question was put in",
    "empty answer": "nothing was written",
    "repetition loop": "the same words were written again and again",
    "ran to the token limit": "the answer was still being written when the limit was reached",
    "goes on with a new question": "after its answer the model wrote the next question: it never learned to stop",
    "refusal": "the model declined to answer",
    "wrong format": "the answer has another shape than was asked for",
    "answer present, not extracted": "the right answer stands in the text, but not where it is looked for",
    "repeats a false reference": "the answer repeats a known falsehood",
    "language switch": "the answer is in another writing system than was expected",
}
DO = {
    "truncated prompt": "score with a model of longer context, or with fewer shots",
    "tie": "tuneloop eval ... --set model.dtype=float32",
    "format failure": "add rows with the exact answer format to the training file, then tuneloop run CONFIG",
    "length bias": "report the length-normalised metric (acc_norm) for this task",
    "position bias": "tuneloop data ... --set data.augment.options=2 (the options in other orders)",
    "prior-driven": "tuneloop run CONFIG --rounds 2: rows in which the likely option is wrong",
    "confident wrong": "tuneloop review export ANALYSIS --out review.csv and check these rows",
    "near miss": "tuneloop run CONFIG --rounds 2: more training rows of this kind",
    "never near": "add rows that state the missing facts to the training file, then tuneloop run CONFIG",
    "knowledge gap": "add rows that state the missing facts to the training file, then tuneloop run CONFIG",
    "empty answer": "check that training answers are not empty: tuneloop data ... --show 5",
    "repetition loop": "tuneloop train ... with more data or a lower train.num_train_epochs",
    "ran to the token limit": "tuneloop eval ... --set eval.max_new_tokens=256",
    "goes on with a new question": "tuneloop data ... --show 5: the end token must be trained",
    "refusal": "tuneloop data ... --set data.filter.refusals=true",
    "wrong format": "add rows with the exact answer format to the training file, then tuneloop run CONFIG",
    "answer present, not extracted": "teach the answer format, or loosen what the task extracts",
    "repeats a false reference": "add rows that state the truth of these topics",
    "language switch": "tuneloop data ... --set data.filter.languages=[en]",
}


def findings(seen: Evidence) -> list[Finding]:
    """Causes by strength of evidence, then weak slices and kinds of errors, then what could not be told."""
    found = detect.in_training(seen)
    detect_test.explain(seen, found)
    later = detect_test.in_test(seen)
    found += later
    found += [f for f in (_chance(seen), _undecided(seen)) if f] + _better(seen)
    found += _kinds(seen)
    return sorted(found, key=lambda f: -f["weight"])[:MOST]


def _chance(seen: Evidence) -> Finding | None:
    low = [entry for entry in seen.heads() if entry["at_chance"]]
    if not low:
        return None
    named = ", ".join(
        f"{e['task']} ({percent(e['after'])} against {percent(e['chance'])})" if e["chance"] else f"{e['task']} (0 %)"
        for e in low
    )
    return finding(
        "at chance", 1, 0.0, what=f"At chance: {named}", sure="the 95 % interval of the score holds the chance level",
        rows=[], why="the model does not do this task; causes of single rows mean little here",
        do="use a larger base, or rows that teach this task; do not read the ranking of such scores",
    )  # fmt: skip


def _undecided(seen: Evidence) -> Finding | None:
    heads = [entry for entry in seen.heads() if entry["verdict"] not in ("worse", "better")]
    if not heads:
        return None
    parts = [
        f"{entry['task']} {amount(entry, 'diff')}"
        + (f" (could have shown {amount(entry, 'detectable', '')})" if entry["detectable"] is not None else "")
        for entry in heads
    ]
    return finding(
        "undecided", 0, 0.5, what="No detectable difference: " + "; ".join(parts),
        sure="the corrected paired test does not tell tune and base apart; that is no proof they are equal",
        rows=[], why="too small a difference for this many rows, or none",
        do="tuneloop compare ... with a higher eval.limit, or tune on more data",
    )  # fmt: skip


def _better(seen: Evidence) -> list[Finding]:
    found = []
    for entry in seen.heads():
        if entry["verdict"] != "better":
            continue
        learned = [i for i in seen.tagged if i.task == entry["task"] and i.change == "learned"]
        moved = f"{entry['c']} rows went from wrong to right and {entry['b']} from right to wrong"
        found.append(
            finding(
                "better", 0, 0.4, task=entry["task"],
                what=f"{entry['task']}: better than the base by {amount(entry, 'diff')}",
                sure=f"95 % interval {amount(entry, 'low')} to {amount(entry, 'high')}, corrected p "
                f"{entry['p_adjusted']:.2g}, {entry['n']} rows, {entry['test']}",
                rows=[str(i.row["row"]) for i in learned],
                why=moved if entry["b"] is not None else "the score of the same rows moved",
                do="keep the tune; no training row may repeat these rows (see 'leaked test rows')",
            )
        )  # fmt: skip
    return found


def _kinds(seen: Evidence) -> list[Finding]:
    """The commonest kinds of errors by their option scores or their text: rules of thumb."""
    sizes = Counter(item.task for item in seen.tagged)
    groups: dict[tuple[str, str], list[str]] = {}
    chance = seen.at_chance()
    for item in seen.tagged:
        if item.task in chance and PRECEDENCE.index(item.primary or "other") >= PRECEDENCE.index("near miss"):
            continue  # what the option scores say is noise there; what the form says is not
        if item.wrong and not item.explained and item.primary in WHY:
            groups.setdefault((item.task, item.primary), []).append(str(item.row["row"]))
    groups = {key: rows for key, rows in groups.items() if len(rows) >= max(FEWEST, SHARE * sizes[key[0]])}
    ranked = sorted(groups.items(), key=lambda pair: (-len(pair[1]), pair[0]))[:MOST_CAUSES]
    return [
        finding(
            cause, 0, 0.6 + 0.3 * len(rows) / sizes[task], task=task,
            what=f"{task}: {cause} in {len(rows)} of {sizes[task]} rows",
            sure="a rule of thumb on the scores of each row, not a proof",
            rows=rows, why=WHY[cause], do=DO[cause],
        )
        for (task, cause), rows in ranked
    ]  # fmt: skip


def amount(entry: dict[str, Any], key: str, sign: str = "+") -> str:
    """A difference in points, or in nats for mean log-probabilities."""
    if entry["unit"] == "points":
        return f"{100 * entry[key]:{sign}.1f} points"
    return f"{entry[key]:{sign}.3f} nats a token"


def summary(verdicts: list[dict[str, Any]]) -> str:
    """The verdict in one sentence."""
    heads = [entry for entry in verdicts if entry["headline"]]
    if not heads:
        return "No base to compare with: causes only, no verdict."
    counts = Counter(entry["verdict"] for entry in heads)
    parts = [
        f"{name} on {counts[name]} ({', '.join(e['task'] for e in heads if e['verdict'] == name)})"
        for name in ("better", "worse", "no detectable difference")
        if counts[name]
    ]
    chance = sum(entry["at_chance"] for entry in heads)
    tail = f" At chance on {chance}." if chance else ""
    return f"Of {len(heads)} {'task' if len(heads) == 1 else 'tasks'}: " + "; ".join(parts) + "." + tail
