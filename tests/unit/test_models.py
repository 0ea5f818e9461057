"""Safe loading and saving on a tiny random Llama."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, PreTrainedTokenizerFast

from tuneloop.errors import PrerequisiteError, UsageError
from tuneloop.models import (
    context_length,
    eos_ids,
    load_model,
    load_random,
    load_tokenizer,
    locate,
    merge_folder,
    pick_device,
    pick_dtype,
    save_adapter,
    save_model,
    why_dtype,
)
from tuneloop.prompts import apply_template

IDS = torch.arange(3, 13)[None]
torch.set_num_threads(1)


def make_tokenizer() -> Any:
    words = {w: i for i, w in enumerate(["<unk>", "<s>", "</s>", *(f"w{i}" for i in range(29))])}
    core = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def make_base(folder: Path, *, seed: int = 0) -> Path:
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        bos_token_id=1,
        eos_token_id=2,
    )
    config.save_pretrained(folder / "shape")
    save_model(load_random(folder / "shape", seed=seed), make_tokenizer(), folder / "base")
    return folder / "base"


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(IDS).logits


def test_saved_model_loads_with_the_same_logits(tmp_path: Path) -> None:
    base = make_base(tmp_path)
    model = load_model(str(base))
    assert torch.equal(logits(model), logits(load_random(tmp_path / "shape", seed=0)))
    assert not torch.equal(logits(model), logits(load_random(tmp_path / "shape" / "config.json", seed=1)))
    assert not model.training
    assert model.dtype == torch.float32
    assert context_length(model, load_tokenizer(str(base))) == 64
    assert eos_ids(model, load_tokenizer(str(base))) == [2]


def test_adapter_loads_its_base_and_merges(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base = make_base(tmp_path)
    tokenizer = load_tokenizer(str(base))
    apply_template(tokenizer, "plain")
    tuned = get_peft_model(load_model(str(base)), LoraConfig(r=4, target_modules="all-linear"))
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.1)
    save_adapter(tuned, tokenizer, tmp_path / "tune", base=str(base))
    assert (tmp_path / "tune" / "chat_template.jinja").is_file()
    expected = logits(tuned.eval())
    assert torch.equal(logits(load_model(str(tmp_path / "tune"))), expected)
    gap = merge_folder(tmp_path / "tune", tmp_path / "merged")["gap"]
    merged = logits(load_model(str(tmp_path / "merged")))
    assert gap < 1e-4
    assert (merged - expected).abs().max() < 1e-4
    assert (merged - logits(load_model(str(base)))).abs().max() > 1e-3
    assert load_tokenizer(str(tmp_path / "merged")).chat_template == tokenizer.chat_template


@pytest.mark.parametrize("pickle", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt"])
def test_pickled_weights_are_refused(tmp_path: Path, pickle: str) -> None:
    base = make_base(tmp_path)
    (base / "model.safetensors").rename(base / pickle)
    with pytest.raises(PrerequisiteError, match="pickled") as caught:
        load_model(str(base))
    assert caught.value.number == 204
    assert caught.value.cure
    (tmp_path / "tune").mkdir()
    (tmp_path / "tune" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    (tmp_path / "tune" / "adapter_model.bin").write_bytes(b"x")
    with pytest.raises(PrerequisiteError, match="pickled"):
        load_model(str(tmp_path / "tune"))


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_broken_folder_is_a_coded_error(tmp_path: Path, file: str) -> None:
    base = make_base(tmp_path)
    (base / file).write_bytes((base / file).read_bytes()[:50])
    with pytest.raises(PrerequisiteError) as caught:
        load_model(str(base))
    assert caught.value.number == 208
    assert str(base) in caught.value.where


def test_folder_without_tokenizer_or_model(tmp_path: Path) -> None:
    for load in (load_tokenizer, load_model):
        with pytest.raises(PrerequisiteError):
            load(str(tmp_path))


def test_local_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Tiny_Model").mkdir()
    monkeypatch.setenv("TUNELOOP_MODELS", str(tmp_path))
    assert locate("someone/tiny-model") == str(tmp_path / "Tiny_Model")
    assert locate(str(tmp_path)) == str(tmp_path)
    assert locate("someone/other") == "someone/other"
    with pytest.raises(PrerequisiteError, match="no such model folder"):
        locate("./nowhere")


def test_unknown_model_names_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    (tmp_path / "tiny-model").mkdir()
    monkeypatch.setenv("TUNELOOP_MODELS", str(tmp_path))
    with pytest.raises(PrerequisiteError) as caught:
        load_tokenizer("someone/tiny-modle")
    assert caught.value.number == 207
    assert "tiny-model" in caught.value.expected


def test_dtype_and_why() -> None:
    assert pick_dtype("auto", "cpu") == torch.float32
    assert pick_dtype("bfloat16", "cpu") == torch.bfloat16
    assert "float32" in why_dtype("auto", "cpu")
    assert "asked" in why_dtype("bfloat16", "cpu")
    with pytest.raises(UsageError):
        pick_dtype("load", "cpu")


@pytest.mark.parametrize("device", ["gpu", "cpu:x", "cuda:", ":", "xla"])
def test_a_device_that_nobody_knows(device: str) -> None:
    with pytest.raises(UsageError, match="TL-216"):
        pick_device(device)


@pytest.mark.parametrize("device", ["cpu:1", "cuda:99"])
def test_a_device_that_is_not_there(device: str) -> None:
    with pytest.raises(PrerequisiteError, match="TL-217"):
        pick_device(device)


def test_devices_that_are_there() -> None:
    assert pick_device("cpu") == "cpu" and pick_device("cpu:0") == "cpu:0"
