"""Which rows, and how they are split."""

from __future__ import annotations

from pydantic import Field, model_validator

from tuneloop.config.base import Section


class DataConfig(Section):
    source: list[str] = Field(default_factory=list, description="files, folders or hub names")
    test: list[str] = Field(default_factory=list, description="sources whose rows are the test split")
    format: str = "auto"
    # tuneloop field -> column of the file, e.g. {prompt: question, completion: answer}
    columns: dict[str, str] = Field(default_factory=dict)
    group: str | None = Field(None, description="column whose equal values must not be split apart")
    valid_fraction: float = Field(0.05, ge=0, lt=1)
    test_fraction: float = Field(0.1, ge=0, lt=1, description="ignored when `test` names sources")
    deduplicate: bool = True
    limit: int | None = Field(None, ge=1, description="first rows of each source only")
    seed: int = 0

    @model_validator(mode="after")
    def _fractions(self) -> DataConfig:
        if self.valid_fraction + self.test_fraction >= 1:
            raise ValueError("valid_fraction + test_fraction must leave rows to train on (be below 1)")
        return self
