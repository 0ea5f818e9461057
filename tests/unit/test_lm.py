"""Generation: padding changes nothing, stops stop, servers fail with a code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tests.answering import Replies, serving
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tuneloop.errors import PrerequisiteError
from tuneloop.lm import Http, Local, Scripted, generate
from tuneloop.prompts import apply_template

PROMPTS = [[3], [4, 5, 6, 7, 8, 9], [10, 11], [12] * 9]


@pytest.fixture(scope="module")
def pair() -> tuple[Any, Any]:
    torch.set_num_threads(1)
    torch.manual_seed(3)
    words = {w: i for i, w in enumerate(["<unk>", "<s>", "</s>", *(f"w{i}" for i in range(29))])}
    core = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", unk_token="<unk>")
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=32, max_position_embeddings=32, initializer_range=0.5, eos_token_id=2, **shape)
    return LlamaForCausalLM(config).eval(), tokenizer


def test_a_batch_says_what_single_prompts_say(pair: tuple[Any, Any]) -> None:
    alone = [generate(*pair, [p], max_new_tokens=8)[0] for p in PROMPTS]
    assert generate(*pair, PROMPTS, max_new_tokens=8, batch_size=4) == alone
    assert generate(*pair, PROMPTS, max_new_tokens=8, batch_size=3) == alone


def test_greedy_is_the_argmax(pair: tuple[Any, Any]) -> None:
    model, tokenizer = pair
    ids = list(PROMPTS[1])
    for _ in range(5):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == 2:
            break
    new = tokenizer.decode(ids[len(PROMPTS[1]) :], skip_special_tokens=True)
    assert generate(*pair, [PROMPTS[1]], max_new_tokens=5) == [new]


def test_stop_string_cuts(pair: tuple[Any, Any]) -> None:
    whole = generate(*pair, [PROMPTS[1]], max_new_tokens=8)[0]
    third = whole.split()[2]
    assert generate(*pair, [PROMPTS[1]], max_new_tokens=8, stop=[third])[0] == whole[: whole.find(third)]


def test_a_batch_ends_when_all_rows_have_stopped(pair: tuple[Any, Any]) -> None:
    model, tokenizer = pair
    whole = generate(model, tokenizer, PROMPTS, max_new_tokens=12)
    stops = sorted({text.split()[1] for text in whole})
    calls: list[int] = []
    hook = model.register_forward_hook(lambda *_: calls.append(1))
    try:
        found = generate(model, tokenizer, PROMPTS, max_new_tokens=12, stop=stops, batch_size=4)
    finally:
        hook.remove()
    assert found == [min((text[: text.find(s)] for s in stops if s in text), key=len) for text in whole]
    assert len(calls) < 12


def test_memory_that_runs_out_halves_the_batch(pair: tuple[Any, Any], capsys: pytest.CaptureFixture[str]) -> None:
    model, tokenizer = pair
    alone = generate(model, tokenizer, PROMPTS, max_new_tokens=4)

    def full(_: Any, args: Any, settings: dict[str, Any]) -> None:
        if settings["input_ids"].shape[0] > 1:
            raise torch.OutOfMemoryError

    hook = model.register_forward_pre_hook(full, with_kwargs=True)
    try:
        assert generate(model, tokenizer, PROMPTS, max_new_tokens=4, batch_size=4) == alone
    finally:
        hook.remove()
    assert "1 prompts at a time" in capsys.readouterr().err


def test_sampling_depends_on_the_seed_alone(pair: tuple[Any, Any]) -> None:
    def sample(seed: int) -> list[str]:
        return generate(*pair, PROMPTS, max_new_tokens=8, temperature=2.0, seed=seed)

    before = torch.random.get_rng_state()
    assert sample(1) == sample(1)
    assert sample(1) != sample(2)
    assert torch.equal(before, torch.random.get_rng_state())


def test_long_prompt_is_cut_aloud(pair: tuple[Any, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert generate(*pair, [[5] * 40 + [6] * 24], max_new_tokens=8) == generate(*pair, [[6] * 24], max_new_tokens=8)
    assert "1 of 1 prompts lost their beginning" in capsys.readouterr().err


def test_local_and_scripted(pair: tuple[Any, Any]) -> None:
    apply_template(pair[1], "plain")
    assert len(Local(*pair).complete(["w1 w2", [{"role": "user", "content": "w3"}]], max_new_tokens=3)) == 2
    assert Scripted(lambda m: m[-1]["content"] + "!").complete(["a", "b"]) == ["a!", "b!"]


class Shouting(Replies):
    def do_POST(self) -> None:
        body = self.asked()
        self.say(body["messages"][-1]["content"].upper(), body)


@pytest.fixture
def server() -> Iterator[str]:
    with serving(Shouting) as held:
        yield held.url


def test_http_answers_in_order(server: str) -> None:
    assert Http("m", base_url=server).complete(["a", "b"]) == ["A", "B"]


def test_http_without_a_server_is_a_coded_error() -> None:
    with pytest.raises(PrerequisiteError) as caught:
        Http("m", base_url="http://127.0.0.1:9/v1", timeout=2).complete(["a"])
    assert caught.value.number == 211
