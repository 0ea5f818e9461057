"""What readers hand on: a raw row with its place, or a problem instead of one; and the reasons a row is refused for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tuneloop.records import Rejected
from tuneloop.text import shorten

RAW_LIMIT = 2000
DEEPEST = 200  # levels of a nest: Python writes and reads several hundred, fewer the deeper the call stands
TO_UTF8 = "save the file as UTF-8 (iconv -f latin1 -t utf-8 FILE)"

# reason -> code of the message, what it says
REASONS: dict[str, tuple[int, str]] = {
    "broken_json": (310, "broken JSON"),
    "wrong_encoding": (311, "not UTF-8"),
    "not_an_object": (312, "not an object"),
    "wrong_columns": (313, "another number of fields than the header"),
    "unknown_format": (314, "fits no known format"),
    "no_prompt": (315, "no prompt"),
    "no_answer": (316, "no answer"),
    "wrong_type": (317, "a value of the wrong type"),
    "bad_turns": (318, "turns that cannot be trained on"),
    "same_answers": (320, "a preference pair whose answers are equal"),
    "no_text": (321, "no text"),
    "duplicate": (322, "exact duplicate"),
    "in_test": (323, "shares its prompt or group with a test row"),
    "in_valid": (324, "shares its prompt or group with a validation row"),
    "near_duplicate": (325, "near-duplicate"),
    "other_answer": (326, "another answer to a prompt that has one"),
    "bridges_splits": (327, "belongs to groups that stand in different splits"),
    "contaminated": (328, "repeats a row of a benchmark"),
    "not_sampled": (329, "left out by the cap or weight of its source"),
    "answer_equals_prompt": (330, "an answer that repeats its prompt"),
    "repetition": (331, "an answer that repeats itself"),
    "refusal": (332, "an answer that refuses"),
    "corpus_rule": (333, "text that a corpus rule leaves out"),
    "language": (334, "in another language"),
    "too_long": (335, "longer than max_length"),
    "template": (336, "cannot be laid out by the chat template"),
}


class Refused(Exception):
    """Raised while a row is read; becomes a `Rejected`."""

    def __init__(self, reason: str, *, field: str = "", value: object = "", cure: str = "") -> None:
        super().__init__(reason)
        self.reason, self.field, self.value, self.cure = reason, field, value, cure

    def __reduce__(self) -> tuple[Any, ...]:
        return _refused, (self.reason, self.field, self.value, self.cure)


def _refused(reason: str, field: str, value: object, cure: str) -> Refused:
    """Builds one again on the other side of a pipe."""
    return Refused(reason, field=field, value=value, cure=cure)


@dataclass(slots=True)
class Raw:
    """One row of a file. `line` counts from 1; `problem` is set where no row could be read."""

    line: int
    row: dict[str, Any] = field(default_factory=dict)
    text: str = ""
    problem: Refused | None = None


def as_rejected(error: Refused, uri: str, raw: Raw) -> Rejected:
    value = error.value if isinstance(error.value, str) else _shown(error.value)
    return Rejected(
        reason=error.reason,
        field=printable(error.field) if error.field else error.field,
        value=shorten(printable(value), 200),
        cure=shorten(printable(error.cure), 400),  # may quote the columns that there are
        uri=uri,
        line=raw.line,
        raw=printable(raw.text or _shown(raw.row))[:RAW_LIMIT],
    )


def printable(text: str) -> str:
    """Bytes that did not decode (kept as lone surrogates) as \\xNN, so that every record is valid UTF-8."""
    if text.isascii():
        return text
    out = "".join(f"\\x{ord(c) - 0xDC00:02x}" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in text)
    return out.encode("utf-8", "replace").decode("utf-8")


def _shown(value: object) -> str:
    try:
        return dump(value)
    except RecursionError:
        return "(nested too deep)"


def dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def describe(rejected: Rejected) -> str:
    """One line for the terminal: code, reason, value and place."""
    number, words = REASONS[rejected.reason]
    parts = [f"TL-{number} {words}"]
    if rejected.field:
        parts.append(f"in '{rejected.field}'")
    if rejected.value:
        parts.append(f"({shorten(rejected.value, 60)})")
    parts.append(f"at {rejected.uri}:{rejected.line}")
    if rejected.cure:
        parts.append(f"- {rejected.cure}")
    return " ".join(parts)


def shallow(value: object, field: str) -> None:
    """Raises Refused for a nest of more than `DEEPEST` levels."""
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list | tuple)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise Refused("broken_json", field=field, value="nested too deep", cure="flatten the row")


def scalars(row: Mapping[str, Any], used: set[str]) -> dict[str, Any]:
    """The columns that were not used, for `meta`; what is empty or not JSON is left out."""
    kept = {name: value for name, value in row.items() if name not in used and value not in (None, "", [], {})}
    for name, value in kept.items():
        shallow(value, str(name))
    return dict(json.loads(dump(kept)))
