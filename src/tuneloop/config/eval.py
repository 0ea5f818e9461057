"""What is measured."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from tuneloop.config.base import Section, Seed


class TaskSpec(Section):
    """A task as asked for: 'mmlu:5' is `{task: mmlu, shots: 5}`, 'lm-eval:piqa' a task of lm-eval's."""

    task: str
    shots: int | None = Field(None, ge=0)
    data: str | None = Field(None, description="folder with the task's files instead of the usual place")
    name: str | None = Field(None, description="how the scores call it; default: task")
    limit: int | None = Field(None, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        if isinstance(value, str):
            task, colon, shots = value.rpartition(":")
            if colon and (shots.isdigit() or task != "lm-eval"):
                return {"task": task, "shots": int(shots) if shots.isdigit() else shots}
            return {"task": value}
        return value


class JudgeSpec(Section):
    """The model that judges answers: a server where `base_url` is given, else a model in this process."""

    model: str
    base_url: str | None = Field(None, description="an OpenAI-compatible server")
    api_key_env: str | None = Field(None, description="environment variable that holds its key")
    template: str | None = None
    criteria: dict[str, str] = Field(default_factory=dict, description="name: question; each graded from 1 to 5")


class EvalConfig(Section):
    tasks: list[TaskSpec] = Field(default_factory=list)
    test_split: bool = Field(True, description="also score the test split of the data folder")
    limit: int | None = Field(
        None, ge=1, description="rows of each task only: the first, or a fixed draw of the test split"
    )
    quick: bool = Field(False, description="a fixed stratified subset of each task: minutes, with what it can detect")
    shots_mode: Literal["fixed", "lm-eval"] = Field(
        "fixed", description="the same shots for all rows, or lm-eval's own draw for each row"
    )
    shots_seed: Seed = Field(0, description="which rows become shots")
    batch_tokens: int | None = Field(None, ge=64, description="tokens in one forward pass; default: what memory allows")
    max_length: int | None = Field(None, ge=8)
    max_new_tokens: int | None = Field(
        None, ge=1, description="None: what the longest right answer takes and 8 more, at most 64 (a server: 64)"
    )
    generate_limit: int = Field(
        200,
        ge=0,
        description="rows of the test split that are also answered in free text",
    )
    metrics: list[str] = Field(
        default_factory=list,
        description="of the test split, headline first; none: accuracy, exact match and perplexity as the rows allow",
    )
    judge: JudgeSpec | None = None
    few_shot: int = Field(
        0,
        ge=0,
        description="examples before each prompt in the prompt-engineering contender",
    )
    shot_seeds: int = Field(1, ge=1, description="draws of shots that few-shot scores are repeated with")
    thought_tokens: int = Field(64, ge=1, description="most tokens of a thought before the answer")
    half: Literal["all", "analysis", "report"] = Field(
        "all", description="rows that errors are read from, or those kept for the verdict of a loop"
    )
    seed: Seed = 0

    @model_validator(mode="after")
    def _judge_is_named(self) -> EvalConfig:
        if "judge" in self.metrics and self.judge is None:
            raise ValueError("the metric 'judge' needs eval.judge.model")
        return self
