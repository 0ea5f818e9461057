"""The row formats people have: how each is recognised by its columns, and how it becomes an `Example`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from dataclasses import field as of_class
from typing import Any

from tuneloop.data import choices, own, pairs, turns
from tuneloop.data.rows import Refused, scalars
from tuneloop.errors import UsageError, nearest
from tuneloop.records import Example

Row = dict[str, Any]


@dataclass(frozen=True)
class Format:
    """`required` and `optional` map a field to the column names it goes by, likeliest first."""

    name: str
    required: dict[str, tuple[str, ...]]
    optional: dict[str, tuple[str, ...]]
    build: Callable[[Row], Example]

    def columns(self, row: Mapping[str, Any], named: Mapping[str, str]) -> dict[str, str] | None:
        """field -> column of this row, or None where a required one is missing; `named` overrides."""
        by_lower = {str(name).lower(): str(name) for name in row}
        found: dict[str, str] = {}
        for field, aliases in {**self.required, **self.optional}.items():
            if field in named:
                found[field] = named[field]
                continue
            column = next((by_lower[a] for a in aliases if a in by_lower and by_lower[a] not in found.values()), None)
            if column is not None:
                found[field] = column
            elif field in self.required:
                return None
        return found if all(found[field] in row for field in self.required) else None


def as_text(value: object, field: str, reason: str) -> str:
    """A string or number as text; refused where nothing is there or a structure is."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        if value != value:
            raise Refused(reason, field=field, value=value, cure="fill it in or delete the row")
        return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    if value is None or (isinstance(value, str) and not value.strip()):
        raise Refused(reason, field=field, value=value, cure="fill it in or delete the row")
    if isinstance(value, str):
        return value
    raise Refused("wrong_type", field=field, value=value, cure="write it as one string")


def optional_text(value: object, field: str) -> str:
    return "" if value is None or value == "" or value != value else as_text(value, field, "wrong_type")


def _exchange(user: str, answer: str, system: str = "", before: list[Row] | None = None) -> list[Row]:
    head = [{"role": "system", "content": system}] if system.strip() else []
    return [*head, *(before or []), {"role": "user", "content": user}, {"role": "assistant", "content": answer}]


def _alpaca(row: Row) -> Example:
    prompt = as_text(row["instruction"], "instruction", "no_prompt")
    more = optional_text(row.get("input"), "input")
    answer = as_text(row["output"], "output", "no_answer")
    before: list[Row] = []
    for pair in turns.as_list(row.get("history") or [], "history"):
        if not isinstance(pair, list) or len(pair) != 2:
            raise Refused("wrong_type", field="history", value=pair, cure="write pairs of [prompt, answer]")
        before += _exchange(as_text(pair[0], "history", "no_prompt"), as_text(pair[1], "history", "no_answer"))
    user = f"{prompt}\n\n{more}" if more.strip() else prompt
    return Example(messages=_exchange(user, answer, optional_text(row.get("system"), "system"), before))


def _seed_task(row: Row) -> Example:
    """Self-Instruct's seed tasks: an instruction with instances, of which the first is read."""
    instances = turns.as_list(row["instances"], "instances")
    if not instances or not isinstance(instances[0], dict):
        raise Refused("no_answer", field="instances", value=instances, cure="write at least one {input, output}")
    one = {"input": instances[0].get("input"), "output": instances[0].get("output")}
    return _alpaca({"instruction": row["instruction"], **one})


def _question(row: Row) -> Example:
    question = as_text(row["question"], "question", "no_prompt")
    answer = as_text(row["answer"], "answer", "no_answer")
    return Example(messages=_exchange(question, answer, optional_text(row.get("system"), "system")))


def _prompt(row: Row) -> Example:
    if isinstance(row["prompt"], list) and isinstance(row["completion"], list):
        return turns.messages({"messages": [*row["prompt"], *row["completion"]]})
    prompt = as_text(row["prompt"], "prompt", "no_prompt")
    return Example(kind="completion", prompt=prompt, completion=as_text(row["completion"], "completion", "no_answer"))


