"""What the test asks and the training data hardly shows: labels, words and wordings by their share on both sides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tuneloop.analyze.causes import Tagged
from tuneloop.analyze.layout import KNOWN, frame
from tuneloop.analyze.slices import fold, question
from tuneloop.analyze.training import Shown
from tuneloop.text import words

RARE = 0.25  # share in training over share in the test below which something is hardly shown
SURE = 1e-3  # chance of so few rows if training held half of the test's share
SURE_WORDING = 0.05  # the same for a whole wording: there are few of them, and the errors in all of them decide
FEWEST = 5  # test rows a wording needs
FEWEST_OF_A_LABEL = 3  # test rows a label needs: how often it was shown is counted on the training rows
FEWEST_LABELS = 3
FEWEST_ALIKE = 50  # training rows of the test's own form; with fewer all of them are looked at
COMMON = 0.03  # share of the rows from which a word belongs to the wording and not to the content


@dataclass(slots=True)
class Gap:
    """Names hardly shown in training, with the test rows they hold and the counts behind them."""

    kind: str  # labels | words
    names: list[str]
    rows: list[Tagged]
    shown: int  # training rows with any of the names
    asked: int  # test rows with any of them
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)  # name -> (training rows, test rows)


def gaps(train: list[Shown], items: list[Tagged], prompts: list[str], smallest: int, seed: int) -> list[Gap]:
    """Gaps of one task: labels, else words and wordings that hold more errors than average on the first fold.

    Training rows of another form than the task's prompts are left out, as long as enough of its own form are there.
    """
    found = _labels(train, items)
    if found:
        return [found]
    forms = {f for f, n in Counter(frame(p) for p in prompts).items() if n >= KNOWN * len(prompts)}
    own = [row for row in train if frame(row.prompt) in forms]
    gap = _words(own if len(own) >= FEWEST_ALIKE else train, items, smallest, seed)
    return [gap] if gap else []


def _labels(train: list[Shown], items: list[Tagged]) -> Gap | None:
    shown = Counter(row.label for row in train if row.label)
    asked = Counter(str(item.row.get("text_gold") or "") for item in items)
    if len(shown) < FEWEST_LABELS or not set(asked) & set(shown):
        return None
    total = sum(shown.values())
    names = sorted(n for n, k in asked.items() if k >= FEWEST_OF_A_LABEL and _rare(shown[n], total, k, len(items)))
    rows = [item for item in items if str(item.row.get("text_gold") or "") in set(names)]
    counts = {n: (shown[n], asked[n]) for n in names}
    return Gap("labels", names, rows, sum(shown[n] for n in names), len(rows), counts) if names else None


def _words(train: list[Shown], items: list[Tagged], smallest: int, seed: int) -> Gap | None:
    """Single words, and whole wordings: the common words of a question, whatever it is about."""
    spoken = [words(question(item)) for item in items]
    read = [words(row.prompt) for row in train]
    counts = Counter(w for one in spoken for w in set(one)) + Counter(w for one in read for w in set(one))
    common = {w for w, n in counts.items() if n >= COMMON * (len(items) + len(train))}
    names = [_names(one, common) for one in spoken]
    shown = Counter(name for one in read for name in _names(one, common))
    asked = Counter(name for one in names for name in one)
    first = [i for i, item in enumerate(items) if fold(item, seed) == 0]
    rate = sum(items[i].wrong for i in first) / max(1, len(first))
    chosen = set()
    for name, k in asked.items():
        wording = " " in name
        enough, sure = (FEWEST, SURE_WORDING) if wording else (smallest, SURE)
        if not enough <= k <= len(items) / 2 or not _rare(shown[name], len(train), k, len(items), sure):
            continue
        own = [items[i].wrong for i in first if name in names[i]]
        # A wording has too few rows on one fold to be judged by them: rarity alone chooses it.
        if wording or (own and sum(own) / len(own) > rate):
            chosen.add(name)
    rows = [item for item, one in zip(items, names, strict=True) if one & chosen]
    if not rows:
        return None
    held = sum(bool(_names(one, common) & chosen) for one in read)
    ordered = sorted(chosen, key=lambda name: (" " in name, -asked[name], name))
    return Gap("words", ordered, rows, held, len(rows), {n: (shown[n], asked[n]) for n in ordered})


def holds(names: Sequence[str], row: dict[str, Any]) -> bool:
    """Whether a scored row falls under a name of a gap: its label, a word, or a wording ('where did … live')."""
    if str(row.get("text_gold") or "") in names:
        return True
    spoken = words(str(row.get("question") or ""))
    for name in names:
        parts = name.split()
        if len(parts) == 1 and name in spoken:
            return True
        if len(parts) > 1 and len(parts) == len(spoken):
            same = [part in ("…", word) for part, word in zip(parts, spoken, strict=True)]
            if all(same):
                return True
    return False


def _names(spoken: list[str], common: set[str]) -> set[str]:
    kept = [w for w in spoken if w in common]
    return {*kept, " ".join(w if w in common else "…" for w in spoken)} if kept else set()


def _rare(shown: int, train: int, asked: int, test: int, sure: float = SURE) -> bool:
    from scipy.stats import binom

    share = asked / test
    return shown / max(1, train) < RARE * share and float(binom.cdf(shown, train, share / 2)) < sure
