"""Rules that a generated row must pass, each with its reason and the value it stumbled over.

From Self-Instruct (lengths, media words, signs), AlpacaDataCleaned (invented web content, empty and N/A answers, merged
examples), Gopher (repetition) and Evol-Instruct (leaks of the prompt).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

from tuneloop.config.generate import FilterConfig
from tuneloop.generate.candidate import answer_of, question_of
from tuneloop.language import language
from tuneloop.records import Example
from tuneloop.text import ngrams, normalise, words

Finding = tuple[str, str] | None
MEDIA = re.compile(
    r"\b(images?|pictures?|photos?|photographs?|videos?|audio|draw|plot|graphs?|diagrams? (below|above)|attached|"
    r"files?|flow ?charts?|go to|upload(ed)?)\b",
    re.IGNORECASE,
)
PLACEHOLDER = re.compile(
    r"\{\{|\}\}|<(?:noinput|no input|insert|your|name|input)[^>]*>|\[(?:insert|your|name)[^\]]*\]", re.I
)
NOTHING = {"n/a", "na", "none", "null", "nothing", "no input", "no output", "<noinput>", "noinput", "", "."}
URL = re.compile(r"https?://\S+|www\.\S+")
REFUSAL = re.compile(
    r"\A\W*(?:(?:i am|i'm|i’m) (?:sorry|unable|afraid|not able)|sorry\b|i apologi[sz]e|unfortunately,? i|"
    r"i (?:can(?:no|')?t|cannot|can not|can’t|won't|am unable)|as an? (?:ai|artificial|language model)|"
    r"(?:my apologies|it is not possible for me))",
    re.IGNORECASE,
)
MERGED = re.compile(r"\n\s*(?:#+\s*)?(?:Instruction|Task \d+|Question \d+|Input|User|Human)\s*:", re.IGNORECASE)
# Gopher: share of duplicate lines, and of words inside repeated 5-grams; below so many words the shares mean nothing.
DUPLICATE_LINES, REPEATED_WORDS, REPEAT_LEAST_WORDS = 0.3, 0.3, 30
SCRIPT_SHARE = 0.8


def final_answer(row: Example) -> str:
    """The last answer; of a preference pair the chosen one."""
    if isinstance(row.chosen, list):
        return str(row.chosen[-1].get("content") or "")
    return answer_of(row)


def check(row: Example, config: FilterConfig, *, refusals: bool) -> Finding:
    """The first rule that the row breaks, as (reason, value)."""
    prompt, answer = question_of(row), final_answer(row)
    for rule in (_length, _format, _nothing, _script, _language, _repetition):
        if found := rule(prompt, answer, config):
            return found
    return ("refusal", answer) if refusals and REFUSAL.search(answer) else None


def _length(prompt: str, answer: str, config: FilterConfig) -> Finding:
    count = len(prompt.split())
    if not config.min_words <= count <= config.max_words:
        return "length", f"{count} words in the prompt"
    count = len(answer.split())
    return ("length", f"{count} words in the answer") if count > config.max_answer_words else None


def _format(prompt: str, answer: str, config: FilterConfig) -> Finding:
    start = prompt.strip()[:1]
    # A quotation, a bracket or a list sign may open a prompt; a comma or a full stop may not.
    if start and unicodedata.category(start) in ("Po", "Pe", "Pf") and start not in "\"'#¿¡*":
        return "format", f"starts with '{start}'"
    if found := PLACEHOLDER.search(prompt) or PLACEHOLDER.search(answer):
        return "format", f"a placeholder: {found.group()}"
    if found := MEDIA.search(prompt):
        return "media", found.group()
    if found := MERGED.search(answer):
        return "format", f"another example inside the answer: {found.group().strip()}"
    invented = [url for url in URL.findall(answer) if url not in prompt]
    return ("invented_web", invented[0]) if invented else None


def _nothing(prompt: str, answer: str, config: FilterConfig) -> Finding:
    if normalise(answer) in NOTHING:
        return "empty", answer
    return ("echo", answer) if normalise(answer) == normalise(prompt) else None


def _script(prompt: str, answer: str, config: FilterConfig) -> Finding:
    if config.script is None:
        return None
    letters = [letter for letter in prompt + answer if letter.isalpha()]
    wanted = config.script.upper()
    share = sum(unicodedata.name(letter, "").startswith(wanted) for letter in letters) / max(1, len(letters))
    return ("script", f"{share:.0%} {config.script}") if share < SCRIPT_SHARE else None


def _language(prompt: str, answer: str, config: FilterConfig) -> Finding:
    """Each side is told by itself where it is long enough; as in `data`, what cannot be told passes."""
    for text in (prompt, answer) if config.languages else ():
        code = language(text)
        if code is not None and code not in config.languages:
            return "language", code
    return None


def _repetition(prompt: str, answer: str, config: FilterConfig) -> Finding:
    lines = [line.strip() for line in answer.splitlines() if line.strip()]
    if len(lines) >= 4:
        share = 1 - len(set(lines)) / len(lines)
        if share > DUPLICATE_LINES:
            return "repetition", f"{share:.0%} duplicate lines"
    tokens = words(answer)
    if len(tokens) < REPEAT_LEAST_WORDS:
        return None
    counts = Counter(ngrams(tokens, 5))
    inside: set[int] = set()
    for at, gram in enumerate(ngrams(tokens, 5)):
        if counts[gram] > 1:
            inside.update(range(at, at + 5))
    share = len(inside) / len(tokens)
    return ("repetition", f"{share:.0%} of the words in repeated runs") if share > REPEATED_WORDS else None
