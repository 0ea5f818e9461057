"""Causes that lie in the training data: repeats, contradictions, leaks, wrong answers, gaps, form, letters."""

from __future__ import annotations

import math

from tuneloop.analyze import coverage, labels, layout, repeats
from tuneloop.analyze.causes import Tagged
from tuneloop.analyze.evidence import Evidence, Finding, finding, ids, percent
from tuneloop.analyze.slices import excess_p, fold
from tuneloop.analyze.training import Shown

FEWEST = 5  # rows below which a repeat or a contradiction is an accident
COPIES = 0.01  # share of the training rows that copies must make up
GAP_P = 1e-3  # chance of so many errors in a gap, over all of its rows
LETTERS = 30  # single-letter answers from which their spread can be judged
LETTER_P = 1e-6
LETTER_TOP = 0.45  # share of one letter among the answers of four that is far from even


def in_training(seen: Evidence) -> list[Finding]:
    """Findings about the training rows, in the order in which one explains another's rows away."""
    if not seen.train:
        return []
    found = _contradictions(seen) + _copies(seen) + _leaks(seen)
    found += _form(seen) + _wrong_answers(seen) + _letters(seen) + _gaps(seen)
    return found


def places(train: list[Shown], chosen: list[int]) -> list[str]:
    return [train[i].place for i in chosen]


def _contradictions(seen: Evidence) -> list[Finding]:
    odd = repeats.contradictions(seen.train)
    if len(odd) < FEWEST:
        return []
    seen.used |= set(odd)
    share = len(odd) / len(seen.train)
    shown = f"'{_line(seen.train[odd[0]].prompt)}'"
    return [
        finding(
            "conflicting duplicates", 4, share,
            what=f"{len(odd)} training rows ask what another row asks, word for word, and answer otherwise",
            sure=f"counted, {percent(share)} of the training rows; for example {shown}",
            rows=places(seen.train, odd), ids=[seen.train[i].id for i in odd], of="train",
            why="a question with two answers teaches neither: the model learns to hesitate",
            do="tuneloop review export ANALYSIS --out review.csv, keep one answer of each, then tuneloop review apply",
        )
    ]  # fmt: skip


def _line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:59] + "…"


def _copies(seen: Evidence) -> list[Finding]:
    groups = [g for g in repeats.copies(seen.train) if not set(g) <= seen.used]
    rows = sorted(i for g in groups for i in g)
    if len(rows) < max(FEWEST, COPIES * len(seen.train)):
        return []
    seen.used |= set(rows)
    extra = len(rows) - len(groups)
    largest = max(map(len, groups))
    return [
        finding(
            "near-duplicates", 3, extra / len(seen.train),
            what=f"{len(rows)} training rows are copies of one another but for a few words ({len(groups)} originals)",
            sure=f"compared word by word; the most repeated stands {largest} times",
            rows=places(seen.train, rows), ids=[seen.train[i].id for i in rows], of="train",
            why="what stands several times is learned by heart and weighs more than the rest",
            do="tuneloop data ... --set data.near_duplicates=true",
        )
    ]  # fmt: skip


def _leaks(seen: Evidence) -> list[Finding]:
    found = []
    for task, items in seen.by_task().items():
        hits = repeats.leaks(seen.train, items)
        if len(hits) < FEWEST:
            continue
        leaked = [item for item, _ in hits]
        for item in leaked:
            item.causes.append("contaminated")
        clean = [item for item in items if "contaminated" not in item.causes]
        rates = [1 - sum(x.wrong for x in part) / len(part) if part else math.nan for part in (leaked, clean)]
        found.append(
            finding(
                "leaked test rows", 4, len(hits) / len(items), task=task,
                what=f"{task}: {len(hits)} of {len(items)} test questions stand in the training data, whole",
                sure=f"matched word for word; right on {percent(rates[0])} of them, {percent(rates[1])} elsewhere",
                rows=ids(leaked), train_rows=places(seen.train, [i for _, i in hits]),
                ids=[seen.train[i].id for _, i in hits],
                why="a row that was trained on is remembered, not answered: the score is too high",
                do="tuneloop data ... --set data.decontaminate=[TASK], then train and score again",
            )
        )  # fmt: skip
        seen.used |= {i for _, i in hits}
    return found


def _form(seen: Evidence) -> list[Finding]:
    prompts = {name: rows for name, rows in seen.prompts.items() if rows and not name.startswith("test:")}
    found = []
    left = [i for i in range(len(seen.train)) if i not in seen.used]
    foreign = layout.foreign([seen.train[i] for i in left], prompts) if prompts else {}
    for task, inside in foreign.items():
        rows = [left[i] for i in inside]
        if len(rows) < max(FEWEST, layout.GROUP * len(seen.train)):
            continue
        mine, theirs = layout.pattern(prompts[task]), layout.pattern([seen.train[i].prompt for i in rows])
        seen.used |= set(rows)
        found.append(
            finding(
                "format shift", 4, len(rows) / len(seen.train), task=task,
                what=f"{len(rows)} training rows like those of {task} are laid out otherwise than its prompts",
                sure=f"counted; training has {theirs!r}, the benchmark {mine!r}", layout={"old": theirs, "new": mine},
                rows=places(seen.train, rows), ids=[seen.train[i].id for i in rows], of="train",
                why="what was learned in one layout carries over to another only in part",
                do=f"lay the training rows out as the prompts of {task} are, then tuneloop run CONFIG",
            )
        )  # fmt: skip
    for part in seen.tasks:
        for trait, a, b in layout.answer_gaps(seen.train, part.after, prompts.get(part.task, [])):
            found.append(
                finding(
                    "format shift", 3, abs(a - b) / 2, task=part.task,
                    what=f"{part.task}: an answer {trait} in {percent(a)} of training, in {percent(b)} of the test",
                    sure="counted over training rows of the same layout", rows=[],
                    why="the model is scored on another form of answer than it was taught",
                    do="write the training answers in the form of the test, then tuneloop run CONFIG",
                )
            )  # fmt: skip
    return found


