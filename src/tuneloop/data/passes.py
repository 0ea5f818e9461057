"""The two passes of the stage and the decisions between them."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuneloop.config import DataConfig, ModelConfig, TaskSpec
from tuneloop.console import progress, say, warn
from tuneloop.data import contamination, duplicates, executors, mix, stream, tell
from tuneloop.data import profile as profiles
from tuneloop.data.duplicates import Decisions, Near
from tuneloop.data.groups import Groups, Shares
from tuneloop.data.keys import Keys
from tuneloop.data.ops import Context, convert, work_schema
from tuneloop.data.sources import Found
from tuneloop.data.write import row_texts, write
from tuneloop.neighbours.overlap import OverlapIndex
from tuneloop.records import SPLITS
from tuneloop.store import sha256_text, write_json, write_text
from tuneloop.tasks import local_files

TRAIN, VALID, TEST = (SPLITS.index(name) for name in ("train", "valid", "test"))
HINTS = {"test": 0, "valid": 1}


@dataclass
class Checked:
    """The benchmarks that training rows are checked against."""

    wanted: list[TaskSpec | Path] = field(default_factory=list)

    @classmethod
    def of(cls, config: DataConfig, tasks: Iterable[TaskSpec]) -> Checked:
        return cls(contamination.specs(config.decontaminate, tasks))

    @property
    def names(self) -> list[str]:
        return [str(one) if isinstance(one, Path) else f"{one.task}@{one.data or ''}" for one in self.wanted]

    @property
    def files(self) -> list[Path]:
        """What they are made of on this machine."""
        found = [[one] if isinstance(one, Path) else local_files(one).values() for one in self.wanted]
        return list(dict.fromkeys(path for paths in found for path in paths if path.exists()))


def inputs(found: list[Found], checked: Checked) -> dict[str, str | Path]:
    """What the key of the run hashes: the content of every file, the name of a hub set."""
    named: dict[str, str | Path] = {}
    for number, one in enumerate(found):
        kind = one.side or "source"
        if not one.paths:
            named[f"{kind}-{number}"] = one.spec.path
        for place, path in enumerate(one.paths):
            named[f"{kind}-{number}" + (f"-{place}" if len(one.paths) > 1 else "")] = path
    return named | {f"benchmark-{number}": path for number, path in enumerate(checked.files)}


def build(config: DataConfig, found: list[Found], run: Any, model: ModelConfig | None, checked: Checked) -> None:
    work = run.path / ".work"
    _clear_leftovers(run.path, work)
    planned = [
        stream.plan_part(part, number, one.spec, one.side, config)
        for number, one in enumerate(found)
        for part in one.parts()
    ]
    index, missing = contamination.build_index(checked.wanted)
    if missing:
        warn(f"not checked for overlaps: {', '.join(missing)} (their rows are not on this machine, or lm-eval's)")
    named = (model.name, model.revision, model.template) if model else None
    context = Context(config, [one.plan for one in planned], index, named)
    shards = _first_pass(config, planned, context, work, sum(one.bytes() for one in found))
    keys = Keys(work, shards)
    keys.uris = [one.part.uri for one in planned]
    for number, one in enumerate(planned):
        stream.tell_mixed(one.part.uri, keys.formats.get(number, Counter()))
    sources = _sources(planned, keys)
    tell.check_kept(keys, shards, sources)
    decided, groups, told = _decide(config, planned, keys)
    overlaps = contamination.apply(keys, groups.split, TEST, decided)
    groups.flagged[overlaps] = groups.split[overlaps] == TEST
    owner = np.array([one.source for one in planned])
    times, mixed = mix.apply(keys, [one.spec for one in found], owner, groups.split, TRAIN, decided)
    groups.check()
    if not (keys.ok & (decided.code == 0) & (groups.split == TRAIN)).any():
        tell.nothing_left(keys, shards, sources, decided)
    seen = profiles.Seen()
    profile = _second_pass(config, run, keys, groups, decided, times, index, seen)
    profile |= {"sources": _with_counts(sources, keys, decided), "mix": mixed, "cleaned": dict(keys.cleaned)}
    profile["formats"] = dict(sum(keys.formats.values(), Counter()))
    profile |= _about_rows(keys, groups, decided, seen, profile["sources"])
    profile |= _about_duplicates(keys, decided, told)
    profile["contamination"] = _about_overlaps(keys, index, missing, overlaps, decided)
    if context.model is not None:
        profile["tokens"] = _about_tokens(context, keys, groups, decided)
    if config.augment.any:
        from tuneloop.data.augment import augment

        profile["augmented"] = augment(config, run.path, index)
    write_json(run.path / "profile.json", profile)
    keys.grams.close()
    shutil.rmtree(work, ignore_errors=True)
    run.finish(counts={name: profile[name] for name in ("rows_in", "kept", "rejected", "splits", "reasons")})
    tell.summary(profile, run.path)


def _clear_leftovers(out: Path, work: Path) -> None:
    """What a killed run left under temporary names; shards of another version are of no use."""
    for path in out.rglob(".*.tmp"):
        path.unlink(missing_ok=True)
    version = sha256_text(str(work_schema()))
    mark = work / "version"
    if work.is_dir() and (not mark.is_file() or mark.read_text() != version):
        shutil.rmtree(work)
    work.mkdir(exist_ok=True)
    write_text(mark, version)


def _shard_path(work: Path, number: int) -> Path:
    return work / f"shard-{number:06d}.arrow"


def _first_pass(
    config: DataConfig, planned: list[stream.Planned], context: Context, work: Path, input_bytes: int
) -> list[Path]:
    """Shards of converted rows on disk, in order; those that stand there already are not made again."""
    done = {int(path.stem.split("-")[1]) for path in work.glob("shard-*.arrow")}
    if done:
        say(f"resumed: {len(done)} shards are there already")
    name, workers = executors.choose(config.executor, config.num_workers, input_bytes)
    if name != "inline":
        say(f"rows are read by {workers} {name if name == 'processes' else 'workers on ray'}")
    op = partial(convert, context=context)
    refused: Counter[str] = Counter()
    with progress("rows") as bar:
        tables = stream.raw_tables(planned, config.limit, done)
        for table in executors.run(name, op, tables, workers):
            if config.strict:
                tell.stop_at_first(table, context)
            _write_shard(_shard_path(work, table["shard"][0].as_py()), table)
            refused.update(r for r in table["r_reason"].drop_null().to_pylist())
            bar.advance(len(table), rejected=refused.total())
    return sorted(work.glob("shard-*.arrow"))


def _write_shard(path: Path, table: Any) -> None:
    import pyarrow as pa

    temporary = path.with_name(f".{path.name}.tmp")
    table = table.combine_chunks()
    with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    os.replace(temporary, path)


def _sources(planned: list[stream.Planned], keys: Keys) -> list[dict[str, Any]]:
    """A line a file for the profile: where, how many rows, which formats."""
    own = keys["extra"] == 0
    rows = np.bincount(keys["part"][own], minlength=len(planned))
    return [
        {
            "uri": one.part.uri,
            "rows_in": int(rows[number]),
            "formats": dict(keys.formats.get(number, Counter())),
            "split": one.plan.side,
            "sha256": one.plan.digest,
            "licence": one.plan.licence,
        }
        for number, one in enumerate(planned)
    ]


def _with_counts(sources: list[dict[str, Any]], keys: Keys, decided: Decisions) -> list[dict[str, Any]]:
    kept = keys.ok & (decided.code == 0)
    for number, source in enumerate(sources):
        own = keys["part"] == number
        source["kept"], source["rejected"] = int((own & kept).sum()), int((own & ~kept).sum())
    return sources


def _decide(
    config: DataConfig, planned: list[stream.Planned], keys: Keys
) -> tuple[Decisions, Groups, list[dict[str, Any]]]:
    """Duplicates, then groups and splits; which row goes for which."""
    sides = np.array([HINTS.get(one.plan.side or "", 2) for one in planned], np.uint8)
    hints = sides[keys["part"]]
    decided = Decisions.of(keys.count)
    if config.deduplicate:
        duplicates.drop_repeated(keys, "exact", "duplicate", hints, decided)
    if config.one_answer_per_prompt:
        duplicates.drop_repeated(keys, "prompt", "other_answer", hints, decided)
    near, told = _none(), list[dict[str, Any]]()
    if config.near_duplicates:
        near = duplicates.find_near(keys, hints, decided, config.near_threshold)
        near, told = duplicates.tighten(keys, near, decided)
        if config.deduplicate:
            duplicates.drop_near(keys, near, hints, decided)
    given = set(hints[keys.ok].tolist())
    test = 0.0 if 0 in given and not config.frozen else config.test_fraction
    valid = 0.0 if 1 in given else config.valid_fraction
    shares = Shares(test, valid, config.seed, bool(config.frozen))
    return decided, Groups(keys, near, hints, decided, shares), told


def _none() -> Near:
    whole = np.zeros(0, np.int64)
    return Near(whole, whole, np.zeros(0, np.float32), np.zeros(0, bool))


def _second_pass(
    config: DataConfig,
    run: Any,
    keys: Keys,
    groups: Groups,
    decided: Decisions,
    times: NDArray[np.uint8],
    index: OverlapIndex | None,
    seen: profiles.Seen,
) -> dict[str, Any]:
    languages = config.filter.label_language or bool(config.filter.languages)

    def look(table: Any, span: slice) -> None:
        kept = keys.ok[span] & (decided.code[span] == 0)
        lengths = keys["asked_chars"][span][kept].astype(np.int64) + keys["answer_chars"][span][kept]
        seen.look(table, lengths, keys["part"][span][kept], languages)

    writers = write(run.path, keys, groups, decided, times, index, look)
    reasons = tell.reasons(keys, decided)
    repeats = int(times[keys.ok & (decided.code == 0)].sum(dtype=np.int64)) - int((keys.ok & (decided.code == 0)).sum())
    found = profiles.counts(keys, groups, decided, reasons, repeats)
    laid_down = sum(writers[name].total for name in SPLITS)
    whole = found["rows_in"] + found["pieces"] == found["kept"] + found["rejected"]
    if not whole or writers["rejected"].total != found["rejected"] or laid_down != found["kept"] + repeats:
        raise AssertionError(f"rows do not add up: {found}, written {[w.total for w in writers.values()]}")
    return found


def _about_rows(
    keys: Keys, groups: Groups, decided: Decisions, seen: profiles.Seen, sources: list[dict[str, Any]]
) -> dict[str, Any]:
    kept = keys.ok & (decided.code == 0)
    characters = {
        "prompt": profiles.spread(keys["asked_chars"][kept]),
        "answer": profiles.spread(keys["answer_chars"][kept]),
        "histogram": profiles.histogram(keys["asked_chars"][kept].astype(np.int64) + keys["answer_chars"][kept]),
    }
    return {
        "characters": characters,
        "labels": dict(seen.labels.most_common()),
        "labels_by_split": {split: len(names) for split, names in seen.labels_by_split.items()},
        "balance": profiles.balance(seen, sources),
        "languages": dict(seen.languages.most_common()),
        "examples": sorted(seen.examples, key=lambda row: SPLITS.index(row["split"])),
    }


def _about_duplicates(keys: Keys, decided: Decisions, told: list[dict[str, Any]]) -> dict[str, Any]:
    names = row_texts(keys, sorted({one["row"] for one in told}))
    giants = [
        {"rows": one["rows"], "threshold": one["threshold"], "prompt": names[one["row"]][1][:300]} for one in told
    ]
    return {"clusters": profiles.clusters(keys, decided), "large_groups": giants}


def _about_overlaps(
    keys: Keys, index: OverlapIndex | None, missing: list[str], found: NDArray[np.int64], decided: Decisions
) -> dict[str, Any]:
    table = contamination.table(keys, index, missing, found, decided)
    if index is None:
        return table
    order = found[np.argsort(-keys["hit_share"][found], kind="stable")][: contamination.SHOWN]
    texts = row_texts(keys, order.tolist())
    return {**table, "finds": [tell.find(keys, index, row, texts[row]) for row in order.tolist()]}


def _about_tokens(context: Context, keys: Keys, groups: Groups, decided: Decisions) -> dict[str, Any]:
    assert context.model is not None
    tokenizer = context.tokenizer()
    train = keys.ok & (decided.code == 0) & (groups.split == TRAIN)
    named = {"model": context.model[0], "template": context.model[2] or "the tokenizer's own"}
    limit = context.config.max_length
    own = int(getattr(tokenizer, "model_max_length", 0) or 0)
    size = limit or (own if 0 < own < 1 << 24 else None)
    vocabulary = (len(keys.vocabulary), len(tokenizer))
    return profiles.tokens(keys["asked_tokens"][train], keys["answer_tokens"][train], named, size, vocabulary)
