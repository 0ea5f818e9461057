"""Batches, forward passes and sums of log-probabilities."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import torch

from tuneloop.console import progress, say, warn
from tuneloop.errors import DataError
from tuneloop.scoring.attend import NAME, laid_out, register
from tuneloop.scoring.budget import Budget, measure
from tuneloop.scoring.layout import Part, lay
from tuneloop.scoring.pairs import Pair, fit, pair_tokens
from tuneloop.scoring.share import Cluster, clusters
from tuneloop.scoring.tree import Tree, chains_of, trees_of

AGREE = 1e-4  # relative to the size of the sum; wider in half precision, see _settle
CHECKED = 48  # tokens of a prompt's end in the check
Found = dict[tuple[int, int], tuple[float, bool]]  # (request, option) -> sum, greedy


@dataclass(slots=True)
class OptionScore:
    """Summed log-probability of a continuation (nats), its tokens, whether greedy decoding would write it, and the
    tokens of the prompt that it was read behind."""

    logprob: float
    n_tokens: int
    greedy: bool
    truncated: bool
    mismatch: bool
    prompt_tokens: int


class Scorer:
    """Scores token pairs with one model.

    `tree` is settled at first use: shared sequences must equal plain ones on a sample, else every option is computed
    in full. A pair seen before is not computed again (the options of truthfulqa_mc1 stand in mc2 too); that memory
    dies with this object, and when the weights change. `computed` counts the tokens that went through the model.
    """

    def __init__(self, model: Any, *, max_length: int, batch_tokens: int | None = None) -> None:
        self.model, self.max_length = model, max_length
        self.budget = measure(model, batch_tokens)
        self.tree: bool | None = None if _may_share(model, max_length) else False
        self.keeps = "logits_to_keep" in inspect.signature(_inner(model).forward).parameters
        self.gap, self.computed = 0.0, 0
        self.known: dict[bytes, tuple[float, bool]] = {}
        self.state = -1

    def score(self, requests: Sequence[list[Pair]], description: str = "scoring") -> list[list[OptionScore]]:
        """Scores in the order given. A prompt that does not fit loses its beginning, as in lm-eval, and is marked."""
        state = sum(p._version for p in self.model.parameters() if not p.is_inference())
        if state != self.state:  # the weights changed in place: what is known belongs to others
            self.known.clear()
            self.state = state
        fitted = [[fit(pair, self.max_length) for pair in pairs] for pairs in requests]
        if self.tree is None:
            self._settle(fitted)
        keys = [_keys(pairs) for pairs in fitted]
        trees: list[Tree] = []
        planned: set[bytes] = set()
        # Of two requests with the same prompt, that with more options is likely to hold those of the other.
        for r, pairs in sorted(enumerate(fitted), key=lambda one: -len(one[1])):
            first = {keys[r][o]: o for o in reversed(range(len(pairs)))}
            new = sorted(o for key, o in first.items() if key not in self.known and key not in planned)
            planned.update(first)
            if new:
                trees += (trees_of if self.tree else chains_of)(r, new, [pairs[o] for o in new])
        with progress(description, len(trees)) as bar:
            for (r, o), value in self._run(trees, self.tree is True, bar.advance):
                self.known[keys[r][o]] = value
        return [
            [OptionScore(*_split(self.known[key], pair)) for key, pair in zip(keys[r], pairs, strict=True)]
            for r, pairs in enumerate(fitted)
        ]

    def _run(
        self, trees: list[Tree], shared: bool, advance: Callable[[int], Any], force: bool = False
    ) -> Iterator[tuple[tuple[int, int], tuple[float, bool]]]:
        """Every (request, option) of `trees` with its sum; memory that runs out halves the passes, aloud."""
        left = trees
        while left:
            done: set[int] = set()
            try:
                for few, found in self._shared(left, force) if shared else self._plain(left):
                    yield from found.items()
                    done.update(map(id, few))
                    advance(len(few))
                return
            except torch.OutOfMemoryError:
                if self.budget.tokens <= 64:
                    raise
                self.budget = self.budget.halved()
                torch.cuda.empty_cache()
                warn(f"out of memory: going on with {self.budget.tokens} tokens in one pass")
            left = [tree for tree in left if id(tree) not in done]

    def _settle(self, requests: Sequence[list[Pair]]) -> None:
        """Compares shared with plain sequences: the ends of a few prompts with what they share computed once, and two
        options of one whole prompt. Falls back aloud when they differ."""
        short = sorted(requests, key=lambda pairs: len(pairs[0].prompt))[:3]
        sample = [[Pair(p.prompt[-CHECKED:], p.scored) for p in pairs[:4]] for pairs in short] + [short[0][:2]]
        trees = [t for r, pairs in enumerate(sample) for t in trees_of(r, range(len(pairs)), pairs)]
        chains = [c for r, pairs in enumerate(sample) for c in chains_of(r, range(len(pairs)), pairs)]
        try:
            shared = dict(self._run(trees, True, int, force=True))
        except (RuntimeError, ValueError, TypeError, AttributeError) as error:
            warn(f"this model takes no shared sequences ({type(error).__name__}); options are scored one by one")
            self.tree = False
            return
        plain = dict(self._run(chains, False, int))
        self.gap = max(abs(shared[key][0] - plain[key][0]) / max(1.0, abs(plain[key][0])) for key in plain)
        bound = AGREE if next(self.model.parameters()).dtype == torch.float32 else 2e-2
        self.tree = self.gap <= bound
        if not self.tree:
            warn(
                f"options in shared sequences differ by {self.gap:.1e} (bound {bound:.0e}); they are scored one by one"
            )

    def _shared(self, trees: list[Tree], force: bool) -> Iterator[tuple[list[Tree], Found]]:
        found = clusters(trees, self.budget.prefix, (-1, -1) if force else None)
        kept: dict[int, dict[int, Any]] = {}
        device, dtype = self.model.device, next(self.model.parameters()).dtype
        with _attention(self.model):
            for parts in fill(found, self.budget):
                laid = lay(parts, device, dtype, kept)
                with laid_out(laid.layout):
                    logits, rows = self._logits(laid.ids[None], laid.places[None], laid.reads)
                few = [tree for part in parts for tree in part.trees]
                yield few, _sums(few, logits[0], rows, laid.targets)
                for part in parts:
                    if not part.keep:
                        kept.pop(id(part.cluster), None)

    def _plain(self, chains: list[Tree]) -> Iterator[tuple[list[Tree], Found]]:
        """Plain sequences padded on the right, without a mask: right for every causal model."""
        order = sorted(chains, key=lambda chain: -chain.size)
        at = 0
        while at < len(order):
            width = order[at].size
            few = order[at : at + _side_by_side(order[at:], self.budget, self.keeps)]
            at += len(few)
            ids = np.zeros((len(few), width), dtype=np.int64)
            for b, chain in enumerate(few):
                ids[b, : chain.size] = chain.trunk + chain.nodes
            where = [np.asarray([len(c.trunk) + i for read in c.reads for i in read]) for c in few]
            logits, rows = self._logits(ids, None, np.concatenate(where))
            found: Found = {}
            begin = 0
            for b, chain in enumerate(few):
                stop = begin + len(where[b])
                targets = np.asarray([t for target in chain.targets for t in target])
                found |= _sums([chain], logits[b], rows[begin:stop], targets)
                begin = stop
            yield few, found

    def _logits(self, ids: np.ndarray, places: np.ndarray | None, reads: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
        """Logits (B, R, V) of the columns that `reads` names, and which of the R each read is."""
        used, rows = np.unique(reads, return_inverse=True)
        self.computed += ids.size
        device = self.model.device
        settings: dict[str, Any] = {"position_ids": torch.from_numpy(places).to(device)} if places is not None else {}
        if self.keeps:
            settings["logits_to_keep"] = torch.from_numpy(used).to(device)
        with torch.inference_mode():
            found = self.model(input_ids=torch.from_numpy(ids).to(device), use_cache=False, **settings).logits
        return (found if self.keeps else found[:, used]), rows


def fill(found: Sequence[Cluster], budget: Budget) -> Iterator[list[Part]]:
    """Parts of clusters for one pass after another; longest trees first, so that running out of memory shows early."""
    parts: list[Part] = []
    tokens = reads = 0
    for cluster in found:
        trees = sorted(cluster.trees, key=lambda tree: (-len(tree.trunk), -len(tree.nodes)))
        part = Part(cluster, [])
        for tree in trees:
            size, asked = tree.size - cluster.length, 1 + len(tree.nodes)
            more = size + (cluster.length if not part.trees and part.fresh else 0)
            if (parts or part.trees) and (tokens + more > budget.tokens or reads + asked > budget.reads):
                part.keep = bool(cluster.length) and bool(part.trees or not part.fresh)
                yield [*parts, part] if part.trees else parts
                parts, tokens, reads = [], 0, 0
                part = Part(cluster, [], fresh=not part.keep)
                more = size + (cluster.length if part.fresh else 0)
            part.trees.append(tree)
            tokens, reads = tokens + more, reads + asked
        parts.append(part)
    if parts:
        yield parts


def _side_by_side(order: Sequence[Tree], budget: Budget, keeps: bool) -> int:
    """How many of the sequences, longest first, fit one padded pass, all columns that are read times all rows."""
    width, columns = order[0].size, set[int]()
    for count, chain in enumerate(order[: budget.tokens // width]):
        columns |= {len(chain.trunk) + i for read in chain.reads for i in read}
        if (count + 1) * (len(columns) if keeps else width) > budget.reads:
            return max(1, count)
    return max(1, budget.tokens // width)


def _keys(pairs: list[Pair]) -> list[bytes]:
    """What a score depends on besides the weights."""
    heads: dict[int, bytes] = {}
    for pair in pairs:
        if id(pair.prompt) not in heads:
            heads[id(pair.prompt)] = np.asarray(pair.prompt, dtype=np.int64).tobytes()
    return [
        blake2b(heads[id(p.prompt)] + b"|" + np.asarray(p.scored, dtype=np.int64).tobytes(), digest_size=16).digest()
        for p in pairs
    ]


def _split(value: tuple[float, bool], pair: Pair) -> tuple[float, int, bool, bool, bool, int]:
    return value[0], len(pair.scored), value[1], pair.cut, pair.mismatch, len(pair.prompt)


def _sums(trees: list[Tree], logits: torch.Tensor, rows: np.ndarray, targets: np.ndarray) -> Found:
    """(sum, greedy) of every option; `logits` (R, V), `rows` and `targets` for each scored token in order."""
    index, wanted = torch.from_numpy(rows).to(logits.device), torch.from_numpy(targets).to(logits.device)
    logs = torch.log_softmax(logits.float(), dim=-1)
    values = logs[index, wanted].double().cpu().numpy()
    greedy = (logs.argmax(-1)[index] == wanted).cpu().numpy()
    found, at = Found(), 0
    for tree in trees:
        for option, target in zip(tree.options, tree.targets, strict=True):
            stop = at + len(target)
            total = math.fsum(values[at:stop])
            if not math.isfinite(total):
                raise DataError(
                    378, "a log-likelihood is not finite", where=f"row {tree.request}, option {option}",
                    expected="finite numbers",
                    cure="the weights hold NaN or overflow: check the training, or set model.dtype=float32",
                )  # fmt: skip
            found[tree.request, option] = total, bool(greedy[at:stop].all())
            at = stop
    return found


@contextmanager
def _attention(model: Any) -> Iterator[None]:
    """The model with attention over trees; as it was afterwards."""
    network = _inner(model)
    before = network.config._attn_implementation
    register()
    network.set_attn_implementation(NAME)
    try:
        yield
    finally:
        network.set_attn_implementation(before)


def _inner(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "peft_config") else model


def _may_share(model: Any, limit: int) -> bool:
    """False for models whose past is more than attention to given positions, over rows of `limit` tokens."""
    config = model.config.get_text_config()
    kinds = {str(k) for k in getattr(config, "layer_types", None) or []} - {"full_attention"}
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    narrow = bool(window and window < limit)
    odd = kinds - ({"sliding_attention"} if window and not narrow else set())
    alibi = getattr(config, "alibi", False) or str(getattr(config, "model_type", "")) in ("mpt", "bloom")
    recurrent = any(hasattr(config, name) for name in ("ssm_cfg", "state_size", "mamba_d_state", "rwkv_version"))
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    moving = isinstance(rope, dict) and rope.get("rope_type") in ("dynamic", "longrope")
    own = not getattr(_inner(model), "_supports_attention_backend", False)
    if odd or narrow or alibi or recurrent or moving or own:
        say("this model's attention is not plain: options are scored one by one")
        return False
    return True


def loglikelihoods(
    model: Any,
    tokenizer: Any,
    requests: Sequence[tuple[str, list[str]]],
    *,
    max_length: int,
    batch_tokens: int | None = None,
) -> list[list[OptionScore]]:
    """Log-likelihoods of continuations, as lm-eval's HFLM defines them, within float noise.

    Raises DataError 375-378 for empty continuations and for scores that are not finite.
    """
    pairs = pair_tokens(tokenizer, requests)
    return Scorer(model, max_length=max_length, batch_tokens=batch_tokens).score(pairs)
