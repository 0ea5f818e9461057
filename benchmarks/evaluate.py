"""Time from strings to log-likelihoods against lm-eval's HFLM at its best batch size: same strings, weights and dtype.

    python benchmarks/evaluate.py --shape stories260K|15m|135m [--only arc_challenge@25,...] [--rows N] [--quick]

`15m` and `135m` are Llama shapes with random weights, SmolLM's tokenizer and room for 4,096 tokens; `stories260K` (512
tokens) is scored at 0 shots. Beside each ratio stands the token bound: the tokens that HFLM runs, padding not counted
and equal inputs once, over ours. ARC and HellaSwag shots are drawn for each row as lm-eval draws them, so they share
nothing across rows; `+fixed` gives all rows the same shots, on both sides. MMLU rows are those of one subject.

Seconds are CPU seconds of the process, which other work on the machine does not stretch; `wall_ratio` stands beside.

A full run adds its cells to benchmarks/results/DATE-evaluate.json, so that a campaign can be cut into calls. Prints one
JSON object as its last line, over all cells of the file.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import importlib.metadata
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NOISE = 1e-4
SHARED = Path(__file__).resolve().parents[2] / "shared"
ZERO = (
    "arc_easy@0", "arc_challenge@0", "hellaswag@0", "mmlu_astronomy@0", "truthfulqa_mc1@0", "truthfulqa_mc2@0",
    "truthfulqa@0",
)  # fmt: skip
SHOTS = ("arc_challenge@25", "hellaswag@10", "mmlu_astronomy@5", "arc_challenge@25+fixed", "hellaswag@10+fixed")
LLAMA = {"max_position_embeddings": 4096, "tie_word_embeddings": True, "vocab_size": 49153, "bos_token_id": 0}
SHAPES: dict[str, dict[str, int]] = {
    "15m": {"hidden_size": 288, "intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 6,
            "num_key_value_heads": 6},
    "135m": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
             "num_key_value_heads": 3},
}  # fmt: skip


def load(shape: str, dtype: str) -> tuple[Any, Any, int]:
    """Model, tokenizer, context."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tuneloop.models import load_model, load_tokenizer

    if shape == "stories260K":
        folder = str(SHARED / "models" / shape)
        return load_model(folder, dtype=dtype, device="cpu"), load_tokenizer(folder), 512
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SHAPES[shape], **LLAMA)).eval().to(getattr(torch, dtype))
    return model, load_tokenizer(str(SHARED / "tokenizers" / "smollm-135m")), 4096


