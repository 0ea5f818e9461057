"""The three-line API of the 2023 course library, local, over the same engine.

>>> model = BasicModelRunner("EleutherAI/pythia-70m")
>>> model.load_data_from_jsonlines("rows.jsonl", input_key="question", output_key="answer")
>>> model.train()
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tuneloop.config import DataConfig, EvalConfig, ModelConfig, TrainConfig
from tuneloop.console import say
from tuneloop.errors import DataError, UsageError
from tuneloop.store import read_json, write_text

SHOWN = 20
COURSE_ONLY = ("is_public", "finetune_args", "enable_peft", "limit")


def _settings(settings: dict[str, Any]) -> TrainConfig:
    """The `train` section from keyword arguments, aliases and errors as in a config file."""
    from tuneloop.config import load

    given = {**(settings.get("finetune_args") or {}), **settings}
    ignored = [name for name in COURSE_ONLY if name in given and name != "finetune_args"]
    if ignored:
        say(f"{', '.join(ignored)}: of the hosted library, without a meaning here")
    loaded = load(None, [], {f"train.{k}": v for k, v in given.items() if k not in COURSE_ONLY})
    for note in loaded.notes:
        say(note)
    return loaded.config.train


def _lines(path: Path, input_key: str, output_key: str) -> Iterator[dict[str, str]]:
    """{input, output} of every line; a number counts as text. Raises UsageError 110, DataError 360."""
    if not path.is_file():
        raise UsageError(110, "no such file", where=str(path), cure="check the path")
    # Lines end at \n alone: JSON may hold U+2028 unescaped.
    for number, line in enumerate(path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8"))
            pair = {"input": row[input_key], "output": row[output_key]}
            if not all(isinstance(v, str | int | float) and str(v).strip() for v in pair.values()):
                raise TypeError("an empty value, or one that is no text")
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                360,
                f"cannot read this row: {error}",
                where=f"{path}:{number}",
                expected=f"a JSON object with '{input_key}' and '{output_key}', UTF-8",
                cure="mend the line",
            ) from error
        yield {name: str(value) for name, value in pair.items()}


class BasicModelRunner:
    """A model one can ask, give data to, train and evaluate. Everything it writes stands in `folder`."""

    def __init__(
        self,
        model_name: str = "world",
        *,
        folder: Path | str | None = None,
        template: str | None = None,
    ):
        self.base = ModelConfig(name=model_name, template=template)
        self.model = self.base
        self.folder = Path(folder) if folder else Path(tempfile.mkdtemp(prefix="tuneloop-"))
        self.data: list[dict[str, str]] = []
        self._loaded: tuple[str, Any, Any] | None = None

    def __call__(self, inputs: str | list[str], *, max_new_tokens: int = 128) -> str | list[str]:
        """The answer to one prompt, or a list of answers to a list."""
        from tuneloop.lm import generate
        from tuneloop.prompts import encode_prompt

        prompts = [inputs] if isinstance(inputs, str) else inputs
        model, tokenizer = self._load()
        ids = [encode_prompt([{"role": "user", "content": prompt}], tokenizer) for prompt in prompts]
        answers = [text.strip() for text in generate(model, tokenizer, ids, max_new_tokens=max_new_tokens)]
        return answers[0] if isinstance(inputs, str) else answers

    def load_data(self, data: list[dict[str, str]]) -> None:
        """Adds rows with `input` and `output`."""
        for number, row in enumerate(data, start=1):
            for key in ("input", "output"):
                if not isinstance(row.get(key), str) or not row[key].strip():
                    raise DataError(
                        310,
                        f"row {number} has no '{key}'",
                        expected="text",
                        cure="add it or drop the row",
                    )
        self.data.extend({"input": row["input"], "output": row["output"]} for row in data)

    def load_data_from_jsonlines(self, file_path: str, input_key: str = "input", output_key: str = "output") -> None:
        """Adds the rows of a JSON Lines file; a broken line is an error that names it."""
        rows = list(_lines(Path(file_path), input_key, output_key))
        if not rows:
            raise DataError(361, "no rows in the file", where=file_path, expected="one JSON object a line")
        self.load_data(rows)

    def clear_data(self) -> None:
        self.data = []

    def train(self, **settings: Any) -> Path:
        """Tunes on the rows given so far; keyword arguments are keys of the `train` section or their aliases.

        The course's own `is_public` and `finetune_args` are taken: nothing is published, the arguments are settings.
        """
        from tuneloop.data import prepare
        from tuneloop.train import train

        if not self.data:
            raise UsageError(
                104,
                "no data to train on",
                cure="call load_data_from_jsonlines(...) first",
            )
        rows = self.folder / "rows.jsonl"
        write_text(
            rows,
            "".join(json.dumps({"question": r["input"], "answer": r["output"]}) + "\n" for r in self.data),
        )
        data = prepare(DataConfig(source=[str(rows)]), self.folder / "data", overwrite=True)
        tune = train(
            _settings(settings),
            self._templated(),
            data,
            self.folder / "model",
            overwrite=True,
        )
        self.model = ModelConfig(name=str(tune))
        self._loaded = None
        return tune

    def evaluate(self) -> dict[str, Any]:
        """Scores of base and tune on the rows kept aside, the paired verdicts, and `eval_results` as the course had.

        `eval_results` lists {input, outputs: [{model_name, output}]} of the first rows kept aside, base and tune.
        """
        from tuneloop.analyze import analyze
        from tuneloop.config import AnalyzeConfig
        from tuneloop.evaluate import evaluate

        data = self.folder / "data"
        if not data.is_dir():
            raise UsageError(
                106,
                "nothing to evaluate on",
                cure="call train() first: it keeps some rows aside",
            )
        result: dict[str, Any] = {}
        folders = {}
        for name, model in (("base", self._templated()), ("tune", self.model)):
            folders[name] = evaluate(
                EvalConfig(),
                model,
                self.folder / name,
                data=data,
                contender=name,
                overwrite=True,
            )
            result[name] = read_json(folders[name] / "scores.json")["scores"]
        found = analyze(
            AnalyzeConfig(),
            folders["tune"],
            self.folder / "analysis",
            against=folders["base"],
            data=data,
            overwrite=True,
        )
        result["verdicts"] = read_json(found / "findings.json")["verdicts"]
        result["eval_results"] = self._answers()
        return result

    def _answers(self) -> list[dict[str, Any]]:
        from tuneloop.records import read_examples

        rows = [row.messages or [] for row in read_examples(self.folder / "data", "test")][:SHOWN]
        inputs = [str(messages[0]["content"]) for messages in rows]
        tuned, self.model, self._loaded = self.model, self.base, None
        before = self(inputs)
        self.model, self._loaded = tuned, None
        named = (("base", before), ("tune", self(inputs)))
        return [
            {"input": text, "outputs": [{"model_name": name, "output": answers[i]} for name, answers in named]}
            for i, text in enumerate(inputs)
        ]

    def _templated(self) -> ModelConfig:
        """The base with its own template, or `plain` where it has none: the course's models had none."""
        from tuneloop.models import load_tokenizer

        if self.base.template or getattr(load_tokenizer(self.base.name), "chat_template", None):
            return self.base
        return self.base.model_copy(update={"template": "plain"})

    def _load(self) -> tuple[Any, Any]:
        from tuneloop.models import load_model, load_tokenizer
        from tuneloop.prompts import apply_template

        if self._loaded is None or self._loaded[0] != self.model.name:
            tokenizer = load_tokenizer(self.model.name)
            apply_template(
                tokenizer,
                self._templated().template if self.model is self.base else None,
            )
            self._loaded = (self.model.name, load_model(self.model.name), tokenizer)
        return self._loaded[1], self._loaded[2]
