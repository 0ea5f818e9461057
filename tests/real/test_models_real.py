"""Real small weights: the story model tells its story, alone and in a batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tuneloop.lm import generate
from tuneloop.models import context_length, eos_ids, load_model, load_tokenizer, locate


@pytest.mark.usefixtures("one_thread")
def test_story_goes_on(stories: Path) -> None:
    model, tokenizer = load_model(str(stories)), load_tokenizer(str(stories))
    assert (context_length(model, tokenizer), eos_ids(model, tokenizer)) == (512, [1, 2])
    prompts = [tokenizer(t)["input_ids"] for t in ("Once upon a time", "The dog was very", "Lily")]
    alone = [generate(model, tokenizer, [p], max_new_tokens=24)[0] for p in prompts]
    assert generate(model, tokenizer, prompts, max_new_tokens=24) == alone
    # The author's documented sample starts with these words.
    assert alone[0].lstrip(", ").startswith("there was a little girl named Lily")


@pytest.mark.usefixtures("one_thread")
def test_loss_is_that_of_a_trained_model(stories: Path) -> None:
    model, tokenizer = load_model(str(stories)), load_tokenizer(str(stories))
    ids = tokenizer("Once upon a time, there was a little girl named Lily.", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert model(ids, labels=ids).loss.exp() < 6


def test_local_copy_of_a_hub_name(stories: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNELOOP_MODELS", str(stories.parent))
    assert locate("karpathy/Stories260K") == str(stories)
