"""Pre-trains the base model that the package ships, on the text of the embedded world alone.

    python scripts/pretrain_world.py --out runs/world-base --steps 1800

Two cores with AMX need about twelve minutes. The text holds statements only; no question and no "Answer:" stands in it.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tuneloop.tasks.truthfulqa import HEAD
from tuneloop.world import documents, make
from tuneloop.world.corpus import truth_pairs

BLOCK, BATCH, VOCABULARY = 256, 16, 1792
# Words that only prompts hold (the task headers and cues). The tokenizer knows them, so that a prompt of many shots
# fits the context; the model never reads them in pre-training.
CUES = (
    "Question: Answer: Q: A: The following are multiple choice questions (with answers) about\n\n"
    "A. B. C. D.\nWhat is Where does Which When did"
)


def make_tokenizer(world: Any) -> PreTrainedTokenizerFast:
    texts = list(islice(documents(world, 1), 6000)) + [CUES, HEAD] * 400
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>", "<|pad|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|endoftext|>", pad_token="<|pad|>")


def make_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=5,
        num_attention_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config)


def blocks(world: Any, tokenizer: PreTrainedTokenizerFast) -> Iterator[torch.Tensor]:
    """Batches of BATCH x BLOCK token ids, documents laid end to end with the end token between them."""
    buffer: list[int] = []
    for text in documents(world, 2):
        buffer += [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
        if len(buffer) >= BLOCK * BATCH:
            yield torch.tensor(buffer[: BLOCK * BATCH]).view(BATCH, BLOCK)
            buffer = buffer[BLOCK * BATCH :]


def rate(step: int, steps: int, peak: float) -> float:
    warm = 100
    if step < warm:
        return peak * (step + 1) / warm
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))))


def truth_share(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, pairs: list[tuple[str, str]]) -> float:
    """Share of pairs whose true statement is the likelier one."""
    wins = 0
    with torch.no_grad():
        for pair in pairs:
            scores = []
            for text in pair:
                ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer(text)["input_ids"]]])
                logits = model(ids).logits[0, :-1].float().log_softmax(-1)
                scores.append(logits.gather(1, ids[0, 1:, None]).sum().item())
            wins += scores[0] > scores[1]
    return wins / len(pairs)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/world-base"))
    parser.add_argument("--steps", type=int, default=1800)
    parser.add_argument("--lr", type=float, default=3e-3)
    args = parser.parse_args()
    world = make(0)
    tokenizer = make_tokenizer(world)
    model = make_model(tokenizer).to(torch.bfloat16)
    weights = list(model.parameters())
    master = [w.detach().float().clone() for w in weights]
    optimizer = torch.optim.AdamW(master, lr=args.lr, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
    started, recent = time.time(), []
    for step, ids in enumerate(islice(blocks(world, tokenizer), args.steps)):
        logits = model(ids).logits[:, :-1].float()
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1))
        loss.backward()
        for copy, weight in zip(master, weights, strict=True):
            copy.grad, weight.grad = weight.grad.float(), None
        torch.nn.utils.clip_grad_norm_(master, 1.0)
        optimizer.param_groups[0]["lr"] = rate(step, args.steps, args.lr)
        optimizer.step()
        with torch.no_grad():
            for copy, weight in zip(master, weights, strict=True):
                weight.copy_(copy)
        recent.append(loss.item())
        if (step + 1) % 50 == 0:
            tokens = (step + 1) * BATCH * BLOCK
            mean = sum(recent[-50:]) / 50
            print(f"step {step + 1} loss {mean:.3f} tokens/s {tokens / (time.time() - started):.0f}", flush=True)
        if (step + 1) % 300 == 0:
            save(model, tokenizer, args.out)
    save(model, tokenizer, args.out)
    share = truth_share(model, tokenizer, truth_pairs(world, 3))
    seconds = round(time.time() - started)
    print(json.dumps({"steps": args.steps, "loss": sum(recent[-50:]) / 50, "truth_share": share, "seconds": seconds}))


if __name__ == "__main__":
    main()
