"""Masks of real templates against independent references, token by token."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from tuneloop.errors import DataError
from tuneloop.models import load_tokenizer
from tuneloop.prompts import apply_template, encode, encode_prompt
from tuneloop.records import Example

ASK = {"role": "user", "content": "Where is Höfn? 🦊"}
SYSTEM = {"role": "system", "content": "Be brief."}
ANSWERS = [
    "In Iceland.",
    "",
    "Where is Höfn? 🦊",
    "  spaced\n\nlines",
    "1. a\n2. b\n",
    "<think>\nhm\n</think>\n\nIceland.",
]


def tokenizer_of(shared: Path, name: str) -> Any:
    return load_tokenizer(str(shared / "tokenizers" / name))


def pairs(messages: list[dict[str, Any]], tokenizer: Any) -> list[tuple[str, bool]]:
    found = encode(Example(messages=messages), tokenizer)
    return list(zip(tokenizer.convert_ids_to_tokens(found.input_ids), found.trained, strict=True))


def trl_reference(messages: list[dict[str, Any]], tokenizer: Any) -> tuple[list[int], list[bool]]:
    spec = importlib.util.find_spec("trl")
    if spec is None or spec.origin is None:
        pytest.skip("trl is not installed")
    path = Path(spec.origin).parent / "chat_templates" / "qwen3_training.jinja"
    found = tokenizer.apply_chat_template(
        messages, chat_template=path.read_text(), return_dict=True, return_assistant_tokens_mask=True
    )
    return found["input_ids"], [bool(t) for t in found["assistant_masks"]]


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("system", [True, False])
def test_qwen3_equals_trl(shared_dir: Path, answer: str, system: bool) -> None:
    tokenizer = tokenizer_of(shared_dir, "qwen3")
    messages = [*([SYSTEM] if system else []), ASK, {"role": "assistant", "content": answer}]
    found = encode(Example(messages=messages), tokenizer)
    assert (found.input_ids, found.trained) == trl_reference(messages, tokenizer)


def test_qwen3_earlier_turns_have_no_thinking_block(shared_dir: Path) -> None:
    """There the published template and TRL's differ in text, so the expectation is written by hand."""
    tokenizer = tokenizer_of(shared_dir, "qwen3")
    thought = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes"}
    found = encode(Example(messages=[ASK, thought, ASK, thought]), tokenizer)
    kept = tokenizer.decode([i for i, t in zip(found.input_ids, found.trained, strict=True) if t])
    assert kept == "Yes<|im_end|>\n<think>\nhm\n</think>\n\nYes<|im_end|>\n"


def test_mistral_by_hand(shared_dir: Path) -> None:
    tokenizer = tokenizer_of(shared_dir, "mistral-v0.3")
    ask, answer = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes sir."}
    turn = [("[INST]", False), ("▁Hi", False), ("[/INST]", False)]
    turn += [("▁Yes", True), ("▁sir", True), (".", True), ("</s>", True)]
    assert pairs([ask, answer], tokenizer) == [("<s>", False), *turn]
    assert pairs([ask, answer, ask, answer], tokenizer) == [("<s>", False), *turn, *turn]


def test_chatml_by_hand(shared_dir: Path) -> None:
    tokenizer = tokenizer_of(shared_dir, "smollm-135m")
    apply_template(tokenizer, "chatml")
    expected = [(t, False) for t in ["<|im_start|>", "user", "Ċ", "Hi", "<|im_end|>", "Ċ", "<|im_start|>"]]
    expected += [("ass", False), ("istant", False), ("Ċ", False), ("Yes", True), ("Ġsir", True), (".", True)]
    expected += [("<|im_end|>", True), ("Ċ", False)]
    ask, answer = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes sir."}
    assert pairs([ask, answer], tokenizer) == expected


