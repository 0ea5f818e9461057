"""The train stage: load, attach an adapter or not, fit, save what others load unchanged."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from tuneloop.config import ModelConfig, TrainConfig
from tuneloop.console import say, warn
from tuneloop.errors import UsageError
from tuneloop.models import (
    context_length,
    load_model,
    load_tokenizer,
    locate,
    merge_adapter,
    merge_folder,
    pick_device,
    pick_dtype,
    plain_attention,
    save_tokenizer,
)
from tuneloop.prompts import apply_template
from tuneloop.records import read_examples
from tuneloop.store import require_run, saving, write_table, write_text
from tuneloop.train import guards
from tuneloop.train.activations import keeping, recompute
from tuneloop.train.attention import NAME, packed, register, why_not
from tuneloop.train.auto import settle
from tuneloop.train.batch import Item, targets
from tuneloop.train.distributed import (
    World,
    check_devices,
    check_same_start,
    check_together,
    joined,
    opened,
    shard,
    started_by_torchrun,
    whole_weights,
)
from tuneloop.train.fuse import keep_memory
from tuneloop.train.items import load_items
from tuneloop.train.launch import launch
from tuneloop.train.loop import Told, fit
from tuneloop.train.methods import adapter, check_groups, freeze, noisy_embeddings
from tuneloop.train.objectives import build
from tuneloop.train.objectives.distill import check_vocabulary
from tuneloop.train.places import runs
from tuneloop.train.precision import to_half
from tuneloop.train.schedule import auto_rate
from tuneloop.train.state import State, Trainer
from tuneloop.train.watch import prepare as prepare_watch


def train(
    config: TrainConfig,
    model: ModelConfig,
    data: Path,
    out: Path,
    *,
    overwrite: bool = False,
    told: Told | None = None,
) -> Path:
    """Tunes `model` on the data folder `data`; returns `out`, an adapter in PEFT's format or a full model.

    The same call resumes a run that was cut short and skips one that is finished. `told` gets each line of the log.
    """
    require_run(data, "data")
    device = pick_device(model.device if config.device == "auto" else config.device)
    if config.devices > 1 and not started_by_torchrun():
        check_devices(config, device)
        launch(config, model, data, out, overwrite=overwrite)
        return out
    inputs: dict[str, str | Path] = {"data": data, "model": locate(model.name)}
    if model.adapter:
        inputs["adapter"] = model.adapter
    settings: dict[str, Any] = {"config": {"train": config.model_dump(), "model": model.model_dump()}}
    settings |= {"stage": "model", "inputs": inputs, "overwrite": overwrite}
    if started_by_torchrun():
        check_together(config, int(os.environ["WORLD_SIZE"]))
    with joined(config, device) as world, opened(world, out, **settings) as run:
        if run.state == "done":
            say(f"{out}: finished before, skipped")
            return out
        trainer, tokenizer = prepare(config, model, data, out, world)
        settle(trainer)
        state = fit(trainer, told)
        found = _save(trainer, tokenizer, model, state, out)
        if world.first:
            run.finish(**found)
        world.wait()
    return out


def prepare(config: TrainConfig, model: ModelConfig, data: Path, out: Path, world: World) -> tuple[Trainer, Any]:
    torch.manual_seed(config.seed)
    tokenizer = load_tokenizer(model.name, revision=model.revision)
    if model.template or any(e.messages for split in ("train", "valid") for e in read_examples(data, split)):
        apply_template(tokenizer, model.template)
    register()
    if config.gradient_checkpointing == "none":  # who computes layers again wants memory more than time
        keep_memory()
    network = _network(config, model, world)
    if config.objective == "reward" and network.config.pad_token_id is None:
        network.config.pad_token_id = tokenizer.pad_token_id  # a saved classifier finds the ends of padded rows by it
    length = min(config.max_length or 10**9, context_length(network, tokenizer))
    packing = config.packing and _packs(network, length)
    dropped = out / "dropped.jsonl" if world.first else None
    if dropped:
        dropped.unlink(missing_ok=True)
    items = {
        split: load_items(data, split, tokenizer, length, dropped, config.objective) for split in ("train", "valid")
    }
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    fresh = not hasattr(network, "peft_config") and not config.load_in_4bit and not world.sharded
    if fresh and config.dtype == model.dtype == "auto" and to_half(network, config, items["train"], packing, pad_id):
        network = network.to(torch.bfloat16)
    if config.method == "lora" and not hasattr(network, "peft_config"):
        network = adapter(network, config)
    freeze(network, config.freeze)
    check_groups(network, config.lr_groups)
    noisy_embeddings(network, config.neftune_noise_alpha)
    usual, reason = auto_rate(config.method, network.num_parameters())
    if config.learning_rate is None:
        say(f"learning_rate {usual:g}: {reason}")
    rate = config.learning_rate or usual
    guards.say_all(guards.check(network, tokenizer, items["train"], rate, usual))
    guards.say_all(guards.unused(config, world.size, bool(items["valid"])))
    if not items["valid"]:
        say("no valid split: the weights of the last step are kept")
    _introduce(network, items, config)
    recompute(network, config)
    if world.sharded:
        network = shard(network, world, _dtype(config, model, network.device.type))
    check_same_start(network, world)
    if world.size > 1:
        torch.manual_seed(config.seed * 1009 + world.rank)  # dropout differs between processes
    objective = build(config, _teacher(config, network))
    trainer = Trainer(network, config, items["train"], items["valid"], out, rate, packing, pad_id, objective, world)
    if objective.before:
        for split in ("train", "valid"):
            objective.before(network, items[split], trainer.passes)
    trainer.watch = prepare_watch(config, tokenizer, data)
    trainer.keeping = keeping(network, config)
    return trainer, tokenizer


def _dtype(config: TrainConfig, model: ModelConfig, device: str) -> Any:
    return pick_dtype(model.dtype if config.dtype == "auto" else config.dtype, device)


def _network(config: TrainConfig, model: ModelConfig, world: World) -> Any:
    """The base, or an earlier adapter over its base, whose training then goes on. Raises UsageError 241.

    Shards are float32, whatever is computed with.
    """
    dtype = "float32" if world.sharded else model.dtype if config.dtype == "auto" else config.dtype
    device = model.device if config.device == "auto" else config.device
    kind = "reward" if config.objective == "reward" else "causal"
    network = load_model(
        model.adapter or model.name, dtype=dtype, device=device, revision=model.revision, kind=kind,
        load_in_4bit=config.load_in_4bit,
    )  # fmt: skip
    if not hasattr(network, "peft_config"):
        return network
    if config.method == "full":
        raise UsageError(
            241,
            "all weights cannot be tuned through an adapter",
            where=model.adapter or model.name,
            cure="merge it first (train.merge=true writes merged/), or use train.method=lora",
        )
    say("the adapter is trained further; its own rank and target modules hold")
    for name, weight in network.named_parameters():
        weight.requires_grad = "lora_" in name or ".modules_to_save." in name
        if weight.requires_grad:
            weight.data = weight.data.float()
    if not any(weight.requires_grad for weight in network.parameters()):
        raise UsageError(
            241, "the adapter has no LoRA weights to train", where=model.adapter or model.name,
            expected="an adapter of PEFT's type LORA", cure="start from its base",
        )  # fmt: skip
    return network


def _teacher(config: TrainConfig, network: Any) -> Any:
    """The model that distillation learns from, on the same device; None elsewhere."""
    if config.teacher is None:
        return None
    found = load_model(config.teacher, dtype=str(network.dtype).removeprefix("torch."), device=network.device.type)
    check_vocabulary(network, found, config.teacher)
    found.requires_grad_(False)
    if network.config._attn_implementation == NAME:
        found.set_attn_implementation(NAME)
    return found


def _packs(network: Any, length: int) -> bool:
    """Turns packing on if the model may be packed and then gives the same scores as one example alone."""
    before = network.config._attn_implementation
    reason = why_not(network, length)
    if not reason:
        reason = _differs(network, min(length, 12))
    if reason:
        network.set_attn_implementation(before)
        warn(f"packing is off, examples are padded instead: {reason}")
    return not reason


@torch.no_grad()
def _differs(network: Any, width: int) -> str:
    """Two short rows alone and packed; leaves the packed attention on. Empty when the results agree."""
    spread = torch.arange(2 * width, device=network.device) * 7 + 3
    rows = spread.remainder(network.get_input_embeddings().num_embeddings).split([width, width])
    decoder = getattr(network, network.base_model_prefix, network)
    alone = torch.cat([decoder(input_ids=row[None], use_cache=False)[0][0] for row in rows])
    try:
        network.set_attn_implementation(NAME)
        positions = torch.arange(width, device=network.device).repeat(2)[None]
        with packed(runs([width, width]), network.device):
            together = decoder(input_ids=torch.cat(rows)[None], position_ids=positions, use_cache=False)[0][0]
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        return f"its layers refuse it ({error})"
    gap = (alone - together).float().norm() / alone.float().norm()
    bound = 1e-4 if alone.dtype == torch.float32 else 3e-2
    return "" if gap < bound else f"a packed example scores otherwise than alone (relative difference {gap:.1e})"


def _share(items: list[Item]) -> float:
    tokens = sum(len(item.input_ids) for item in items)
    return sum(len(targets(item)) for item in items) / tokens


def _introduce(network: Any, items: dict[str, list[Item]], config: TrainConfig) -> None:
    trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
    total = sum(p.numel() for p in network.parameters())
    tokens = sum(len(item.input_ids) for item in items["train"])
    say(
        f"{config.method}: {trainable:,} of {total:,} parameters, {network.dtype}, {network.device}; "
        f"{len(items['train']):,} examples, {tokens:,} tokens, {_share(items['train']):.1%} of them trained; "
        f"{len(items['valid']):,} valid"
    )


def _save(trainer: Trainer, tokenizer: Any, model: ModelConfig, state: State, out: Path) -> dict[str, Any]:
    """Writes what others load, from the first process; returns what the manifest says about the run."""
    import pyarrow as pa

    network, config = trainer.model.eval(), trainer.config
    whole = whole_weights(network, trainer.world)
    if not trainer.world.first:
        return {}
    if hasattr(network, "set_attn_implementation"):
        network.set_attn_implementation(plain_attention(network))
    if config.method == "lora":
        settings = network.peft_config["default"]
        if not (Path(locate(model.name)) / "adapter_config.json").is_file():
            settings.base_model_name_or_path, settings.revision = _base_name(model.name), model.revision
    elif whole is not None:
        dtype = _dtype(config, model, network.device.type)
        whole = {name: value.to(dtype) for name, value in whole.items()}
        network.config.dtype = dtype
    with saving(out):
        network.save_pretrained(out, **({} if whole is None else {"state_dict": whole}))
        save_tokenizer(tokenizer, out)
    columns = ("times_seen", "first_loss", "last_loss", "later_loss")
    rows = [{"id": i, **dict(zip(columns, v, strict=True))} for i, v in state.rows.items()]
    write_table(out / "row_loss.parquet", pa.Table.from_pylist(rows))
    write_text(out / "README.md", _card(trainer, model, state))
    gap = None
    if config.merge and config.method == "lora":
        shutil.rmtree(out / "merged", ignore_errors=True)
        with saving(out):
            if whole is None:
                gap = merge_adapter(network, tokenizer, out / "merged")
            else:
                gap = merge_folder(out, out / "merged")["gap"]
        say(f"merged: largest logit difference {gap:.2e}")
    by_loss = config.metric_for_best_model == "valid_loss"
    return {
        "steps": state.step,
        "best_step": state.best_step,
        "best_metric": {"name": config.metric_for_best_model, "value": state.best_value},
        "best_valid_loss": state.best_value if by_loss else None,
        "trained_tokens_share": _share(trainer.train),
        "tokens": sum(len(item.input_ids) for item in trainer.train),
        "dtype": str(trainer.model.dtype),
        "learning_rate": trainer.rate,
        "processes": trainer.world.size,
        "merge_logit_gap": gap,
    }


def _base_name(name: str) -> str:
    """What the adapter calls its base: 'world' and hub names as they are, folders by their full path."""
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def _card(trainer: Trainer, model: ModelConfig, state: State) -> str:
    config = trainer.config
    best = f"{state.best_value:.4f} at step {state.best_step}" if state.best_step else "not measured"
    return (
        f"---\nbase_model: {model.name}\nlibrary_name: {'peft' if config.method == 'lora' else 'transformers'}\n---\n"
        f"# A tune of {model.name}\n\n"
        f"- method {config.method}, learning rate {trainer.rate:g}, {state.step} steps of "
        f"{trainer.step_size} examples, seed {config.seed}\n"
        f"- {len(trainer.train)} training examples, {_share(trainer.train):.1%} of their tokens trained\n"
        f"- best {config.metric_for_best_model.replace('_', ' ')}: {best}\n\n"
        "Made with tuneloop. `run.json` and `manifest.json` hold every setting, input hash and package version.\n"
    )
