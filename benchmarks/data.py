"""Speed of data preparation beside TRL, LLaMA-Factory and datasketch, and a run over generated rows to its end.

    python benchmarks/data.py [--quick] [--rows 1000000] [--peers DIR]

Each side has a process of its own and gives its seconds without imports and loading; three alternations, medians.
What is measured: rows in memory -> token ids, labels and packs of 1,024 tokens in an Arrow file (TRL and LLaMA-Factory:
what their trainers make of the same rows before the first step, with two processes). Near-duplicates: prompts in
memory -> pairs with an estimated (datasketch) or exact (ours) similarity of 0.8. The last line is one object.
The environments of the peers: `benchmarks/peers.sh`.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
TOKENIZER = SHARED / "tokenizers" / "qwen3"
LENGTH = 1024
SIZES = (100_000, 300_000, 1_000_000)


def alpaca(limit: int | None) -> list[tuple[str, str]]:
    """(user, answer) of the real rows that have both."""
    with gzip.open(SHARED / "data" / "alpaca" / "alpaca_subset.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file][:limit]
    texts = [(f"{r['instruction']}\n\n{r['input']}" if r["input"] else r["instruction"], r["output"]) for r in rows]
    return [(user, answer) for user, answer in texts if user.strip() and answer.strip()]


def side_ours(limit: int | None) -> dict[str, Any]:
    import numpy as np
    import pyarrow as pa

    from tuneloop.models import load_tokenizer
    from tuneloop.prompts import Encoded
    from tuneloop.prompts.batch import best_fit, encode_batch
    from tuneloop.records import Example

    tokenizer = load_tokenizer(str(TOKENIZER))
    turns = [[{"role": "user", "content": u}, {"role": "assistant", "content": a}] for u, a in alpaca(limit)]
    encode_batch([Example(messages=turns[0])], tokenizer)
    pa.array(np.zeros(1, np.int32))  # its first call imports pandas, and imports are not timed on any side
    started = time.perf_counter()
    found: list[Any] = []
    for at in range(0, len(turns), 1000):
        found += encode_batch([Example(messages=m) for m in turns[at : at + 1000]], tokenizer)
    assert all(isinstance(one, Encoded) for one in found)
    lengths = [min(len(one.input_ids), LENGTH) for one in found]
    with tempfile.TemporaryDirectory() as folder, pa.OSFile(f"{folder}/packs.arrow", "wb") as sink:
        schema = pa.schema([(name, pa.list_(pa.int32())) for name in ("input_ids", "labels", "position_ids")])
        with pa.ipc.new_file(sink, schema) as writer:
            packs = best_fit(lengths, LENGTH)
            for at in range(0, len(packs), 1000):
                rows = packs[at : at + 1000]
                ids = np.array([t for pack in rows for i in pack for t in found[i].input_ids[:LENGTH]], np.int32)
                on = np.array([t for pack in rows for i in pack for t in found[i].trained[:LENGTH]], bool)
                sizes = np.array([lengths[i] for pack in rows for i in pack])
                starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
                offsets = np.cumsum([0, *(sum(lengths[i] for i in pack) for pack in rows)]).astype(np.int32)
                columns = [
                    ids,
                    np.where(on, ids, -100).astype(np.int32),
                    (np.arange(len(ids)) - starts).astype(np.int32),
                ]
                arrays = [pa.ListArray.from_arrays(pa.array(offsets), pa.array(column)) for column in columns]
                writer.write_table(pa.table(arrays, schema=schema))
        seconds = time.perf_counter() - started
    trained = sum(sum(one.trained[:LENGTH]) for one in found)
    return {"seconds": seconds, "tokens": sum(lengths), "trained": trained, "packs": len(packs), "rows": len(found)}


def side_trl(limit: int | None) -> dict[str, Any]:
    import datasets
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    datasets.disable_caching()
    datasets.disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    rows = [
        {"prompt": [{"role": "user", "content": u}], "completion": [{"role": "assistant", "content": a}]}
        for u, a in alpaca(limit)
    ]
    table = datasets.Dataset.from_list(rows)
    spent: dict[str, Any] = {}

    class Timed(SFTTrainer):
        def _prepare_dataset(self, *args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            out = super()._prepare_dataset(*args, **kwargs)
            spent["seconds"] = time.perf_counter() - started
            return out

    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=1, **shape))
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder,
            max_length=LENGTH,
            packing=True,
            dataset_num_proc=2,
            report_to=[],
            use_cpu=True,
            bf16=False,
        )
        trainer = Timed(model=model, args=config, train_dataset=table, processing_class=tokenizer)
        done: Any = trainer.train_dataset
    tokens = sum(len(ids) for ids in done["input_ids"])
    trained = sum(sum(t != -100 for t in labels) for labels in done["labels"])
    return {**spent, "tokens": tokens, "trained": trained, "packs": len(done), "rows": len(rows)}


def side_llamafactory(limit: int | None) -> dict[str, Any]:
    """Runs in the environment of LLaMA-Factory; its own loader, converter, tokenisation and packing."""
    import datasets
    from llamafactory.data import get_template_and_fix_tokenizer, loader
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    datasets.disable_caching()
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        rows = [{"instruction": u, "input": "", "output": a} for u, a in alpaca(limit)]
        Path(folder, "rows.json").write_text(json.dumps(rows), encoding="utf-8")
        Path(folder, "dataset_info.json").write_text(json.dumps({"rows": {"file_name": "rows.json"}}))
        settings = {
            "model_name_or_path": str(TOKENIZER), "dataset": "rows", "dataset_dir": folder, "template": "qwen3_nothink",
            "cutoff_len": LENGTH, "packing": True, "preprocessing_num_workers": 2, "output_dir": f"{folder}/out",
            "stage": "sft", "do_train": True, "finetuning_type": "full", "overwrite_cache": True, "report_to": "none",
            "use_cpu": True, "bf16": False,
        }  # fmt: skip
        model_args, data_args, training_args, *_ = get_train_args(settings)
        held = load_tokenizer(model_args)
        template = get_template_and_fix_tokenizer(held["tokenizer"], data_args)
        merged = loader._get_merged_dataset(data_args.dataset, model_args, data_args, training_args, "sft")
        started = time.perf_counter()
        done = loader._get_preprocessed_dataset(merged, data_args, training_args, "sft", template, **held)
        seconds = time.perf_counter() - started
    tokens = sum(sum(ids.attention_mask) if hasattr(ids, "attention_mask") else len(ids) for ids in done["input_ids"])
    trained = sum(sum(t != -100 for t in labels) for labels in done["labels"])
    return {"seconds": seconds, "tokens": tokens, "trained": trained, "packs": len(done), "rows": len(rows)}


def near_ours(limit: int | None) -> dict[str, Any]:
    import numpy as np

    from tuneloop.neighbours import minhash

    texts = [user for user, _ in alpaca(limit)]
    minhash.shingles(texts[:10])
    started = time.perf_counter()
    values, offsets = minhash.shingles(texts)
    bands = minhash.bands(values, offsets)
    packed = np.zeros(0, np.uint64)
    for band in range(minhash.BANDS):
        earlier, later = minhash.candidates(bands[:, band])
        packed = np.union1d(packed, (later.astype(np.uint64) << np.uint64(32)) | earlier.astype(np.uint64))
    one, two = (packed & np.uint64(0xFFFFFFFF)).astype(np.int64), (packed >> np.uint64(32)).astype(np.int64)
    similarity = minhash.jaccard(one, two, lambda i: values[offsets[i] : offsets[i + 1]])
    return {"seconds": time.perf_counter() - started, "pairs": int((similarity >= 0.8).sum()), "rows": len(texts)}


def near_datasketch(limit: int | None) -> dict[str, Any]:
    from datasketch import MinHash, MinHashLSH

    texts = [user for user, _ in alpaca(limit)]
    started = time.perf_counter()
    index = MinHashLSH(num_perm=125, params=(25, 5))
    held = {}
    grams = [[t.encode() for t in {text[i : i + 5] for i in range(max(1, len(text) - 4))}] for text in texts]
    for number, sketch in enumerate(MinHash.generator(grams, num_perm=125)):
        held[number] = sketch
        index.insert(number, sketch)
    pairs = 0
    for number, sketch in held.items():
        pairs += sum(other < number and sketch.jaccard(held[other]) >= 0.8 for other in index.query(sketch))
    return {"seconds": time.perf_counter() - started, "pairs": pairs, "rows": len(texts)}


def whole(rows: int, folder: str) -> dict[str, Any]:
    """`prepare` over generated rows, with the memory of all its processes added up every 20 ms."""
    import psutil
    from data_rows import write_rows

    from tuneloop.config import DataConfig
    from tuneloop.data import prepare

    path = Path(folder) / f"rows-{rows}.jsonl"
    if not path.exists():
        write_rows(path, rows)
    peak = {"all": 0, "main": 0}
    stop = threading.Event()

    def watch() -> None:
        me = psutil.Process()
        while not stop.wait(0.02):
            own = total = me.memory_info().rss
            for child in me.children(recursive=True):
                try:
                    total += child.memory_info().rss
                except psutil.Error:
                    continue
            peak["all"], peak["main"] = max(peak["all"], total), max(peak["main"], own)

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory(dir=folder) as out:
            prepare(DataConfig(source=[str(path)]), Path(out) / "data")
            profile = json.loads((Path(out) / "data" / "profile.json").read_text())
    finally:
        stop.set()
        watcher.join()
    seconds = time.perf_counter() - started
    assert profile["rows_in"] == profile["kept"] + profile["rejected"] == rows
    return {
        "rows": rows, "seconds": seconds, "kept": profile["kept"], "reasons": profile["reasons"],
        "peak_bytes": peak["all"], "peak_main_bytes": peak["main"], "input_bytes": path.stat().st_size,
    }  # fmt: skip


SIDES = {
    "ours": side_ours, "trl": side_trl, "llamafactory": side_llamafactory, "near_ours": near_ours,
    "near_datasketch": near_datasketch,
}  # fmt: skip


def child(python: str, *arguments: str) -> dict[str, Any]:
    """One measurement in a process of its own; {'error': why} where it fails."""
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'benchmarks'}", "HF_HUB_OFFLINE": "1"}
    env.pop("OMP_NUM_THREADS", None)
    done = subprocess.run([python, __file__, *arguments], capture_output=True, text=True, env=env)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return {"error": (done.stderr.strip().splitlines() or ["no output"])[-1][:300]}
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def alternate(pythons: dict[str, str], limit: int | None, times: int) -> dict[str, dict[str, Any]]:
    """Every side `times` times, one after the other; the median by seconds, with the range."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in pythons}
    for _ in range(times):
        for name, python in pythons.items():
            if not any("error" in run for run in runs[name]):
                runs[name].append(child(python, "--side", name, "--limit", str(limit or 0)))
                print(name, runs[name][-1], file=sys.stderr, flush=True)
    out = {}
    for name, held in runs.items():
        good = [run for run in held if "error" not in run]
        if not good:
            out[name] = held[-1]
            continue
        middle = statistics.median(run["seconds"] for run in good)
        out[name] = {
            **good[0],
            "seconds": middle,
            "range": [min(r["seconds"] for r in good), max(r["seconds"] for r in good)],
        }
    return out


