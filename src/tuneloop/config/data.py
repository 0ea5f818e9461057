"""Which rows, how they are cleaned, what is left out, and how they are split."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from tuneloop.config.base import Section, Seed


class SourceSpec(Section):
    """One source: 'rows.jsonl' is `{path: rows.jsonl}`. What is set here wins over the same key of `data`."""

    path: str
    weight: float | None = Field(None, gt=0, description="share of the training rows, relative to the other sources")
    cap: int | None = Field(None, ge=1, description="at most so many rows of it are kept")
    epochs: int = Field(1, ge=1, description="how often its training rows are laid down")
    format: str | None = None
    columns: dict[str, str] | None = None
    group: str | None = None
    licence: str | None = Field(None, description="kept with every row, and with what is made from it")


class CleanConfig(Section):
    """What changes the words of an author and so is asked for; damage is always mended."""

    quotes: bool = Field(False, description="curly quotes and ligatures to plain ones")
    widths: bool = Field(False, description="full-width and half-width characters to the usual ones")
    entities: bool = Field(False, description="&amp; to &")
    html: bool = Field(False, description="tags out, <br> and <p> to line breaks; code blocks stay")
    personal_data: bool = Field(False, description="e-mail, phone, card, IBAN, IP, keys to [EMAIL], [PHONE], ...")


class FilterConfig(Section):
    """Rows left out, each with its reason and the measured value."""

    languages: list[str] = Field(default_factory=list, description="ISO 639-1 codes to keep, e.g. [en, de]")
    label_language: bool = Field(False, description="only label each side in meta.language, keep all")
    corpus: bool = Field(False, description="rules for web text: Gopher, C4, FineWeb")
    repetition: bool = Field(False, description="answers that loop or say the same again and again")
    answer_equals_prompt: bool = False
    refusals: bool = Field(False, description="answers that refuse the task")


class AugmentConfig(Section):
    """Children of training rows: how many a row (0.1: one for every tenth)."""

    templates: float = Field(0, ge=0, le=8, description="the prompt in another wording of the request")
    noise: float = Field(0, ge=0, le=1, description="typing errors in the prompt")
    formats: float = Field(0, ge=0, le=4, description="the answer asked for and given as JSON, in capitals, as a list")
    negatives: float = Field(0, ge=0, le=1, description="questions over the wrong context, answered as unanswerable")
    options: float = Field(0, ge=0, le=8, description="the options of a multiple choice row in another order")
    paraphrase: float = Field(
        0, ge=0, le=4, description="the prompt in other words, by the model of `data.paraphraser`"
    )

    @property
    def any(self) -> bool:
        return any(getattr(self, name) > 0 for name in type(self).model_fields)


class DataConfig(Section):
    source: list[str | SourceSpec] = Field(
        default_factory=list, description="files, globs, folders, hub names, - for stdin"
    )
    test: list[str | SourceSpec] = Field(default_factory=list, description="sources whose rows are the test split")
    frozen: str | None = Field(None, description="a data folder whose test rows stay the test split, and no others")
    format: str = "auto"
    # tuneloop field -> column of the file, e.g. {prompt: question, completion: answer}
    columns: dict[str, str] = Field(default_factory=dict)
    group: str | None = Field(None, description="column whose equal values must not be split apart")
    valid_fraction: float = Field(0.05, ge=0, lt=1)
    test_fraction: float = Field(0.1, ge=0, lt=1, description="ignored when `test` names sources")
    strict: bool = Field(False, description="stop at the first bad row")
    clean: CleanConfig = Field(default_factory=CleanConfig)
    filter: FilterConfig = Field(default_factory=FilterConfig)
    deduplicate: bool = Field(True, description="leave out repeated rows (prompt and answer)")
    near_duplicates: bool = Field(True, description="also those whose prompts differ a little; never a number or a no")
    near_threshold: float = Field(0.8, ge=0.5, le=1, description="Jaccard similarity of character 5-grams")
    one_answer_per_prompt: bool = Field(False, description="keep the best answer of each prompt only")
    decontaminate: list[str] | None = Field(None, description="tasks or files; default: the tasks of eval.tasks")
    max_length: int | None = Field(None, ge=8, description="tokens of the model; needs model.name")
    over_long: Literal["reject", "split", "truncate"] = Field("reject", description="what is done with longer rows")
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    paraphraser: str | None = Field(None, description="model that paraphrases: a folder, a hub name, or http://...")
    limit: int | None = Field(None, ge=1, description="first rows of each file only")
    seed: Seed = 0
    executor: Literal["auto", "inline", "processes", "ray"] = "auto"
    num_workers: int = Field(0, ge=0, description="0: one for each core")

    @field_validator("source", "test", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        return [value] if isinstance(value, str | dict) else value

    @property
    def sources(self) -> list[SourceSpec]:
        return [_spec(one) for one in self.source]

    @property
    def tests(self) -> list[SourceSpec]:
        return [_spec(one) for one in self.test]

    @model_validator(mode="after")
    def _checks(self) -> DataConfig:
        if self.valid_fraction + self.test_fraction >= 1:
            raise ValueError("valid_fraction + test_fraction must leave rows to train on (be below 1)")
        if self.frozen and self.test:
            raise ValueError("frozen and test both name the test split; give one")
        if self.augment.paraphrase and not self.paraphraser:
            raise ValueError("augment.paraphrase needs data.paraphraser, the model that writes")
        return self


def _spec(one: str | SourceSpec) -> SourceSpec:
    return SourceSpec(path=one) if isinstance(one, str) else one
