"""Prints rows of a data folder as the model sees them: every token, those that are learned in colour."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tuneloop.data.length import sides
from tuneloop.errors import UsageError
from tuneloop.records import Example, iter_examples
from tuneloop.store import require_run

BOUNDARY = "\u2502"
# Where colours do not reach (a file, a pipe), trained runs stand between these.
OPEN, CLOSE = "\u00ab", "\u00bb"


@dataclass(frozen=True)
class Piece:
    """What one token adds to the text."""

    text: str
    trained: bool
    special: bool


def show(folder: Path, n: int, tokenizer: Any | None = None, template: str | None = None) -> None:
    """The first `n` training rows on stdout. Without a tokenizer, answers are coloured as text.

    A thin bar stands between tokens; trained ones are bold green, special ones on a ground of their own.
    """
    from rich.console import Console

    require_run(folder, "data")
    console = Console(highlight=False, soft_wrap=True)
    rows = list(islice(iter_examples(folder, "train"), n))
    if tokenizer is not None and any(row.messages is not None for row in rows):
        from tuneloop.prompts import apply_template

        apply_template(tokenizer, template)
    if tokenizer is not None:
        console.print(
            "trained tokens: [bold green]green[/]; special tokens: [magenta reverse]marked[/]; | ends a token"
        )
    for row in rows:
        place = f"{row.source.get('uri', '')}:{row.source.get('line', '')}"
        if tokenizer is None:
            console.rule(f"{row.id}  {row.kind}  {place}")
            console.print(_plain(row))
            continue
        for name, side in zip(("chosen", "rejected") if row.chosen is not None else ("",), sides(row), strict=True):
            text, trained, total = coloured(side, tokenizer, marks=not console.is_terminal)
            console.rule(f"{row.id}  {name or row.kind}  {trained} of {total} tokens trained  {place}")
            console.print(text)


def coloured(row: Example, tokenizer: Any, *, marks: bool = False) -> tuple[Any, int, int]:
    """A rich Text of the row's tokens, the number of trained ones, and of all."""
    from rich.text import Text

    from tuneloop.prompts import encode

    if row.messages is not None and row.messages[-1]["role"] != "assistant":
        raise UsageError(139, "this row ends without an answer", where=row.id)
    found = encode(row, tokenizer)
    out = Text()
    before = False
    for piece in pieces(found.input_ids, found.trained, tokenizer):
        if marks and piece.trained != before:
            out.append(OPEN if piece.trained else CLOSE)
        before = piece.trained
        style = "bold green" if piece.trained else "dim"
        out.append(_visible(piece.text), style=f"{style} reverse" if piece.special else style)
        out.append(BOUNDARY, style="bright_black")
    if marks and before:
        out.append(CLOSE)
    return out, sum(found.trained), len(found.input_ids)


def _visible(text: str) -> str:
    """A line break as a sign and a break, so that it can be told from one that the screen makes."""
    return text.replace("\n", "\u23ce\n")


def pieces(ids: list[int], trained: list[bool], tokenizer: Any) -> list[Piece]:
    """The text that each token adds. Tokens that share one character come out with the last of them."""
    special = set(tokenizer.all_special_ids) | set(tokenizer.get_added_vocab().values())
    out: list[Piece] = []
    done, before = 0, ""
    for end in range(1, len(ids) + 1):
        whole = tokenizer.decode(ids[done:end], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        fresh = whole[len(before) :] if whole.startswith(before) else whole
        if fresh.endswith("\ufffd") and end < len(ids):
            continue
        out.append(Piece(fresh, trained[end - 1], ids[end - 1] in special))
        before = whole
        if end - done >= 64:  # decode a short window, or long rows cost the square of their length
            done = end - 1
            before = tokenizer.decode(ids[done:end], skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return out


def _plain(row: Example) -> Any:
    from rich.text import Text

    out = Text()
    for message in row.messages or []:
        out.append(f"{message['role']}: ", style="cyan")
        out.append(f"{message['content']}\n", style="bold green" if message["role"] == "assistant" else "dim")
    out.append(row.prompt or "", style="dim")
    out.append(row.completion or row.text or "", style="bold green")
    for name, style in (("chosen", "bold green"), ("rejected", "red")):
        value = getattr(row, name)
        if value is not None:
            said = value if isinstance(value, str) else "\n".join(str(m["content"]) for m in value)
            out.append(f"{name}: ", style="cyan").append(f"{said}\n", style=style)
    return out
