"""Chat templates: the tokenizer's own, or one of two small ones of ours for bases that have none."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Any

from tuneloop.errors import UsageError

# A turn is its text and a line break; the answer ends with the end token.
PLAIN = (
    "{%- for message in messages %}"
    "{%- if message['role'] == 'assistant' %}{{ message['content'] + eos_token }}"
    "{%- else %}{{ message['content'] + '\\n' }}{%- endif %}"
    "{%- endfor %}"
)
CHATML = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' }}{{ message['content'] + '<|im_end|>' }}{{ '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
NAMED = {"plain": PLAIN, "chatml": CHATML}


def apply_template(tokenizer: Any, template: str | None) -> str:
    """Sets and returns the tokenizer's chat template.

    `template` is None or 'auto' (the tokenizer's own), 'plain', 'chatml', or Jinja text. A base without a template
    of its own needs one named, because a layout that was guessed is a layout the server will not use.
    """
    if template in (None, "auto"):
        own = getattr(tokenizer, "chat_template", None)
        if not own:
            raise UsageError(
                121,
                "this model has no chat template",
                where="model.template",
                expected="plain, chatml or a Jinja template",
                cure="--set model.template=plain (it is saved with the tune)",
            )
        return str(own)
    chosen = NAMED.get(str(template), str(template))
    if "{" not in chosen:
        raise UsageError(
            122, f"unknown template '{template}'", where="model.template", expected="plain, chatml or Jinja"
        )
    if "eos_token" in chosen and not tokenizer.eos_token:
        raise UsageError(123, "the tokenizer has no end token, which this template writes", where="model.template")
    missing = [mark for mark in ("<|im_start|>", "<|im_end|>") if mark in chosen and _pieces(tokenizer, mark) > 1]
    if missing and template == "chatml":
        raise UsageError(
            124,
            f"the tokenizer has no token {missing[0]}",
            where="model.template",
            expected="chatml only for vocabularies that hold its marks",
            cure="--set model.template=plain",
        )
    if template in NAMED and start_ids(tokenizer):
        chosen = "{{- bos_token }}" + chosen
    _parse(tokenizer, chosen)
    tokenizer.chat_template = chosen
    return chosen


def _pieces(tokenizer: Any, mark: str) -> int:
    return len(tokenizer(mark, add_special_tokens=False)["input_ids"])


def start_ids(tokenizer: Any) -> list[int]:
    """The start token as a list, where the tokenizer itself puts one before a text; else empty."""
    first = list(tokenizer("x")["input_ids"][:1])
    return first if tokenizer.bos_token_id is not None and first == [tokenizer.bos_token_id] else []


def _parse(tokenizer: Any, template: str) -> None:
    from jinja2 import TemplateError, TemplateSyntaxError

    try:
        tokenizer.apply_chat_template([{"role": "user", "content": "x"}], chat_template=template, tokenize=False)
    except TemplateSyntaxError as error:
        raise UsageError(127, f"the template is not Jinja: {error}", where="model.template") from error
    except TemplateError:
        # It parses; whether it takes a conversation is asked with that conversation.
        return


@lru_cache(maxsize=64)
def uses_generation_tag(template: str) -> bool:
    """True when `{% generation %}` stands in the template as a tag; the word alone is in `add_generation_prompt`."""
    from jinja2 import Environment, TemplateSyntaxError

    try:
        tokens = list(Environment(extensions=["jinja2.ext.loopcontrols"]).lex(template))
    except TemplateSyntaxError:
        return False
    kinds = [(kind, text) for _, kind, text in tokens if kind != "whitespace"]
    pairs = pairwise(kinds)
    return any(a[0] == "block_begin" and b == ("name", "generation") for a, b in pairs)