def _label(row: Row) -> Example:
    text = as_text(row["text"], "text", "no_prompt")
    label = as_text(row["label"], "label", "no_answer").strip()
    return Example(kind="classification", messages=_exchange(text, label), label=label)


def _plain(row: Row) -> Example:
    return Example(kind="text", text=as_text(row["text"], "text", "no_text"))


FEEDBACK = ("label", "kto_tag", "desirable")
ANSWERS = ("answer", "output", "response", "best_answer")
FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format(
            "prepared",
            {name: (name,) for name in own.PREPARED},
            {name: (name,) for name in own.PREPARED_MORE},
            own.prepared,
        ),
        Format("generated", {name: (name,) for name in own.MARKS}, {name: (name,) for name in own.CARRIED}, own.build),
        Format(
            "preference",
            {"chosen": ("chosen",), "rejected": ("rejected",)},
            {
                "messages": ("messages", "conversations", "conversation"),
                "prompt": ("prompt",),
                "question": ("question", "instruction"),
                "input": ("input",),
                "system": ("system",),
            },
            pairs.preference,
        ),
        Format(
            "messages",
            {"messages": ("messages",)},
            {"tools": ("tools", "functions"), "label": FEEDBACK},
            pairs.with_feedback(turns.messages),
        ),
        Format(
            "sharegpt",
            {"conversations": ("conversations", "conversation")},
            {"system": ("system",), "tools": ("tools",), "label": FEEDBACK},
            pairs.with_feedback(turns.sharegpt),
        ),
        Format(
            "ending",
            {"question": ("query", "ctx"), "choices": ("choices", "endings"), "answer": ("gold", "label")},
            {"subject": ("activity_label",)},
            choices.ending,
        ),
        Format(
            "multiple_choice",
            {
                "question": ("question",),
                "choices": ("choices", "options"),
                "answer": ("answerkey", "answer", "gold", "label"),
            },
            {"subject": ("subject",)},
            choices.build,
        ),
        Format("seed_tasks", {"instruction": ("instruction",), "instances": ("instances",)}, {}, _seed_task),
        Format(
            "alpaca",
            {"instruction": ("instruction",), "output": ("output", "response")},
            {"input": ("input", "context"), "system": ("system",), "history": ("history",), "label": ("kto_tag",)},
            pairs.with_feedback(_alpaca),
        ),
        Format(
            "prompt_completion",
            {"prompt": ("prompt",), "completion": ("completion",)},
            {"label": FEEDBACK},
            pairs.with_feedback(_prompt),
        ),
        Format(
            "question_answer",
            {"question": ("question", "query", "prompt", "input"), "answer": ANSWERS},
            {"system": ("system",)},
            _question,
        ),
        Format(
            "text_label", {"text": ("text", "sentence", "utterance"), "label": ("label", "intent", "class")}, {}, _label
        ),
        Format("text", {"text": ("text", "content", "document")}, {}, _plain),
    )
}
NAMES = (*FORMATS, "document")


@dataclass(frozen=True)
class Plan:
    """How one file is read: its main format, chosen or found, and the columns that were named."""

    main: str | None
    columns: dict[str, str]
    forced: bool
    seen: Counter[str]
    mapping: dict[str, str] = of_class(default_factory=dict)  # what the columns of the main format were in the sample


def named_format(name: str, columns: Mapping[str, str]) -> str | None:
    """The format that the config names, by name or by the fields in `columns`; None to find it out."""
    if name not in ("auto", *NAMES):
        raise UsageError(132, f"unknown format '{name}'", where="data.format", expected=nearest(name, ("auto", *NAMES)))
    if name != "auto":
        _check_fields(FORMATS["text" if name == "document" else name], columns)
        return "text" if name == "document" else name
    if not columns:
        return None
    fits = [f for f in FORMATS.values() if set(f.required) <= set(columns) <= {*f.required, *f.optional}]
    if not fits:
        known = sorted({field for f in FORMATS.values() for field in f.required})
        raise UsageError(
            133,
            f"no format has the fields {', '.join(sorted(columns))}",
            where="data.columns",
            expected="all required fields of one format: " + ", ".join(known),
            cure="name the format too: --set data.format=question_answer",
        )
    return fits[0].name


