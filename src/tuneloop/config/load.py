"""YAML + `--set` + aliases -> `LoopConfig`, every error at once with its key and the nearest name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from tuneloop.config.loop import LoopConfig
from tuneloop.errors import UsageError, nearest

# What the peers call the same things (HF Trainer, TRL, LLaMA-Factory, Axolotl, Unsloth).
ALIASES: dict[str, dict[str, str]] = {
    "model": {
        "model_name_or_path": "name",
        "base_model": "name",
        "chat_template": "template",
        "torch_dtype": "dtype",
    },
    "data": {
        "dataset": "source",
        "dataset_name": "source",
        "path": "source",
        "files": "source",
        "val_size": "valid_fraction",
    },
    "train": {
        "lr": "learning_rate",
        "epochs": "num_train_epochs",
        "num_epochs": "num_train_epochs",
        "batch_size": "per_device_train_batch_size",
        "micro_batch_size": "per_device_train_batch_size",
        "cutoff_len": "max_length",
        "sequence_len": "max_length",
        "max_seq_length": "max_length",
        "sample_packing": "packing",
        "lora_rank": "lora_r",
        "finetuning_type": "method",
        "lora_target": "lora_target_modules",
        "gradient_clipping": "max_grad_norm",
        "optimizer": "optim",
        "label_smoothing": "label_smoothing_factor",
        "teacher_model_name_or_path": "teacher",
        "pref_beta": "beta",
        "lr_scheduler": "lr_scheduler_type",
    },
    "eval": {"num_fewshot": "few_shot", "benchmarks": "tasks"},
}
LISTS = {
    ("data", "source"),
    ("data", "test"),
    ("eval", "tasks"),
    ("eval", "metrics"),
    ("compare", "contenders"),
    ("generate", "seeds"),
    ("generate", "documents"),
}


@dataclass(frozen=True)
class Loaded:
    """The config with the origin of each value that is not a default, and the aliases that were mapped."""

    config: LoopConfig
    origins: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def load(
    path: Path | str | None = None,
    sets: Iterable[str] = (),
    flags: Mapping[str, Any] | None = None,
) -> Loaded:
    """Reads `path`, then `--set a.b=value` items, then command-line `flags` ({'model.name': ...}); later ones win."""
    raw: dict[str, Any] = {}
    origins: dict[str, str] = {}
    notes: list[str] = []
    errors: list[str] = []
    written = _flatten(_read_yaml(path))
    errors += _twice(written, str(path))
    for dotted, value in written.items():
        _put(raw, dotted, value, str(path), origins, notes)
    sets = list(sets)
    errors += _twice({item.partition("=")[0].strip(): None for item in sets}, "--set")
    for item in sets:
        dotted, mark, text = item.partition("=")
        if not mark:
            errors.append(f"--set {item}: expected key.sub=value")
            continue
        _put(raw, dotted.strip(), _parse(text, item, errors), "--set", origins, notes)
    for dotted, value in (flags or {}).items():
        if value is not None:
            _put(raw, dotted, value, "flag", origins, notes)
    config = _validate(raw, errors, origins)
    return Loaded(config, origins, notes)


def _twice(written: Iterable[str], origin: str) -> list[str]:
    """One line for each key that one place gives under two names: which of them counts would be a guess."""
    names: dict[str, list[str]] = {}
    for dotted in written:
        section, _, key = dotted.partition(".")
        names.setdefault(f"{section}.{ALIASES.get(section, {}).get(key, key)}", []).append(dotted)
    return [f"{key} ({origin}): given as {' and '.join(n)}; keep one" for key, n in names.items() if len(n) > 1]


class _Once(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error, where plain YAML keeps the last one without a word."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Looks at the keys as they were written: merge keys (`<<`) put others among them only later."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.MarkedYAMLError(problem=f"the key '{key.value}' stands twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return node


def _read_yaml(path: Path | str | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UsageError(
            101,
            "no such config file",
            where=str(path),
            cure="check the path after --config",
        ) from error
    except IsADirectoryError as error:
        raise UsageError(101, "the config is a folder", where=str(path), expected="a YAML file") from error
    except UnicodeDecodeError as error:
        raise UsageError(101, "the config is not UTF-8", where=f"{path}: byte {error.start}") from error
    try:
        value = yaml.load(text, _Once)  # a safe loader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise UsageError(102, f"not YAML: {getattr(error, 'problem', error)}", where=place) from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UsageError(102, f"a config is a mapping, not a {type(value).__name__}", where=str(path))
    return value


def _flatten(raw: Mapping[Any, Any]) -> dict[str, Any]:
    """One level: {'train': {'seed': 1}} -> {'train.seed': 1}; what is deeper stays a value."""
    flat: dict[str, Any] = {}
    for section, value in raw.items():
        if isinstance(value, dict) and section in LoopConfig.model_fields:
            flat.update({f"{section}.{key}": inner for key, inner in value.items()})
        else:
            flat[str(section)] = value
    return flat


def _parse(text: str, item: str, errors: list[str]) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        errors.append(f"--set {item}: the value is not YAML")
        return text
    if isinstance(value, str):
        try:
            return float(value)  # YAML 1.1 reads 1e-4 as a string
        except ValueError:
            return value
    return value


def _put(
    raw: dict[str, Any],
    dotted: str,
    value: Any,
    origin: str,
    origins: dict[str, str],
    notes: list[str],
) -> None:
    section, _, key = dotted.partition(".")
    if section == "model" and not key and isinstance(value, str):
        key = "name"
    if not key:
        raw[section] = value
        origins[section] = origin
        return
    known = ALIASES.get(section, {}).get(key)
    if known:
        notes.append(f"{section}.{key} read as {section}.{known}")
        key = known
    if (section, key) in LISTS and not isinstance(value, list):
        value = [value]
    if not isinstance(raw.setdefault(section, {}), dict):
        raw[section] = {}
    held = raw[section]
    *outer, last = key.split(".")
    for name in outer:  # data.columns.question, data.clean.html
        if not isinstance(held.get(name), dict):
            held[name] = {}
        held = held[name]
    held[last] = value
    origins[f"{section}.{key}"] = origin


def _validate(raw: dict[str, Any], errors: list[str], origins: Mapping[str, str]) -> LoopConfig:
    try:
        config = LoopConfig.model_validate(_numbers(raw))
    except ValidationError as error:
        errors.extend(_line(item, origins) for item in error.errors())
    if errors:
        count = f"{len(errors)} config errors" if len(errors) > 1 else "config error"
        raise UsageError(
            100,
            f"{count}:\n    " + "\n    ".join(errors),
            cure="mend the keys above; nothing was started",
        )
    return config


def _numbers(raw: dict[str, Any]) -> dict[str, Any]:
    """YAML 1.1 reads `1e-4` as a string; a learning rate written so is a number."""

    def number(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: number(inner) for key, inner in value.items()}
        if isinstance(value, str) and "e" in value.lower() and value[:1].isdigit():
            try:
                return float(value)
            except ValueError:
                return value
        return value

    return {section: number(value) if section == "train" else value for section, value in raw.items()}


def _line(item: Any, origins: Mapping[str, str]) -> str:
    path = [str(part) for part in item["loc"]]
    dotted = ".".join(path)
    place = next(
        (origins[k] for k in (".".join(path[:2]), path[0] if path else "") if k in origins),
        "default",
    )
    if item["type"] == "extra_forbidden":
        return f"{dotted} ({place}): unknown key; {nearest(path[-1], _fields(path[:-1]))}"
    message = item["msg"].removeprefix("Value error, ")
    shown = item.get("input")
    return f"{dotted} ({place}): {message}" + ("" if isinstance(shown, dict | BaseModel) else f", got {shown!r}")


def _fields(path: list[str]) -> set[str]:
    model: Any = LoopConfig
    for part in path:
        if part.isdigit():
            continue
        annotation = model.model_fields[part].annotation if part in model.model_fields else model
        inner = getattr(annotation, "__args__", (annotation,))
        model = inner[0] if hasattr(inner[0], "model_fields") else annotation
    return set(getattr(model, "model_fields", LoopConfig.model_fields))
