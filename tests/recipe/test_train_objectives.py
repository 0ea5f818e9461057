"""Every objective: one gradient for any factoring, whole runs against written-down losses, exact resume."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.recipe.test_train_trl import moved, pairs, singles, triples
from tests.recipe.tiny import WORDS, tiny_data, tiny_folder, tiny_model

from tuneloop.config import ModelConfig, TrainConfig
from tuneloop.errors import UsageError
from tuneloop.records import Example, example_id
from tuneloop.store import read_jsonl
from tuneloop.train import train
from tuneloop.train.attention import NAME, register
from tuneloop.train.batch import Item, pack, pad
from tuneloop.train.distributed import World
from tuneloop.train.objectives.distill import distill
from tuneloop.train.objectives.kto import kto, mismatched
from tuneloop.train.objectives.preference import dpo, orpo, simpo
from tuneloop.train.objectives.reward import reward
from tuneloop.train.objectives.sft import sft
from tuneloop.train.run import prepare

pytestmark = pytest.mark.usefixtures("one_thread")
GOLDEN = Path(__file__).parent / "golden"
CPU = torch.device("cpu")


def maker(name: str) -> Any:
    teacher = tiny_model("gqa", seed=5) if name == "distill" else None
    return {
        "sft": lambda: sft(0.1, 1e-3),
        "dpo": lambda: dpo(0.3),
        "orpo": lambda: orpo(0.4),
        "simpo": lambda: simpo(2.0, 0.5),
        "kto": lambda: kto(0.3, 1.2, 0.7),
        "reward": lambda: reward(0.01),
        "distill": lambda: distill(teacher, 0.4, 1.5),
    }[name]()


def network(name: str, folder: Path) -> Any:
    if name != "reward":
        return tiny_model("gqa")
    from transformers import AutoModelForSequenceClassification

    tiny_model("gqa").save_pretrained(folder)
    torch.manual_seed(1)
    return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1).eval()


def step(name: str, base: Any, items: list[Item], cuts: list[slice], *, packing: bool) -> tuple[float, torch.Tensor]:
    """Loss and gradient of a step whose examples go through the model in these parts."""
    register()
    objective = maker(name)

    def passes(some: list[Item], parts: list[slice] | None = None) -> Any:
        for cut in parts or [slice(None)]:
            yield some[cut], pack(some[cut], CPU) if packing else pad(some[cut], 0, CPU)

    model = moved(base)
    before = copy.deepcopy(base)
    for one in (model, before):
        one.set_attn_implementation(NAME if packing else "sdpa")
    if objective.before:
        objective.before(before, items, passes)
    if objective.note:
        objective.note(model, items, passes)
    total = 0.0
    for part, layout in passes(items, cuts):
        loss = objective.outcome(model, layout, part).total / objective.mass(items)
        loss.backward()
        total += loss.item()
    return total, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("name", ["sft", "dpo", "orpo", "simpo", "kto", "reward", "distill"])
def test_any_factoring_gives_one_gradient(name: str, tmp_path: Path) -> None:
    rows = triples(6)
    items = pairs(rows) if name in ("dpo", "orpo", "simpo", "reward") else singles(rows)
    for i, item in enumerate(items):
        item.weight = 1.0 if i % 3 else 0.5
    base, whole = network(name, tmp_path), [slice(None)]
    loss, want = step(name, base, items, [slice(i, i + 1) for i in range(6)], packing=False)
    ways = {
        "padded": (whole, False),
        "packed": (whole, True),
        "packed, accumulated": ([slice(0, 1), slice(1, 4), slice(4, 6)], True),
    }
    for way, (cuts, packing) in ways.items():
        found, got = step(name, base, items, cuts, packing=packing)
        assert abs(found - loss) <= 1e-5 * abs(loss), way
        assert (got - want).norm() <= 1e-5 * want.norm(), (way, float((got - want).norm() / want.norm()))


def examples(kind: str, count: int = 16) -> list[Example]:
    rows = []
    for i in range(count):
        asked = " ".join(WORDS[(i * 7 + j * 3) % 40] for j in range(2 + i % 7))
        good, bad = f" {WORDS[i % 40]} {WORDS[(i + 1) % 40]}", f" {WORDS[(i + 20) % 40]}"
        if kind == "preference":
            row = Example(kind=kind, prompt=asked, chosen=good, rejected=bad)
        elif kind == "feedback":
            row = Example(kind=kind, prompt=asked, completion=bad if i % 2 else good, desirable=i % 2 == 0)
        else:
            row = Example(kind="completion", prompt=asked, completion=good)
        row.id = example_id(row)
        rows.append(row)
    return rows


KINDS = {"kto": "feedback", "sft": "completion", "distill": "completion"}
SHORT: dict[str, Any] = {"learning_rate": 3e-3, "per_device_train_batch_size": 4, "max_steps": 6}


def run(top: Path, name: str, told: Any = None, shape: str = "llama", **settings: Any) -> list[float]:
    objective = settings.get("objective", "sft")
    if not (top / "base").exists():
        tiny_folder(top / "base", shape)
        tiny_data(top / "data", examples(KINDS.get(objective, "preference")), valid=0)
    config = TrainConfig(**{"method": "full", **SHORT, **settings})
    train(config, ModelConfig(name=str(top / "base")), top / "data", top / name, told=told)
    return [row["loss"] for row in read_jsonl(top / name / "log.jsonl")]


@pytest.mark.parametrize("name", ["dpo", "orpo", "simpo", "kto", "reward", "distill"])
def test_losses_are_those_written_down(name: str, tmp_path: Path) -> None:
    """Made by this run; to be written anew only when what a step does is meant to change."""
    more = {"teacher": str(tiny_folder(tmp_path / "teacher", "gqa"))} if name == "distill" else {}
    found = run(tmp_path, "out", objective=name, **more)
    path = GOLDEN / f"{name}.txt"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"{loss:.6f}\n" for loss in found))
        pytest.fail(f"{path} was missing and is written now")
    assert found == pytest.approx([float(line) for line in path.read_text().split()], rel=1e-3)
    assert found[-1] < found[0]


class Stop(Exception):
    pass


RUNS: dict[str, dict[str, Any]] = {
    "8-bit": {"optim": "adamw_8bit"},
    "muon": {"optim": "muon"},
    "schedule-free": {"optim": "schedule_free"},
    "adafactor": {"optim": "adafactor", "learning_rate": 0.05},
    "stochastic rounding": {"dtype": "bfloat16", "bf16_update": "stochastic"},
    "every kind of LoRA at once": {
        "method": "lora",
        "use_dora": True,
        "use_rslora": True,
        "loraplus_lr_ratio": 4.0,
        "neftune_noise_alpha": 5.0,
        "lora_dropout": 0.1,
    },
    "tokens a step, stable then falling": {"batch_tokens": 40, "lr_scheduler_type": "wsd", "lr_groups": {"*mlp*": 0.5}},
}


@pytest.mark.parametrize("name", list(RUNS))
def test_stopped_and_resumed_is_the_straight_run(name: str, tmp_path: Path) -> None:
    settings = {**RUNS[name], "save_steps": 2}
    straight = run(tmp_path, "straight", **settings)
    assert straight[-1] < straight[0]

    def stop(row: dict[str, Any]) -> None:
        if row["step"] == 3:
            raise Stop

    with pytest.raises(Stop):
        run(tmp_path, "cut", stop, **settings)
    assert run(tmp_path, "cut", **settings) == straight
    file = "adapter_model.safetensors" if settings.get("method") == "lora" else "model.safetensors"
    assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "straight" / file).read_bytes()


def test_frozen_weights_stay(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    run(tmp_path, "out", freeze=["model.layers.0.*", "*embed*"])
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("base", "out"))
    changed = {name for name in before if not before[name].equal(after[name])}
    assert "model.layers.1.mlp.up_proj.weight" in changed
    assert not any("layers.0." in name or "embed" in name for name in changed)


@pytest.mark.parametrize("pattern", ["model.nowhere", "*embed*"])
def test_a_rate_for_weights_that_do_not_move_is_refused(pattern: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="TL-264"):
        run(tmp_path, "out", freeze=["*embed*"], lr_groups={pattern: 2.0})


def test_adapter_on_a_four_bit_base(tmp_path: Path) -> None:
    from peft import AutoPeftModelForCausalLM

    losses = run(tmp_path, "out", shape="wide", method="lora", load_in_4bit=True, learning_rate=3e-2)
    assert losses[-1] < losses[0]
    AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out")


def test_a_reward_model_is_merged_reads_padded_rows_and_is_trained_further(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    run(tmp_path, "out", objective="reward", method="lora", merge=True)
    assert (tmp_path / "out" / "manifest.json").is_file()
    whole = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out" / "merged")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out" / "merged")
    rows = tokenizer(["w1 w2 w3", "w4"], padding=True, return_tensors="pt")
    both = whole(**{k: rows[k] for k in ("input_ids", "attention_mask")}).logits
    alone = whole(input_ids=tokenizer("w4", return_tensors="pt").input_ids).logits
    assert torch.allclose(both[1], alone[0], atol=1e-5)
    config = TrainConfig(**SHORT, objective="reward", method="lora")
    model = ModelConfig(name=str(tmp_path / "base"), adapter=str(tmp_path / "out"))
    trainer, _ = prepare(config, model, tmp_path / "data", tmp_path / "more", World())
    moving = [name for name, weight in trainer.model.named_parameters() if weight.requires_grad]
    assert any("score" in name for name in moving) and any("lora_" in name for name in moving)


def test_a_borrowed_answer_never_passes_the_context() -> None:
    long = Item("a", [*range(60), 1, 2], [False] * 60 + [True] * 2, 1.0)
    other = Item("b", [3, *range(60)], [False, *[True] * 60], 1.0)
    found = mismatched(long, other, 64)
    assert found.input_ids == [*range(60), 0, 1, 2, 3] and found.trained == [False] * 60 + [True] * 4
    assert mismatched(other, long, 64).input_ids == [3, 1, 2]
