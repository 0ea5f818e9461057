"""Batches, forward passes and sums of log-probabilities."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tuneloop.console import progress, say, warn
from tuneloop.errors import DataError
from tuneloop.scoring.pairs import Pair, pair_tokens
from tuneloop.scoring.tree import Tree, build

MASK_CELLS = 16_000_000  # entries of one attention mask
LOGIT_CELLS = 64_000_000  # entries of one tensor of logits
AGREE = 1e-4  # nats, relative to the size of the sum


@dataclass(slots=True)
class OptionScore:
    """Summed log-probability of a continuation (nats), its tokens, and whether greedy decoding would write it."""

    logprob: float
    n_tokens: int
    greedy: bool
    truncated: bool
    mismatch: bool


class Scorer:
    """Scores token pairs with one model. `tree` is settled at first use: shared sequences must equal plain ones."""

    def __init__(self, model: Any, *, max_length: int, batch_tokens: int = 8192) -> None:
        self.model, self.max_length, self.batch_tokens = model, max_length, batch_tokens
        self.tree: bool | None = None if _may_share(model) else False
        self.keeps = "logits_to_keep" in inspect.signature(_inner(model).forward).parameters
        self.gap = 0.0

    def score(self, requests: Sequence[list[Pair]], description: str = "scoring") -> list[list[OptionScore]]:
        """Scores in the order given. A prompt that does not fit loses its beginning, as in lm-eval, and is marked."""
        if self.tree is None:
            self._settle(requests)
        jobs: list[tuple[int, int, Tree]] = []
        for r, pairs in enumerate(requests):
            if self.tree and len({p.prompt[0] for p in pairs}) == 1 and not any(self._over(p) for p in pairs):
                jobs += [(r, o, build([p.prompt for p in few], [p.scored for p in few])) for o, few in _groups(pairs)]
            else:
                jobs += [(r, o, self._single(pair)) for o, pair in enumerate(pairs)]
        result: list[list[Any]] = [[None] * len(pairs) for pairs in requests]
        with progress(description, len(jobs)) as bar:
            for chunk in self._batches(jobs):
                for (r, o, _), values in zip(chunk, self._forward([job[2] for job in chunk]), strict=True):
                    for k, (total, greedy) in enumerate(values):
                        option = o + k
                        pair = requests[r][option]
                        result[r][option] = OptionScore(
                            total, min(len(pair.scored), self.max_length), greedy, self._over(pair), pair.mismatch
                        )
                bar.advance(len(chunk))
        return result

    def _over(self, pair: Pair) -> bool:
        return len(pair.prompt) + len(pair.scored) > self.max_length + 1

    def _single(self, pair: Pair) -> Tree:
        """One option as a chain; keeps the last max_length + 1 tokens, of which the final one is only predicted."""
        whole = (pair.prompt + pair.scored)[-(self.max_length + 1) :]
        scored = pair.scored[-(len(whole) - 1) :]
        return build([whole[: -len(scored)]], [scored])

    def _settle(self, requests: Sequence[list[Pair]]) -> None:
        """Compares shared with plain sequences on a small sample; falls back aloud when they differ."""
        fitting = [pairs for pairs in requests if not any(self._over(p) for p in pairs)]
        sample = [pairs[:8] for pairs in sorted(fitting, key=lambda pairs: len(pairs[0].prompt))[:2]]
        if not sample:
            return
        try:
            self.tree = True
            shared = self._plain_sums(sample, joined=True)
            plain = self._plain_sums(sample, joined=False)
        except (RuntimeError, ValueError, TypeError) as error:
            warn(f"this model takes no shared sequences ({type(error).__name__}); options are scored one by one")
            self.tree = False
            return
        self.gap = max(abs(a - b) / max(1.0, abs(b)) for a, b in zip(shared, plain, strict=True))
        exact = next(self.model.parameters()).dtype == torch.float32
        bound = AGREE if exact else 2e-2
        self.tree = self.gap <= bound
        if not self.tree:
            warn(
                f"options in shared sequences differ by {self.gap:.1e} (bound {bound:.0e}); they are scored one by one"
            )

    def _plain_sums(self, sample: Sequence[list[Pair]], *, joined: bool) -> list[float]:
        sums = []
        for pairs in sample:
            trees = [build([p.prompt for p in pairs], [p.scored for p in pairs])] if joined else []
            for tree in trees or [self._single(p) for p in pairs]:
                sums += [total for total, _ in self._forward([tree], plain=not joined)[0]]
        return sums

    def _batches(self, jobs: list[tuple[int, int, Tree]]) -> Iterator[list[tuple[int, int, Tree]]]:
        """Longest first, so that running out of memory shows early; bounded by tokens, mask and logits."""
        vocabulary = int(self.model.config.get_text_config().vocab_size)
        jobs.sort(key=lambda job: (-len(job[2].nodes) - len(job[2].trunk), -len(job[2].nodes)))
        chunk: list[tuple[int, int, Tree]] = []
        trunk = nodes = 0
        for job in jobs:
            t, n = max(trunk, len(job[2].trunk)), max(nodes, len(job[2].nodes))
            size = len(chunk) + 1
            full = size * (t + n) > self.batch_tokens or size * (t + n) ** 2 > MASK_CELLS
            if chunk and (full or size * (n + 1) * vocabulary > LOGIT_CELLS):
                yield chunk
                chunk, t, n = [], len(job[2].trunk), len(job[2].nodes)
            chunk.append(job)
            trunk, nodes = t, n
        if chunk:
            yield chunk

    def _forward(self, trees: list[Tree], plain: bool = False) -> list[list[tuple[float, bool]]]:
        """Runs the trees of one batch: trunks end in the same column, so the logits needed are one suffix."""
        device = self.model.device
        trunk, nodes = max(len(t.trunk) for t in trees), max(len(t.nodes) for t in trees)
        if plain or not self.tree:
            return self._forward_plain(trees)
        width = trunk + nodes
        ids = np.zeros((len(trees), width), dtype=np.int64)
        places = np.zeros((len(trees), width), dtype=np.int64)
        sees = np.zeros((len(trees), width, width), dtype=bool)
        causal = np.tril(np.ones((trunk, trunk), dtype=bool))
        for b, tree in enumerate(trees):
            start, end = trunk - len(tree.trunk), trunk + len(tree.nodes)
            ids[b, start:end] = tree.trunk + tree.nodes
            places[b, start:trunk] = np.arange(len(tree.trunk))
            places[b, trunk:end] = np.asarray(tree.depths, dtype=np.int64) + len(tree.trunk)
            sees[b, start:trunk, start:trunk] = causal[start:, start:]
            sees[b, trunk:end, start:trunk] = True
            sees[b, trunk:end, trunk:end] = tree.sees()
        # Padding sees itself: a row of nothing but -inf would be NaN.
        sees[:, np.arange(width), np.arange(width)] = True
        dtype = next(self.model.parameters()).dtype
        mask = torch.zeros(sees.shape, dtype=dtype).masked_fill_(~torch.from_numpy(sees), torch.finfo(dtype).min)
        settings: dict[str, Any] = {"logits_to_keep": nodes + 1} if self.keeps else {}
        with torch.inference_mode():
            logits = self.model(
                input_ids=torch.from_numpy(ids).to(device), attention_mask=mask[:, None].to(device),
                position_ids=torch.from_numpy(places).to(device), use_cache=False, **settings,
            ).logits[:, -(nodes + 1) :]  # fmt: skip
            return [self._read(logits[b], tree, 1) for b, tree in enumerate(trees)]

    def _forward_plain(self, trees: list[Tree]) -> list[list[tuple[float, bool]]]:
        """Chains only, padded on the right, without a mask: right for every causal model."""
        rows = [tree.trunk + tree.nodes for tree in trees]
        ids = torch.zeros((len(rows), max(map(len, rows))), dtype=torch.long)
        for b, row in enumerate(rows):
            ids[b, : len(row)] = torch.tensor(row)
        with torch.inference_mode():
            logits = self.model(input_ids=ids.to(self.model.device), use_cache=False).logits
            return [self._read(logits[b], tree, len(tree.trunk)) for b, tree in enumerate(trees)]

    def _read(self, logits: Any, tree: Tree, first: int) -> list[tuple[float, bool]]:
        """(sum, greedy) of every option; `first` is the row after that of the trunk's last token."""
        at = torch.tensor([first + i for read in tree.reads for i in read], device=logits.device)
        wanted = torch.tensor([t for row in tree.targets for t in row], device=logits.device)
        used, index = torch.unique(at, return_inverse=True)
        rows = torch.log_softmax(logits[used].float(), dim=-1)
        values = rows[index, wanted].tolist()
        greedy = (rows.argmax(-1)[index] == wanted).tolist()
        found, position = [], 0
        for row in tree.targets:
            total = math.fsum(values[position : position + len(row)])
            if not math.isfinite(total):
                raise DataError(
                    378, "a log-likelihood is not finite", expected="finite numbers",
                    cure="the weights hold NaN or overflow: check the training, or set model.dtype=float32",
                )  # fmt: skip
            found.append((total, all(greedy[position : position + len(row)])))
            position += len(row)
        return found