def ratio(slow: dict[str, Any], fast: dict[str, Any]) -> float | None:
    return None if "error" in slow or "error" in fast else round(slow["seconds"] / fast["seconds"], 2)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="fewer rows, one growing run of 100,000")
    parser.add_argument("--rows", type=int, default=SIZES[-1])
    parser.add_argument("--peers", default=os.environ.get("TUNELOOP_PEERS", "~/.cache/tuneloop-peers"))
    parser.add_argument("--work", default=tempfile.gettempdir())
    parser.add_argument("--only", choices=("peers", "rows"))
    parser.add_argument("--side", choices=(*SIDES, "whole"))
    parser.add_argument("--limit", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.side:
        found = (
            whole(arguments.limit, arguments.work)
            if arguments.side == "whole"
            else SIDES[arguments.side](arguments.limit or None)
        )
        print(json.dumps(found))
        return
    limit = 5000 if arguments.quick else None
    peers = Path(arguments.peers).expanduser()
    report: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": platform.platform(),
        "cores": os.cpu_count(),
    }
    if arguments.only != "rows":
        pythons = {
            "ours": sys.executable,
            "trl": sys.executable,
            "llamafactory": str(peers / "llamafactory/bin/python"),
        }
        report["prepare"] = alternate(pythons, limit, 3)
        near = {"near_ours": sys.executable, "near_datasketch": str(peers / "datasketch/bin/python")}
        report["near"] = alternate(near, limit, 3)
    if arguments.only != "peers":
        sizes = (
            (20_000, 100_000) if arguments.quick else (*tuple(n for n in SIZES if n < arguments.rows), arguments.rows)
        )
        report["whole"] = [
            child(sys.executable, "--side", "whole", "--limit", str(n), "--work", arguments.work) for n in sizes
        ]
    print(json.dumps(report, indent=1))
    print(json.dumps(last_line(report)))


def last_line(report: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = dict.fromkeys(
        ("prepare_vs_trl", "prepare_vs_llamafactory", "rows_per_s", "peak_mib", "bytes_per_row", "rows")
    )
    if "prepare" in report:
        sides = report["prepare"]
        out["prepare_vs_trl"] = ratio(sides["trl"], sides["ours"])
        out["prepare_vs_llamafactory"] = ratio(sides["llamafactory"], sides["ours"])
        out["near_vs_datasketch"] = ratio(report["near"]["near_datasketch"], report["near"]["near_ours"])
    if "whole" in report and not any("error" in run for run in report["whole"]):
        first, last = report["whole"][0], report["whole"][-1]
        out["rows_per_s"] = round(last["rows"] / last["seconds"], 1)
        out["peak_mib"] = round(last["peak_bytes"] / 2**20, 1)
        # Of the main process, which holds what grows; workers hold one shard each, whatever the rows.
        grown = last["peak_main_bytes"] - first["peak_main_bytes"]
        out["bytes_per_row"] = round(grown / (last["rows"] - first["rows"]), 1)
        out["rows"] = last["rows"]
    return out


if __name__ == "__main__":
    main()
