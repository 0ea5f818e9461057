"""The invariants of the design on the user's own model, rows and machine, each with its measured figure and tolerance.

What is checked is what runs: the same encoder, step, checkpoints, loader and merge as in a tune. A part that is not
built yet says so; a check that does not fit this model or machine says why.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from tuneloop.config import ModelConfig, TrainConfig
from tuneloop.errors import TuneloopError
from tuneloop.models import load_model, load_tokenizer, locate, plain_attention, save_tokenizer
from tuneloop.prompts import apply_template, encode, encode_prompt
from tuneloop.records import Example, read_examples, write_examples
from tuneloop.store import open_run, read_json, read_jsonl, require_run
from tuneloop.train import train
from tuneloop.train.batch import Item, targets
from tuneloop.train.distributed import World, devices_there
from tuneloop.train.optim import Optimizer
from tuneloop.train.run import prepare
from tuneloop.train.state import Trainer
from tuneloop.train.step import backward

ROWS = 12  # of the data that the checks train on
GRADIENT = 1e-5  # relative, L2, float32
LARGE = 400e6  # parameters above which the checks that copy the model to disk are left out


@dataclass
class Check:
    """One line: `state` is 'holds', 'BROKEN', 'not built' or 'left out'; `why` for the last two."""

    invariant: int
    what: str
    state: str
    measured: str = ""
    tolerance: str = ""
    why: str = ""


def doctor(model: ModelConfig, data: Path | None = None) -> list[Check]:
    """Every check in order. Rows come from `data`, or are made up."""
    with tempfile.TemporaryDirectory(prefix="tuneloop-doctor-") as name:
        folder = Path(name)
        rows = _rows(data)
        _write(folder / "data", rows)
        config = TrainConfig(method="full", dtype="float32", per_device_train_batch_size=4, learning_rate=1e-4)
        trainer, tokenizer = prepare(config, model, folder / "data", folder, World())
        small = trainer.model.num_parameters() <= LARGE
        checks = [_trained_tokens(trainer.train), *_layouts(trainer), _ranks(trainer, model, folder, small=small)]
        checks += [_resume(model, folder, small=small), *_same_tokens(rows, tokenizer, folder)]
        checks += [*_same_scores(model, folder, small=small), *_safe(model, folder)]
    return checks


def _rows(data: Path | None) -> list[Example]:
    if data is not None:
        require_run(data, "data")
        return read_examples(data, "train")[:ROWS]
    return [
        Example(id=f"doctor-{i}", kind="completion", prompt=f"Say {i} words.", completion=" " + "word " * (i + 1))
        for i in range(ROWS)
    ]


def _write(folder: Path, rows: list[Example]) -> None:
    with open_run(folder, stage="data", config={}, inputs={}) as run:
        write_examples(folder, "train", rows)
        run.finish()


def _held(invariant: int, what: str, value: float, bound: float) -> Check:
    return Check(invariant, what, "holds" if value <= bound else "BROKEN", f"{value:.1e}", f"{bound:.0e}")


# 2: no row without a trained token


def _trained_tokens(items: list[Item]) -> Check:
    bare = sum(not targets(item) for item in items)
    share = sum(len(targets(item)) for item in items) / sum(len(item.input_ids) for item in items)
    what = f"rows without a trained token among {len(items)} ({share:.0%} of tokens trained)"
    return Check(2, what, "BROKEN" if bare else "holds", str(bare), "0")


# 3: a step is a set of examples


def gradients(t: Trainer, items: list[Item]) -> torch.Tensor:
    """[weights] the gradient of one step, in one line."""
    optimizer = Optimizer(t.model, t.config, t.rate)
    t.model.eval()  # a layout is compared without the chance of dropout
    backward(t, optimizer, items)
    t.world.add_gradients(optimizer.masters)
    found = [m.grad.detach().reshape(-1).clone() for m in optimizer.masters if m.grad is not None]
    for master in optimizer.masters:
        master.grad = None
    return torch.cat(found)


def _layouts(t: Trainer) -> list[Check]:
    packed = t.packing
    ways: list[tuple[str, bool, dict[str, Any]]] = [
        ("one by one", packed, {"per_device_train_batch_size": 1}),
        ("two by two", packed, {"per_device_train_batch_size": 2}),
        ("padded", False, {"per_device_train_batch_size": len(t.train)}),
    ]
    before = t.config
    t.config = before.model_copy(update={"per_device_train_batch_size": len(t.train)})
    whole = gradients(t, t.train)
    checks = []
    for name, packing, settings in ways:
        t.config, t.packing = before.model_copy(update=settings), packing
        attention = t.model.config._attn_implementation
        if not packing and packed:
            t.model.set_attn_implementation(plain_attention(t.model))
        other = gradients(t, t.train)
        t.model.set_attn_implementation(attention)
        base = "packed" if packed else "padded"
        checks.append(_held(3, f"gradient, {base} in one pass against {name}", _distance(other, whole), GRADIENT))
    t.config, t.packing = before, packed
    return checks


def _distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).double().norm() / b.double().norm())


def _ranks(t: Trainer, model: ModelConfig, folder: Path, *, small: bool) -> Check:
    what = "loss of 3 steps in one process against two"
    if devices_there(t.model.device.type) < 2:
        return Check(3, what, "left out", why="one device here")
    if not small:
        return Check(3, what, "left out", why="the model is large; compare two runs with --devices 1 and 2")
    losses = []
    for devices in (1, 2):
        config = t.config.model_copy(update={"devices": devices, "max_steps": 3})
        out = train(config, model, folder / "data", folder / f"ranks-{devices}")
        losses.append(torch.tensor([row["loss"] for row in read_jsonl(out / "log.jsonl")]))
    return _held(3, what, _distance(losses[1], losses[0]), GRADIENT)


# 4: killed and resumed is the straight run


def _resume(model: ModelConfig, folder: Path, *, small: bool) -> Check:
    what = "bytes that differ between a straight run and one killed at step 2"
    if not small:
        return Check(4, what, "left out", why="the model is large: three copies on disk")
    settings = ["train.method=full", "train.max_steps=12", "train.save_steps=1", "train.dtype=float32"]
    settings += ["train.per_device_train_batch_size=4", "train.learning_rate=1e-4"]
    if model.template:
        settings.append(f"model.template={model.template}")
    command = [sys.executable, "-m", "tuneloop", "train", "--quiet", "--data", str(folder / "data")]
    command += ["--model", model.name, *(word for item in settings for word in ("--set", item))]
    runs = (("straight", 0), ("killed", 2), ("killed", 0))
    codes = [_run([*command, "--out", str(folder / name)], folder / name / "log.jsonl", at) for name, at in runs]
    if codes[1] != -signal.SIGKILL:
        return Check(4, what, "left out", why="the run ended before it could be killed")
    files = [path.name for path in (folder / "straight").glob("*.safetensors")]
    differ = sum(
        a != b
        for name in files
        for a, b in zip((folder / "straight" / name).read_bytes(), (folder / "killed" / name).read_bytes(), strict=True)
    )
    return Check(4, what, "holds" if not differ and files else "BROKEN", str(differ), "0")


def _run(command: list[str], log: Path, kill_at: int) -> int:
    """Exit code of a training, killed once its log has `kill_at` lines; on one thread, so that sums are the same."""
    child = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    while kill_at and child.poll() is None:
        if log.is_file() and len(read_jsonl(log)) >= kill_at:
            os.kill(child.pid, signal.SIGKILL)
        time.sleep(0.005)
    return child.wait()


# 5: the same tokens everywhere


def _same_tokens(rows: list[Example], tokenizer: Any, folder: Path) -> list[Check]:
    chats = [row for row in rows if row.messages]
    what = "conversations whose tokens differ between training and"
    if not chats:
        why = "no conversations in these rows"
        return [Check(5, f"{what} {place}", "left out", why=why) for place in ("saved tokenizer", "chat")] + [_server()]
    save_tokenizer(tokenizer, folder / "tokenizer")
    again = load_tokenizer(str(folder / "tokenizer"))
    trained = [encode(row, tokenizer).input_ids for row in chats]
    saved = sum(ids != encode(row, again).input_ids for row, ids in zip(chats, trained, strict=True))
    asked = 0
    for row, ids in zip(chats, trained, strict=True):
        prompt = encode_prompt((row.messages or [])[:-1], again, row.tools)
        asked += ids[: len(prompt)] != prompt
    checks = [("saved tokenizer", saved), ("chat", asked)]
    return [*(Check(5, f"{what} {n}", "BROKEN" if v else "holds", str(v), "0") for n, v in checks), _server()]


def _server() -> Check:
    return Check(5, "conversations whose tokens differ between training and server", *_built("serve"))


def _built(stage: str) -> tuple[str, str, str, str]:
    """State and empty figures for what another stage would have to be asked."""
    if importlib.util.find_spec(f"tuneloop.{stage}") is None:
        return "not built", "", "", f"tuneloop {stage} is not built yet"
    return "left out", "", "", f"the tests of tuneloop {stage} measure it"


# 6: the same scores in every form


def _same_scores(model: ModelConfig, folder: Path, *, small: bool) -> list[Check]:
    names = ("adapter in memory against merged, reloaded", "adapter reloaded against merged")
    what = "logit difference, "
    if not small:
        why = "the model is large; train.merge=true measures it on a real tune"
        return [Check(6, what + name, "left out", why=why) for name in names] + [_exported()]
    config = TrainConfig(
        method="lora", dtype="float32", max_steps=3, learning_rate=1e-2, merge=True, per_device_train_batch_size=4
    )
    out = train(config, model, folder / "data", folder / "adapter")
    ids = torch.arange(5, 37)[None] % load_tokenizer(model.name).vocab_size
    with torch.no_grad():
        scores = [load_model(str(path), dtype="float32", device="cpu")(ids).logits for path in (out, out / "merged")]
    top = float(scores[0].abs().max())  # differences are relative to the largest logit
    gaps = (read_json(out / "manifest.json")["merge_logit_gap"], float((scores[0] - scores[1]).abs().max()))
    return [*(_held(6, what + name, gap / top, 1e-4) for name, gap in zip(names, gaps, strict=True)), _exported()]


def _exported() -> Check:
    return Check(6, "logit difference, adapter against exported", *_built("export"))


# 10: nothing is loaded that could run


def _safe(model: ModelConfig, folder: Path) -> list[Check]:
    home = Path(locate(model.name))
    pickles = [p.name for p in home.glob("*") if p.suffix in (".bin", ".pt", ".pth", ".pkl", ".ckpt")]
    written = [p.name for p in folder.rglob("checkpoint-*/*") if p.suffix not in (".safetensors", ".json")]
    state = "BROKEN" if written else "holds"
    return [
        Check(10, "pickled files beside the model, which are never opened", "holds", str(len(pickles)), "any"),
        Check(10, "checkpoint files that are not safetensors or JSON", state, str(len(written)), "0"),
        _sandbox(model),
        Check(10, "servers bind to loopback and want a token elsewhere", *_built("serve")),
    ]


def _sandbox(model: ModelConfig) -> Check:
    """A template that reaches for Python's insides must be refused."""
    from jinja2 import TemplateError

    tokenizer = load_tokenizer(model.name, revision=model.revision)
    what = "hostile chat template"
    hostile = "{{ ''.__class__.__mro__[1].__subclasses__() }}{{ messages[0].content }}"
    try:
        apply_template(tokenizer, hostile)
        shown = str(tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False))
    except (TuneloopError, TemplateError) as error:
        return Check(10, what, "holds", f"refused ({type(error).__name__})", "refused")
    return Check(10, what, "BROKEN", shown[:20], "refused")


def lines(checks: list[Check]) -> list[str]:
    """A table that fits 100 columns."""
    found = [f"{'':>3} {'what':<62} {'measured':>9} {'allowed':>8}  state"]
    for check in checks:
        figures = f"{check.measured:>9.9} {check.tolerance:>8}"
        found.append(f"{check.invariant:>3} {check.what:<62.62} {figures}  {check.state}"[:100])
        if check.why:
            found.append(f"{'':>7}{check.why}")
    return found


def as_json(checks: list[Check]) -> str:
    return json.dumps({"checks": [asdict(check) for check in checks], "broken": broken(checks)})


def broken(checks: list[Check]) -> int:
    return sum(check.state == "BROKEN" for check in checks)