def _groups(pairs: list[Pair]) -> list[tuple[int, list[Pair]]]:
    """(first option, options): many options in several trees, because attention in a tree grows with its square."""
    tokens, trunk = sum(len(p.scored) for p in pairs), len(pairs[0].prompt)
    size = max(1, len(pairs) * max(96, trunk) // max(1, tokens))
    return [(o, pairs[o : o + size]) for o in range(0, len(pairs), size)]


def _inner(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "peft_config") else model


def _may_share(model: Any) -> bool:
    """False for models whose past is more than attention to given positions."""
    config = model.config.get_text_config()
    kinds = {str(k) for k in getattr(config, "layer_types", None) or []}
    odd = kinds - {"full_attention"}
    window = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    alibi = getattr(config, "alibi", False) or str(getattr(config, "model_type", "")) in ("mpt", "bloom")
    recurrent = any(hasattr(config, name) for name in ("ssm_cfg", "state_size", "mamba_d_state", "rwkv_version"))
    flash = "flash" in str(getattr(config, "_attn_implementation", ""))
    if odd or window or alibi or recurrent or flash:
        say("this model's attention is not plain: options are scored one by one")
        return False
    return True


def loglikelihoods(
    model: Any,
    tokenizer: Any,
    requests: Sequence[tuple[str, list[str]]],
    *,
    max_length: int,
    batch_tokens: int = 8192,
) -> list[list[OptionScore]]:
    """Log-likelihoods of continuations, as lm-eval's HFLM defines them, within float noise.

    Raises DataError 375-378 for empty continuations and for scores that are not finite.
    """
    pairs = pair_tokens(tokenizer, requests)
    return Scorer(model, max_length=max_length, batch_tokens=batch_tokens).score(pairs)
