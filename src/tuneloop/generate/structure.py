"""Structured answers: the JSON object in a text, checked against a model; what is wrong is said in one line."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

T = TypeVar("T", bound="Shape")


class Shape(BaseModel):
    """What a structured answer must look like; its JSON schema goes to servers that enforce one."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)


class Misshapen(Exception):
    """`kind` is 'parse' (no JSON object) or 'schema' (another one)."""

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(what)
        self.kind, self.what = kind, what


def schema_of(shape: type[Shape]) -> dict[str, Any]:
    return shape.model_json_schema()


def read(text: str, shape: type[T]) -> T:
    """The first object in the text that fits; words and fences around it are passed over. Raises Misshapen."""
    objects = list(_objects(text))
    if not objects:
        raise Misshapen("parse", "no JSON object in the answer")
    problem = ""
    for value in objects:
        try:
            return shape.model_validate(value)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            problem = problem or f"{place or 'object'}: {first['msg']}"
    raise Misshapen("schema", problem)


def _objects(text: str) -> Any:
    decoder = json.JSONDecoder(strict=False)
    at = text.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            end, value = at + 1, None
        if isinstance(value, dict):
            yield value
        at = text.find("{", end)