def requests_of(cell: str, rows: int) -> tuple[list[Any], list[tuple[str, list[str]]]]:
    """Tasks' items and their requests; `truthfulqa` is mc1 and mc2, which lm-eval also sends together."""
    from tuneloop.tasks import Shots, build_items, find

    name, _, rest = cell.partition("@")
    count, _, fixed = rest.partition("+")
    names = ("truthfulqa_mc1", "truthfulqa_mc2") if name == "truthfulqa" else (name,)
    shots = Shots(int(count), "fixed" if fixed else "lm-eval")
    data = str(SHARED / "data")
    found = [(find(n), item) for n in names for item in build_items(find(n), shots, data=data, limit=rows).items]
    return found, [(item.prompt, [f" {o}" for o in item.options]) for _, item in found]


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """CPU seconds of this process, seconds on the wall, and what `work` gives."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    return time.process_time() - cpu, time.perf_counter() - wall, found


def ours(scorer: Any, tokenizer: Any, requests: Any) -> list[Any]:
    """From strings, with nothing known of earlier calls."""
    from tuneloop.scoring import pair_tokens

    scorer.known.clear()
    scorer.computed = 0
    found: list[Any] = scorer.score(pair_tokens(tokenizer, requests))
    return found


class Peer:
    """HFLM over the same weights; `best` is the batch size that was fastest on the first rows of a cell."""

    def __init__(self, model: Any, tokenizer: Any, room: int) -> None:
        import torch
        from lm_eval.models.huggingface import HFLM

        self.lm = HFLM(pretrained=model, tokenizer=tokenizer, max_length=room, softmax_dtype=torch.float32)

    def __call__(self, requests: Any, batch: int) -> list[tuple[float, bool]]:
        from lm_eval.api.instance import Instance

        self.lm.batch_size_per_gpu = batch
        calls = [Instance("loglikelihood", {}, (p, o), 0) for p, options in requests for o in options]
        return [(float(total), bool(greedy)) for total, greedy in self.lm.loglikelihood(calls, disable_tqdm=True)]

    def best(self, requests: Any, sizes: tuple[int, ...]) -> dict[int, float]:
        """Seconds by batch size; stops at the first that is a tenth slower than the best before it."""
        found: dict[int, float] = {}
        self(requests[:1], 1)
        for size in sizes:
            found[size] = timed(lambda s=size: self(requests, s))[0]
            if found[size] > 1.1 * min(found.values()):
                break
        return found

    def tokens(self, requests: Any, room: int) -> int:
        """Tokens of the inputs that HFLM runs: those equal but for the last token are one."""
        inputs = {tuple((c + k)[-(room + 1) :][:-1]) for p, options in requests for o in options
                  for c, k in [self.lm._encode_pair(p, o)]}  # fmt: skip
        return sum(map(len, inputs))


def decisions(found: list[Any], mine: list[list[float]], theirs: list[list[float]]) -> tuple[int, int]:
    """(flips, ties) over both ways of choosing: sums, and sums by characters where the task has them."""
    from tuneloop import metrics

    flips = ties = 0
    for (task, item), a, b in zip(found, mine, theirs, strict=True):
        pairs = [(a, b)]
        if task.normalised:
            pairs.append((metrics.by_characters(a, item.options), metrics.by_characters(b, item.options)))
        for x, y in pairs:
            top = sorted(y)[-2:]
            if len(top) == 2 and top[1] - top[0] < NOISE:
                ties += 1
            elif metrics.best(x) != metrics.best(y):
                flips += 1
    return flips, ties


def measure(cell: str, rows: int, model: Any, tokenizer: Any, room: int, repeats: int) -> dict[str, Any]:
    """One cell: both sides in turn, `repeats` times."""
    from tuneloop.scoring import Scorer

    found, requests = requests_of(cell, rows)
    peer = Peer(model, tokenizer, room)
    probe = requests[: max(2, len(requests) // 12)]
    options = sum(len(texts) for _, texts in probe)
    sizes = peer.best(probe, tuple(size for size in (1, 4, 8, 16, 32, 64, 128) if size < 2 * options))
    size = min(sizes, key=lambda s: sizes[s])
    scorer = Scorer(model, max_length=room)
    ours(scorer, tokenizer, requests[:2])  # warms up and, once a model, checks that sharing changes nothing
    times: list[tuple[float, float]] = []
    walls: list[tuple[float, float]] = []
    for _ in range(repeats):
        mine_s, mine_wall, scored = timed(lambda: ours(scorer, tokenizer, requests))
        peer_s, peer_wall, answers = timed(lambda: peer(requests, size))
        times.append((mine_s, peer_s))
        walls.append((mine_wall, peer_wall))
    flat = iter(answers)
    theirs = [[next(flat)[0] for _ in row] for row in scored]
    mine = [[s.logprob for s in row] for row in scored]
    flips, ties = decisions(found, mine, theirs)
    tokens = peer.tokens(requests, room)
    ratios = [b / a for a, b in times]
    return {
        "rows": len(found), "options": len(answers), "truncated": sum(any(s.truncated for s in r) for r in scored),
        "speedup": round(statistics.median(ratios), 2), "range": [round(min(ratios), 2), round(max(ratios), 2)],
        "token_bound": round(tokens / scorer.computed, 2), "tokens": scorer.computed, "peer_tokens": tokens,
        "seconds": round(statistics.median(a for a, _ in times), 2), "repeats": repeats,
        "peer_seconds": round(statistics.median(b for _, b in times), 2), "peer_batch": size,
        "wall_ratio": round(statistics.median(b / a for a, b in walls), 2),
        "peer_batches_tried": {str(k): round(v, 2) for k, v in sizes.items()}, "tree": scorer.tree,
        "largest_gap": max(abs(a - b) for x, y in zip(mine, theirs, strict=True) for a, b in zip(x, y, strict=True)),
        "flips": flips, "ties": ties,
    }  # fmt: skip


def summary(cells: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What is printed last; the plain keys are those of the largest shape that has them."""
    speedup: dict[str, float] = {}
    bound: dict[str, float] = {}
    for shape in ("stories260K", "15m", "135m"):
        for name, cell in cells.items():
            if name.startswith(f"{shape} "):
                key = name.partition(" ")[2]
                speedup |= {name: cell["speedup"], key: cell["speedup"]}
                bound |= {name: cell["token_bound"], key: cell["token_bound"]}
    return {
        "speedup": speedup, "token_bound": bound, "flips": sum(c["flips"] for c in cells.values()),
        "ties": sum(c["ties"] for c in cells.values()), "largest_gap": max(c["largest_gap"] for c in cells.values()),
        "rows": sum(c["rows"] for c in cells.values()),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=["stories260K", *SHAPES], default="stories260K")
    parser.add_argument("--only", default="", help="cells such as arc_challenge@25, separated by commas")
    parser.add_argument("--rows", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--quick", action="store_true", help="a few rows, nothing is written")
    asked = parser.parse_args()
    import torch

    from tuneloop import console

    console.set_mode(quiet=True)
    torch.set_num_threads(asked.threads)
    model, tokenizer, room = load(asked.shape, asked.dtype)
    chosen = [c for c in asked.only.split(",") if c] or [*ZERO, *(SHOTS if room >= 4096 else ())]
    date = datetime.date.today().isoformat()
    path = Path(__file__).parent / "results" / f"{date}-evaluate.json"
    result: dict[str, Any] = json.loads(path.read_text()) if path.is_file() and not asked.quick else {"cells": {}}
    result |= {
        "benchmark": "evaluate", "date": date, "machine": platform.machine(),
        "versions": {p: importlib.metadata.version(p) for p in ("lm_eval", "torch", "transformers")},
    }  # fmt: skip
    for cell in chosen:
        rows = asked.rows or (8 if asked.quick else 30)
        found = measure(cell, rows, model, tokenizer, room, asked.repeats)
        result["cells"][f"{asked.shape} {cell}"] = {**found, "dtype": asked.dtype, "threads": asked.threads}
        print(json.dumps({cell: found}), file=sys.stderr, flush=True)
        if not asked.quick:
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(summary(result["cells"])))


if __name__ == "__main__":
    main()
