"""Checks that need no model: sums, JSON, code that runs, a quote that stands in its document."""

from __future__ import annotations

import ast
import json
import operator
import re
from collections.abc import Callable, Sequence
from decimal import Context, Decimal
from fractions import Fraction

from tuneloop.generate.candidate import answer_of
from tuneloop.generate.sandbox import run_code
from tuneloop.records import Example
from tuneloop.text import shorten

# A run of more digits is no number: no answer means one, and Python reads at most 4300.
DIGITS = 300
NUMBER = r"-?\$?\d[\d,]*(?:\.\d+)?"
# `3 x (4 + 5) = 27`: a run of figures, signs and brackets with a result.
EQUATION = re.compile(rf"((?:[\d(][\d\s.,$()]*[+\-*/x×÷]\s*)+[\d\s.,$()]*[\d)])\s*=\s*({NUMBER})")
FENCE = re.compile(r"```[ \t]*(\w*)[^\n]*\n(.*?)```", re.DOTALL)
OPERATIONS: dict[type, Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
}  # fmt: skip


async def verify(answer: str, seed: Example | None, kinds: Sequence[str]) -> str | None:
    """None, or the first problem found. With a seed that has an answer in figures, the result must be the same."""
    for kind in kinds:
        problem = await run_answer(answer) if kind == "code" else CHECKS[kind](answer)
        if problem is None and kind == "arithmetic" and seed is not None:
            problem = _other_result(answer, answer_of(seed))
        if problem is not None:
            return f"{kind}: {problem}"
    return None


def wrong_sum(text: str) -> str | None:
    """The first equation in the text that is not true, to the places that its result is written with."""
    for left, right in EQUATION.findall(text):
        try:
            value = _value(left)
        except (ValueError, ZeroDivisionError, SyntaxError, RecursionError, MemoryError):
            continue  # not a sum after all: a date, a range
        said, places = _number(right), len(right.partition(".")[2])
        if said is None or abs(value - said) > Fraction(1, 2 * 10**places):
            return f"{left.strip()} is {_shown(value)}, not {shorten(right, 40)}"
    return None


def _number(text: str) -> Fraction | None:
    plain = text.replace(",", "").replace("$", "")
    return Fraction(plain) if len(plain) <= DIGITS else None


def _shown(value: Fraction) -> str:
    """With 12 digits, of whatever size it is."""
    return f"{Context(prec=12).divide(Decimal(value.numerator), Decimal(value.denominator)):g}"


def _value(text: str) -> Fraction:
    plain = text.replace(",", "").replace("$", "").replace("x", "*").replace("×", "*").replace("÷", "/").strip()
    if len(plain) > 200:
        raise ValueError("too long for a sum")
    return _evaluate(ast.parse(plain, mode="eval").body)


def _evaluate(node: ast.expr) -> Fraction:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return Fraction(str(node.value))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_evaluate(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
        return OPERATIONS[type(node.op)](_evaluate(node.left), _evaluate(node.right))
    raise ValueError("not a sum")


def result(text: str) -> Fraction | None:
    """The last number of an answer, or the one after '####' (GSM8K). None also where it has more than DIGITS digits."""
    found = re.findall(NUMBER, text.rpartition("####")[2])
    return _number(found[-1]) if found else None


def _other_result(answer: str, wanted: str) -> str | None:
    right = result(wanted)
    if right is None or result(answer) == right:
        return None
    said = result(answer)
    return f"the result is {_shown(right)}, not {'missing' if said is None else _shown(said)}"


def bad_json(text: str) -> str | None:
    blocks = [body for language, body in FENCE.findall(text) if language.lower() in ("", "json")]
    try:
        json.loads(blocks[0] if blocks else text)
    except (ValueError, RecursionError) as error:
        return str(error)
    return None


async def run_answer(text: str) -> str | None:
    """Runs all Python blocks of an answer as one program."""
    blocks = [body for language, body in FENCE.findall(text) if language.lower() in ("", "python", "py", "python3")]
    return await run_code("\n\n".join(blocks)) if blocks else "no code block"


def span_in(quote: str, document: str) -> tuple[int, int] | None:
    """Where the quote stands, word for word, whatever the white space between; None where it does not."""
    words = quote.strip().strip('"“”').split()
    if not words:
        return None
    found = re.search(r"\s+".join(map(re.escape, words)), document)
    return found.span() if found else None


CHECKS: dict[str, Callable[[str], str | None]] = {"arithmetic": wrong_sum, "json": bad_json}
