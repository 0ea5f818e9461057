"""Prints rows of a data folder with the tokens that training learns in colour."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tuneloop.records import Example, read_examples
from tuneloop.store import require_run


def show(folder: Path, n: int, tokenizer: Any | None = None, template: str | None = None) -> None:
    """The first `n` training rows on stdout. Without a tokenizer, answers are coloured as text.

    Trained tokens are bold green and separated by a thin mark; the count of both stands above each row.
    """
    from rich.console import Console

    require_run(folder, "data")
    console = Console(highlight=False, soft_wrap=True)
    rows = read_examples(folder, "train")[:n]
    if tokenizer is not None and any(row.messages is not None for row in rows):
        from tuneloop.prompts import apply_template

        apply_template(tokenizer, template)
    for row in rows:
        place = f"{row.source.get('uri', '')}:{row.source.get('line', '')}"
        if tokenizer is None:
            console.rule(f"{row.id}  {row.kind}  {place}")
            console.print(_plain(row))
        else:
            text, trained, total = coloured(row, tokenizer)
            console.rule(f"{row.id}  {row.kind}  {place}  {trained} of {total} tokens trained")
            console.print(text)


def coloured(row: Example, tokenizer: Any) -> tuple[Any, int, int]:
    """A rich Text of the row's tokens, the number of trained ones, and of all."""
    from rich.text import Text

    from tuneloop.prompts import encode

    found = encode(row, tokenizer)
    out = Text()
    for piece, trained in pieces(found.input_ids, found.trained, tokenizer):
        out.append(piece, style="bold green" if trained else "dim")
    return out, sum(found.trained), len(found.input_ids)


def pieces(ids: list[int], trained: list[bool], tokenizer: Any) -> list[tuple[str, bool]]:
    """The text that each token adds. Tokens that share one character come out with the last of them."""
    out: list[tuple[str, bool]] = []
    done, before = 0, ""
    for end in range(1, len(ids) + 1):
        whole = tokenizer.decode(ids[done:end], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        fresh = whole[len(before) :] if whole.startswith(before) else whole
        if fresh.endswith("\ufffd") and end < len(ids):
            continue
        out.append((fresh, trained[end - 1]))
        before = whole
        if end - done >= 64:  # decode a short window, or long rows cost the square of their length
            done, before = (
                end - 1,
                tokenizer.decode(ids[end - 1 : end], skip_special_tokens=False, clean_up_tokenization_spaces=False),
            )
    return out


def _plain(row: Example) -> Any:
    from rich.text import Text

    out = Text()
    for message in row.messages or []:
        out.append(f"{message['role']}: ", style="cyan")
        out.append(f"{message['content']}\n", style="bold green" if message["role"] == "assistant" else "dim")
    out.append(row.prompt or "", style="dim")
    out.append(row.completion or row.text or "", style="bold green")
    return out
