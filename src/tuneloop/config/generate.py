"""Which rows a teacher writes, from what, how they are checked, and when to stop."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tuneloop.config.base import Section, Seed

Capability = Literal["chat", "completions", "logprobs", "json_schema"]


class Price(Section):
    """US dollars for a million tokens."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)


class TeacherConfig(Section):
    """`base_url` makes it a server; without one `name` is a model in this process, or 'world' for the script."""

    name: str = "world"
    base_url: str | None = None
    api_key_env: str | None = Field(None, description="environment variable with the key; never stored")
    capabilities: list[Capability] = Field(default=["chat"], description="what the server offers")
    temperature: float = Field(0.7, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_new_tokens: int = Field(512, ge=1)
    timeout: float = Field(120.0, gt=0, description="seconds for a whole answer")
    concurrency: int = Field(64, ge=1, description="most calls at once; fewer while the server says 429 or 503")
    price: Price | None = None
    template: str | None = Field(None, description="chat template of a model in this process that has none")


class Limits(Section):
    """The run ends at the first of these; none is part of the run's key, so a higher one goes on where it ended."""

    rows: int | None = Field(None, ge=1)
    tokens: int | None = Field(None, ge=1)
    seconds: float | None = Field(None, gt=0)
    usd: float | None = Field(None, gt=0)


class FilterConfig(Section):
    """What a row must pass before it is accepted; bounds are inclusive."""

    min_words: int = Field(3, ge=0, description="words of a prompt (Self-Instruct: more than 3 with its own rule)")
    max_words: int = Field(150, ge=1)
    max_answer_words: int = Field(1000, ge=1)
    similarity: float | None = Field(0.7, gt=0, le=1, description="most ROUGE-L F against any prompt of the pool")
    near_duplicate: float | None = Field(0.8, gt=0, le=1, description="least Jaccard similarity of near-duplicate rows")
    script: str | None = Field(None, description="writing system that letters must be of, such as 'latin'")
    languages: list[str] = Field(default_factory=list, description="ISO 639-1 codes to keep, e.g. [en, de]")
    refusals: bool = Field(True, description="drop answers that decline (but for the method `refusals`)")


class JudgeConfig(Section):
    minimum: float = Field(0.7, ge=0, le=1, description="least mean of the criteria")
    teacher: TeacherConfig | None = Field(None, description="the judge; without one the teacher judges itself")


class GenerateConfig(Section):
    method: str = "self_instruct"
    teacher: TeacherConfig = Field(default_factory=TeacherConfig)
    limits: Limits = Field(default_factory=Limits)
    seeds: list[str] = Field(default_factory=list, description="data folders (their train split) or files of rows")
    documents: list[str] = Field(default_factory=list, description="text files or folders of them")
    weak: str | None = Field(None, description="next_data.jsonl of an analysis")
    per_input: int = Field(1, ge=1, description="candidates for each seed, document or weak slice")
    best_of: int = Field(4, ge=2, description="answers that are tried: regenerate, preference")
    evolutions: int = Field(2, ge=1, description="most generations away from a seed: evolve")
    turns: int = Field(3, ge=2, description="user turns: multi_turn")
    verify: list[Literal["arithmetic", "json", "code"]] = Field(default_factory=list)
    judge: JudgeConfig | None = None
    filters: FilterConfig = Field(default_factory=FilterConfig)
    decontaminate: list[str] = Field(default_factory=list, description="tasks or test files that no row may overlap")
    templates: str | None = Field(None, description="folder whose NAME.jinja replace the shipped prompts")
    licence: str | None = Field(None, description="note kept on every row: the terms of the teacher's output")
    window: int = Field(256, ge=8, description="candidates under way at once; part of what decides the accepted set")
    seed: Seed = 0

    @model_validator(mode="after")
    def _money(self) -> GenerateConfig:
        if self.limits.usd is not None and self.teacher.price is None:
            raise ValueError("limits.usd needs teacher.price: an unknown price is not zero")
        judge = self.judge and self.judge.teacher
        if self.limits.usd is not None and judge and judge.price is None:
            raise ValueError("limits.usd needs judge.teacher.price: an unknown price is not zero")
        return self