def _check_fields(format: Format, columns: Mapping[str, str]) -> None:
    known = [*format.required, *format.optional]
    for field in columns:
        if field not in known:
            raise UsageError(
                133,
                f"format '{format.name}' has no field '{field}'",
                where=f"data.columns.{field}",
                expected=nearest(field, known),
            )


def plan(sample: Iterable[Row], forced: str | None, columns: dict[str, str], uri: str) -> Plan:
    """Looks at the first rows of a file. A named column that the file lacks is an error, not a lost file."""
    rows = list(sample)
    held = {str(name) for row in rows for name in row}
    for field, column in columns.items():
        if rows and column not in held:
            raise UsageError(
                134, f"no column '{column}'", where=f"{uri} (data.columns.{field})", expected=nearest(column, held)
            )
    if forced is not None:
        return Plan(forced, columns, True, Counter({forced: len(rows)}))
    names = [detect(row) for row in rows]
    seen = Counter(name for name in names if name)
    if not seen:
        return Plan(None, columns, False, seen)
    main = seen.most_common(1)[0][0]
    mapping = FORMATS[main].columns(rows[names.index(main)], columns)
    return Plan(main, columns, False, seen, mapping or {})


def detect(row: Row) -> str | None:
    """The first format whose required columns the row has and whose values have its shape."""
    for name, format in FORMATS.items():
        if name == "prepared":  # never guessed: only a data folder that is named as such holds them
            continue
        found = format.columns(row, {})
        if found is not None and _shape(name, {field: row.get(column) for field, column in found.items()}):
            return name
    return None


def _shape(name: str, row: Row) -> bool:
    if name in ("multiple_choice", "ending"):
        return choices.looks(row)
    if name in ("messages", "sharegpt") and "chosen" not in row:
        return turns.looks(next(iter(row.values())), name)
    return True


def convert(raw: Row, plan: Plan) -> tuple[Example, str]:
    """The example of a row and its format. Refuses a row that lacks columns of the main format and fits no other."""
    name = plan.main
    found = FORMATS[name].columns(raw, plan.columns) if name else None
    if not plan.forced and (found is None or found != plan.mapping):
        # Other columns than in the sample: it may be another format that these fit better.
        detected = detect(raw)
        if found is not None and (detected is None or detected == name):
            return _build(raw, str(name), found)
        name = detected
        # A lone 'text' in a file of text and label is a row that lost its label, not a document.
        if name and plan.main and set(raw) < _known(plan.main):
            name = None
        found = FORMATS[name].columns(raw, {}) if name else None
    if name is None or found is None:
        raise _misfit(raw, plan)
    return _build(raw, name, found)


def _build(raw: Row, name: str, found: dict[str, str]) -> tuple[Example, str]:
    values = {field: raw.get(column) for field, column in found.items()}
    example = FORMATS[name].build(values)
    used = set(found.values())
    if "label" in found and example.desirable is None and example.label is None:
        used.discard(found["label"])  # a label that is no feedback is told on, not lost
    return replace(example, meta={**scalars(raw, used), **example.meta}), name


def _known(name: str) -> set[str]:
    return {alias for aliases in FORMATS[name].required.values() for alias in aliases}


def _misfit(raw: Row, plan: Plan) -> Refused:
    held = ", ".join(map(str, raw)) or "no columns"
    if plan.main is None:
        return Refused(
            "unknown_format", value=held, cure="name columns: --set data.columns.question=... data.columns.answer=..."
        )
    format = FORMATS[plan.main]
    lower = {str(name).lower() for name in raw} | {f for f, column in plan.columns.items() if column in raw}
    missing = [f for f, names in format.required.items() if not lower & {*names, f}]
    if len(missing) < len(format.required) and missing:
        answer = missing[0] not in ("question", "prompt", "instruction", "text")
        cure = f"this file holds {plan.main} rows: add '{missing[0]}' or delete the row"
        return Refused("no_answer" if answer else "no_prompt", field=missing[0], value=held, cure=cure)
    return Refused("unknown_format", value=held, cure=f"this file holds {plan.main} rows")
