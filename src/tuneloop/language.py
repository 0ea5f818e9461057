"""The language of a text, as `data` labels it and `generate` filters by it."""

from __future__ import annotations

from functools import cache
from typing import Any

from tuneloop.errors import PrerequisiteError

MEASURABLE = 50  # characters below which a guess at the language is noise
MOST_CHARACTERS = 2000


@cache
def _detector() -> Any:
    try:
        from lingua import LanguageDetectorBuilder
    except ImportError as error:
        raise PrerequisiteError(
            281, "the language of rows is asked for, but lingua is not installed",
            where="data.filter.languages or generate.filters.languages",
            expected="the package lingua-language-detector", cure='pip install "tuneloop[lang]"',
        ) from error  # fmt: skip
    return LanguageDetectorBuilder.from_all_languages().with_low_accuracy_mode().build()


def language(text: str) -> str | None:
    """ISO 639-1 code, or None for text too short to tell. Raises PrerequisiteError 281 without lingua."""
    if len(text) < MEASURABLE:
        return None
    found = _detector().detect_language_of(text[:MOST_CHARACTERS])
    return None if found is None else str(found.iso_code_639_1.name).lower()
