"""Masks on tiny tokenizers made here: what is trained, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tuneloop.errors import DataError, UsageError
from tuneloop.prompts import apply_template, encode, encode_prompt, render_prompt
from tuneloop.prompts.templates import uses_generation_tag
from tuneloop.records import Example

CHAT = [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "cd"}]


def make_tokenizer(*, eos: str | None = "</s>") -> Any:
    """One token a character."""
    letters = [chr(c) for c in range(32, 127)] + ["\n", "<unk>"]
    core = Tokenizer(models.WordLevel({c: i for i, c in enumerate(letters)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    marks = ["<|im_start|>", "<|im_end|>"]
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=eos, unk_token="<unk>", additional_special_tokens=marks
    )


def trained_text(example: Example, tokenizer: Any) -> str:
    found = encode(example, tokenizer)
    kept = [i for i, t in zip(found.input_ids, found.trained, strict=True) if t]
    return "".join(tokenizer.convert_ids_to_tokens(kept))


def chat(messages: list[dict[str, Any]]) -> Example:
    return Example(messages=messages)


def test_plain_trains_the_answer_and_the_end_token() -> None:
    tokenizer = make_tokenizer()
    apply_template(tokenizer, "plain")
    found = encode(chat([{"role": "system", "content": "s"}, *CHAT]), tokenizer)
    assert found.text == "s\nab\ncd</s>"
    assert found.trained == [False] * 5 + [True] * 3


def test_chatml_token_by_token() -> None:
    tokenizer = make_tokenizer()
    apply_template(tokenizer, "chatml")
    found = encode(chat(CHAT), tokenizer)
    tokens = tokenizer.convert_ids_to_tokens(found.input_ids)
    header = ["<|im_start|>", *"user\nab", "<|im_end|>", "\n", "<|im_start|>", *"assistant\n"]
    assert tokens == [*header, "c", "d", "<|im_end|>", "\n"]
    assert found.trained == [False] * len(header) + [True, True, True, False]


def test_weight_zero_is_not_trained() -> None:
    tokenizer = make_tokenizer()
    apply_template(tokenizer, "chatml")
    second = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "yz"}]
    muted = [CHAT[0], {**CHAT[1], "weight": 0}, *second]
    assert trained_text(chat(muted), tokenizer) == "yz<|im_end|>"


@pytest.mark.parametrize("answer", ["ab", "", "assistant", " cd ", "<|im_end|>"])
def test_answers_that_could_be_mistaken(answer: str) -> None:
    """Equal to the question, empty, the header's word, with blanks: the span is where the answer stands."""
    tokenizer = make_tokenizer()
    apply_template(tokenizer, "chatml")
    messages = [CHAT[0], {"role": "assistant", "content": answer}]
    assert trained_text(chat(messages), tokenizer) == answer + "<|im_end|>"


def test_ids_are_those_a_server_would_make() -> None:
    tokenizer = make_tokenizer()
    for template in ("plain", "chatml"):
        apply_template(tokenizer, template)
        assert encode(chat(CHAT), tokenizer).input_ids == tokenizer.apply_chat_template(CHAT)["input_ids"]
        prompt = encode_prompt(CHAT[:1], tokenizer)
        assert prompt == tokenizer.apply_chat_template(CHAT[:1], add_generation_prompt=True)["input_ids"]
        assert encode(chat(CHAT), tokenizer).input_ids[: len(prompt)] == prompt
        assert encode(chat(CHAT), tokenizer).text.startswith(render_prompt(CHAT[:1], tokenizer))


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m.content | upper }}{{ eos_token }}{% endfor %}",
        "{% for m in messages %}{{ m.content }}{{ m.content }}{{ eos_token }}{% endfor %}",
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}",
        "{% for m in messages %}{{ m.content }}{% endfor %}",
        "{% for m in messages %}{{ m.content[:40] }}{{ m.content | length }}{{ eos_token }}{% endfor %}",
    ],
    ids=["changed", "twice", "missing", "no end of turn", "depends on length"],
)
def test_spans_that_cannot_be_proven_are_refused(template: str) -> None:
    tokenizer = make_tokenizer()
    apply_template(tokenizer, template)
    with pytest.raises(DataError) as caught:
        encode(chat(CHAT), tokenizer)
    assert caught.value.number == 341


def test_generation_tag_is_found_and_the_word_is_not() -> None:
    assert uses_generation_tag("{%- generation -%}x{% endgeneration %}")
    assert not uses_generation_tag("{% if add_generation_prompt %}generation{% endif %}")
    assert not uses_generation_tag("{# {% generation %} #}{{ 'generation' }}")


def test_tagged_template_names_its_spans() -> None:
    tokenizer = make_tokenizer()
    apply_template(
        tokenizer,
        "{% for m in messages %}{% if m.role == 'assistant' %}A:{% generation %}{{ m.content }}!{% endgeneration %}"
        "{% else %}{{ m.content }}{% endif %}{% endfor %}",
    )
    assert trained_text(chat(CHAT), tokenizer) == "cd!"
    muted = [CHAT[0], {**CHAT[1], "weight": 0}, *CHAT]
    assert encode(chat(muted), tokenizer).trained == [False] * 11 + [True] * 3


def test_raw_examples() -> None:
    tokenizer = make_tokenizer()
    assert encode(Example(text="abc"), tokenizer).trained == [True] * 4
    found = encode(Example(prompt="ab", completion="c"), tokenizer)
    assert found.trained == [False, False, True, True]
    cut = encode(Example(text="abc"), tokenizer, max_length=2)
    assert (len(cut.input_ids), len(cut.trained), cut.truncated) == (2, 2, True)
    assert not encode(Example(text="abc"), tokenizer, max_length=4).truncated


@pytest.mark.parametrize(
    ("template", "eos", "number"),
    [(None, "</s>", 121), ("nonsense", "</s>", 122), ("plain", None, 123), ("{% if %", "</s>", 127)],
)
def test_template_errors(template: str | None, eos: str | None, number: int) -> None:
    with pytest.raises(UsageError) as caught:
        apply_template(make_tokenizer(eos=eos), template)
    assert caught.value.number == number


def test_missing_template_names_the_cure() -> None:
    with pytest.raises(UsageError, match="no chat template") as caught:
        encode(chat(CHAT), make_tokenizer())
    assert "--set model.template=plain" in caught.value.cure
    assert "chatml" in str(caught.value)


def test_bad_messages_and_no_end_token() -> None:
    tokenizer = make_tokenizer()
    apply_template(tokenizer, "plain")
    with pytest.raises(DataError, match="not text"):
        encode(chat([CHAT[0], {"role": "assistant", "content": None}]), tokenizer)
    with pytest.raises(DataError, match="without a role"):
        encode(chat([{"content": "x"}]), tokenizer)
    with pytest.raises(UsageError, match="no end token"):
        encode(Example(text="a"), make_tokenizer(eos=None))