@pytest.mark.parametrize("name", ["gpt2", "gpt-neox-20b", "smollm-135m", "mistral-v0.3", "qwen3"])
@pytest.mark.parametrize("answer", ANSWERS[:3])
def test_plain_under_every_tokenizer(shared_dir: Path, name: str, answer: str) -> None:
    tokenizer = tokenizer_of(shared_dir, name)
    apply_template(tokenizer, "plain")
    messages = [ASK, {"role": "assistant", "content": answer}]
    found = encode(Example(messages=messages), tokenizer)
    kept = [i for i, t in zip(found.input_ids, found.trained, strict=True) if t]
    assert tokenizer.decode(kept, clean_up_tokenization_spaces=False) == answer + tokenizer.eos_token
    assert found.input_ids.count(tokenizer.bos_token_id) <= (2 if tokenizer.bos_token == tokenizer.eos_token else 1)
    assert found.input_ids == tokenizer.apply_chat_template(messages)["input_ids"]
    prompt = encode_prompt([ASK], tokenizer)
    assert found.input_ids[: len(prompt)] == prompt


def test_start_token_once(shared_dir: Path, stories: Path) -> None:
    for tokenizer in (tokenizer_of(shared_dir, "mistral-v0.3"), load_tokenizer(str(stories))):
        if not tokenizer.chat_template:
            apply_template(tokenizer, "plain")
        for example in (Example(messages=[ASK]), Example(text="One day"), Example(prompt="One", completion=" day")):
            ids = encode(example, tokenizer).input_ids
            assert ids[0] == tokenizer.bos_token_id
            assert ids.count(tokenizer.bos_token_id) == 1


CALL = [{"id": "abcdefghi", "type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}]
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "d", "parameters": {"type": "object"}}}]


def _trained(tokenizer: Any, example: Example) -> str:
    found = encode(example, tokenizer)
    return str(tokenizer.decode([i for i, on in zip(found.input_ids, found.trained, strict=True) if on]))


@pytest.mark.parametrize("name", ["qwen3", "mistral-v0.3"])
def test_a_tool_call_is_trained_whole_and_its_answer_is_not(shared_dir: Path, name: str) -> None:
    tokenizer = load_tokenizer(str(shared_dir / "tokenizers" / name))
    turns = [
        {"role": "user", "content": "Rain?"},
        {"role": "assistant", "content": "", "tool_calls": CALL},
        {"role": "tool", "tool_call_id": "abcdefghi", "content": "sunny"},
        {"role": "assistant", "content": "No."},
    ]
    text = _trained(tokenizer, Example(messages=turns, tools=TOOLS))
    assert '{"name": "weather", "arguments": {"city": "Rome"}' in text
    assert "sunny" not in text and "Rain" not in text and text.rstrip().endswith(("No.<|im_end|>", "No.</s>"))
    apply_template(tokenizer, "plain")
    with pytest.raises(DataError):
        encode(Example(messages=turns, tools=TOOLS), tokenizer)


def test_what_a_template_leaves_out_is_refused(shared_dir: Path) -> None:
    tokenizer = load_tokenizer(str(shared_dir / "tokenizers" / "mistral-v0.3"))
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "4"}]
    with pytest.raises(DataError, match=r"message 0 \(system\)"):
        encode(Example(messages=[{"role": "system", "content": "SYS"}, *turns]), tokenizer)


@pytest.mark.parametrize("answer", ["4", "yo", "漢字", "🙂"])
def test_training_begins_where_the_prompt_ends(shared_dir: Path, answer: str) -> None:
    """Mistral writes no cue and a blank before the words: the token of that blank is the model's to write."""
    tokenizer = load_tokenizer(str(shared_dir / "tokenizers" / "mistral-v0.3"))
    ask = [{"role": "user", "content": "x"}]
    found = encode(Example(messages=[*ask, {"role": "assistant", "content": answer}]), tokenizer)
    prompt = encode_prompt(ask, tokenizer)
    assert found.input_ids[: len(prompt)] == prompt
    assert found.trained == [False] * len(prompt) + [True] * (len(found.input_ids) - len(prompt))


def test_a_text_that_stands_elsewhere_does_not_hide_one_that_was_left_out(shared_dir: Path) -> None:
    tokenizer = load_tokenizer(str(shared_dir / "tokenizers" / "mistral-v0.3"))
    turns = [
        {"role": "system", "content": "x"},
        {"role": "user", "content": "x y"},
        {"role": "assistant", "content": "4"},
    ]
    with pytest.raises(DataError, match=r"message 0 \(system\)"):
        encode(Example(messages=turns), tokenizer)