def _wrong_answers(seen: Evidence) -> list[Finding]:
    suspects = labels.by_neighbours(seen.train, seen.config.seed) or labels.by_loss(seen.train, seen.used)
    if suspects is None or len(suspects.places) < FEWEST:
        return []
    rows = suspects.places
    about = f" about {', '.join(repr(w) for w in suspects.of[:4])}" if suspects.of else ""
    share = len(rows) / max(1, suspects.checked)
    lines = [{"place": seen.train[i].place, "id": seen.train[i].id, "says": suspects.says.get(i)} for i in rows]
    return [
        finding(
            "flipped labels", 3, share,
            what=f"{len(rows)} training rows{about} probably carry a wrong answer",
            sure=f"{percent(share)} of {suspects.checked} rows looked at; {suspects.evidence}",
            rows=places(seen.train, rows), ids=[seen.train[i].id for i in rows], of="train", suggested=lines,
            why="rows like them say otherwise, so the model cannot learn one rule from both",
            do="tuneloop review export ANALYSIS --out review.csv, correct it, then tuneloop review apply",
        )
    ]  # fmt: skip


def _letters(seen: Evidence) -> list[Finding]:
    counts = layout.letters(seen.train)
    total, kinds = sum(counts.values()), len(counts)
    if total < LETTERS:
        return []
    from scipy.stats import chisquare

    kinds = max(kinds, 4)
    values = [*counts.values(), *[0] * (kinds - len(counts))]
    top, n = counts.most_common(1)[0]
    p = float(chisquare(values).pvalue)
    if p > LETTER_P or n / total < LETTER_TOP:
        return []
    picks = _picks(seen, top)
    return [
        finding(
            "letter bias", 4, n / total - 1 / kinds,
            what=f"the right answer is {top} in {percent(n / total)} of the {total} lettered training rows",
            sure=f"an even spread gives this with p {p:.1g}{picks}",
            rows=[], why="the model learns to say the letter without reading the options",
            do="put the right option in every place equally often, then tuneloop run CONFIG",
        )
    ]  # fmt: skip


def _picks(seen: Evidence, letter: str) -> str:
    parts = []
    for task in seen.tasks:
        rows = [r for r in task.after if layout.lettered(r)]
        if rows:
            place = "ABCDEFGHIJ".index(letter)
            picked = sum(r.get("pred") == place for r in rows) / len(rows)
            right = sum(r.get("gold") == place for r in rows) / len(rows)
            parts.append(f"; {task.task}: picked in {percent(picked)}, right in {percent(right)}")
    return "".join(parts)


def _gaps(seen: Evidence) -> list[Finding]:
    found, chance = [], seen.at_chance()
    for task, every in seen.by_task().items():
        # A prompt that was cut is long and lost its words: what it asks is no measure of what training shows.
        items = [item for item in every if not item.row.get("truncated")]
        if len(items) < 2 * seen.config.min_slice:
            continue
        for gap in coverage.gaps(seen.train, items, seen.prompts[task], seen.config.min_slice, seen.config.seed):
            # A label that training hardly shows is counted; words need errors that mean something.
            found += _gap(seen, task, items, gap) if gap.kind == "labels" or task not in chance else []
    best = sorted(found, key=lambda f: -f["weight"])[:2]
    return best


def _gap(seen: Evidence, task: str, items: list[Tagged], gap: coverage.Gap) -> list[Finding]:
    """A gap counts when the rows in it are wrong more often than the rest, on the fold that did not choose it."""
    sides = [fold(item, seen.config.seed) for item in items]
    inside = {id(item) for item in gap.rows}
    chosen = [i for i, item in enumerate(items) if id(item) in inside]
    marks = [item.wrong for item in items]
    p, whole = excess_p(chosen, marks, sides, 1), excess_p(chosen, marks, [0] * len(items), 0)
    if p > seen.config.alpha or whole > GAP_P or len(gap.rows) < seen.config.min_slice:
        return []
    wrong = sum(item.wrong for item in gap.rows)
    rest = [item for item in items if id(item) not in inside]
    others = sum(item.wrong for item in rest) / max(1, len(rest))
    named = ", ".join(f"'{name}'" for name in gap.names[:4]) + (" ..." if len(gap.names) > 4 else "")
    excess = (wrong - others * len(gap.rows)) / len(items)
    return [
        finding(
            "missing coverage", 3, max(excess, 0.0), task=task, slice=f"{gap.kind} {named}", names=gap.names,
            what=f"{task}: training has {gap.shown} rows with {named}, the test asks {len(gap.rows)}",
            sure=f"wrong on {percent(wrong / len(gap.rows))} of them, on {percent(others)} of the rest; "
            f"p {p:.1g} on rows that did not choose them",
            rows=ids(gap.rows), counts={name: list(pair) for name, pair in list(gap.counts.items())[:50]},
            why="the model was hardly shown such rows",
            do="tuneloop run CONFIG --rounds 2, or add rows of this kind by hand",
        )
    ]  # fmt: skip
