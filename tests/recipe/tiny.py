"""A model, a tokenizer and rows small enough for tests that train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tuneloop.records import Example, example_id, write_examples
from tuneloop.store import open_run

WORDS = [f"w{i}" for i in range(40)]


def tiny_model(kind: str = "llama", seed: int = 0) -> Any:
    """Random weights, float32; `gqa` shares each key head between two query heads."""
    import torch
    from transformers import (
        AutoModelForCausalLM,
        Gemma2Config,
        GPT2Config,
        GPTNeoXConfig,
        LlamaConfig,
        MistralConfig,
        Qwen2Config,
    )

    torch.manual_seed(seed)
    shape: dict[str, Any] = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
    }
    configs = {
        "llama": lambda: LlamaConfig(**shape, num_key_value_heads=4),
        # As wide as the blocks that 4-bit weights are made of.
        "wide": lambda: LlamaConfig(**{**shape, "hidden_size": 64, "intermediate_size": 128}),
        "gqa": lambda: LlamaConfig(**shape, num_key_value_heads=2),
        "qwen2": lambda: Qwen2Config(**shape, num_key_value_heads=2),
        "neox": lambda: GPTNeoXConfig(**shape),
        "window": lambda: MistralConfig(**shape, num_key_value_heads=2, sliding_window=8),
        # Caps its scores, which torch's kernel cannot.
        "gemma2": lambda: Gemma2Config(**shape, num_key_value_heads=2, head_dim=8, sliding_window=64),
        "gpt2": lambda: GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=128, **NO_DROPOUT),
    }
    config = configs[kind]()
    config.initializer_range = 0.2
    return AutoModelForCausalLM.from_config(config).eval()


NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}


def tiny_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {word: i for i, word in enumerate(["<unk>", "<s>", "</s>", *WORDS])}
    inner = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", eos_token="</s>", pad_token="<unk>")


def tiny_folder(folder: Path, kind: str = "llama") -> Path:
    """A base model as a folder."""
    tiny_model(kind).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def tiny_examples(count: int = 24, split: str = "train", first: int = 0) -> list[Example]:
    """The completion repeats the last word of a prompt of 2 to 11 words."""
    rows = []
    for i in range(first, first + count):
        words = [WORDS[(i * 7 + j * 3) % 40] for j in range(2 + i % 10)]
        example = Example(
            kind="completion", prompt=" ".join(words), completion=f" {words[-1]} {words[-1]}", split=split
        )
        example.id = example_id(example)
        rows.append(example)
    return rows


def tiny_data(folder: Path, train: list[Example] | None = None, valid: int = 6) -> Path:
    """A finished data folder."""
    with open_run(folder, stage="data", config={}, inputs={}) as run:
        write_examples(folder, "train", tiny_examples() if train is None else train)
        write_examples(folder, "valid", tiny_examples(valid, "valid", first=100))
        run.finish()
    return folder


def byte_model(folder: Path, *, context: int = 256) -> str:
    """A saved Llama of one layer with a tokenizer of single bytes and random weights; returns the folder's name."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({c: i for i, c in enumerate(["<s>", "</s>", *alphabet])}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(alphabet) + 2, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=context, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)
