"""Losses and gradients of the objectives beside TRL's on the same batch and the same tiny model."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.recipe.tiny import tiny_model, tiny_tokenizer

from tuneloop.train.attention import NAME, register
from tuneloop.train.batch import Item, pack
from tuneloop.train.objectives.distill import distill
from tuneloop.train.objectives.kto import kto
from tuneloop.train.objectives.preference import dpo, orpo, simpo
from tuneloop.train.objectives.reward import reward
from tuneloop.train.objectives.sft import sft

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore")]
CPU = torch.device("cpu")
CLOSE = 1e-4  # relative: float32, two ways of summing
Triple = tuple[list[int], list[int], list[int]]


def triples(count: int = 4, prompt: int | None = None) -> list[Triple]:
    """Prompt, chosen and rejected ids; the answers differ from their first token on."""
    chance = random.Random(3)

    def some(n: int) -> list[int]:
        return [chance.randrange(3, 43) for _ in range(n)]

    rows = []
    for i in range(count):
        rows.append((some(prompt or 3 + i), [5 + i, *some(4 + i), 2], [20 + i, *some(6 - i), 2]))
    return rows


def pairs(rows: list[Triple]) -> list[Item]:
    return [
        Item(
            str(i),
            [*asked, *good, *bad],
            [False] * len(asked) + [True] * (len(good) + len(bad)),
            1.0,
            (len(asked), len(asked) + len(good)),
        )
        for i, (asked, good, bad) in enumerate(rows)
    ]


def singles(rows: list[Triple]) -> list[Item]:
    """The chosen answer of even rows, the rejected one of odd rows."""
    found = []
    for i, (asked, good, bad) in enumerate(rows):
        answer = bad if i % 2 else good
        trained = [False] * len(asked) + [True] * len(answer)
        found.append(Item(str(i), asked + answer, trained, 1.0, desirable=i % 2 == 0))
    return found


def ours(model: Any, objective: Any, items: list[Item], before: Any = None) -> tuple[float, torch.Tensor]:
    """Loss and gradient of one packed pass; `before` is the model that the reference is taken from."""
    register()
    model = copy.deepcopy(model)
    model.set_attn_implementation(NAME)

    def passes(some: list[Item]) -> Any:
        return [(some, pack(some, CPU))]

    if objective.before:
        before.set_attn_implementation(NAME)
        objective.before(before, items, passes)
    if objective.note:
        objective.note(model, items, passes)
    loss = objective.outcome(model, pack(items, CPU), items).total / objective.mass(items)
    loss.backward()
    return loss.item(), gradient(model)


def gradient(model: Any) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for _, p in sorted(model.named_parameters()) if p.grad is not None])


def theirs(trainer: Any) -> tuple[float, torch.Tensor]:
    """Loss and gradient of the trainer on its whole data set in one batch."""
    trainer.model.train()
    batch = next(iter(trainer.get_train_dataloader()))
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    return loss.item(), gradient(trainer.model)


def same(mine: tuple[float, torch.Tensor], other: tuple[float, torch.Tensor]) -> None:
    assert mine[0] == pytest.approx(other[0], rel=CLOSE)
    assert (mine[1] - other[1]).norm() <= CLOSE * other[1].norm()
    assert other[1].norm() > 0


def settings(kind: Any, folder: Path, count: int, **more: Any) -> Any:
    base = {"bf16": False, "use_cpu": True, "gradient_checkpointing": False, "report_to": [], "seed": 0}
    base |= {"per_device_train_batch_size": count, "train_sampling_strategy": "sequential", "max_length": 64}
    return kind(output_dir=str(folder), **{**base, **more})


def words(rows: list[list[int]]) -> list[str]:
    tokenizer = tiny_tokenizer()
    return [" ".join(tokenizer.convert_ids_to_tokens(row)) for row in rows]


def preference_set(rows: list[Triple]) -> Any:
    """As text, for trainers that tokenize by themselves; the end token is theirs to add."""
    from datasets import Dataset

    asked, good, bad = (words(list(part)) for part in zip(*rows, strict=True))
    end = " </s>"
    cut = [[answer.removesuffix(end) for answer in part] for part in (good, bad)]
    return Dataset.from_list(
        [{"prompt": a, "chosen": f" {g}", "rejected": f" {b}"} for a, g, b in zip(asked, *cut, strict=True)]
    )


def test_sft(tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    model, items = tiny_model("gqa"), singles(triples())
    data = Dataset.from_list(
        [{"input_ids": i.input_ids, "completion_mask": [int(x) for x in i.trained]} for i in items]
    )
    arguments = settings(SFTConfig, tmp_path, len(items), completion_only_loss=True)
    trainer = SFTTrainer(copy.deepcopy(model), arguments, train_dataset=data, processing_class=tiny_tokenizer())
    same(ours(model, sft(), items), theirs(trainer))


def moved(model: Any) -> Any:
    """The model after a step, so that it differs from its reference."""
    found = copy.deepcopy(model)
    torch.manual_seed(7)
    with torch.no_grad():
        for weight in found.parameters():
            weight += 0.05 * torch.randn_like(weight) * weight.std()
    return found


def test_dpo(tmp_path: Path) -> None:
    from trl import DPOConfig, DPOTrainer

    before, rows = tiny_model("gqa"), triples()
    model = moved(before)
    trainer = DPOTrainer(
        copy.deepcopy(model),
        ref_model=copy.deepcopy(before),
        args=settings(DPOConfig, tmp_path, len(rows), beta=0.3),
        train_dataset=preference_set(rows),
        processing_class=tiny_tokenizer(),
    )
    same(ours(model, dpo(0.3), pairs(rows), before), theirs(trainer))


def test_kto(tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    before, rows = tiny_model("gqa"), triples()
    model, items = moved(before), singles(rows)
    answers = [bad if i % 2 else good for i, (_, good, bad) in enumerate(rows)]
    texts = [text.removesuffix(" </s>") for text in words(answers)]
    asked = words([row[0] for row in rows])
    data = Dataset.from_list(
        [
            {"prompt": a, "completion": f" {t}", "label": i % 2 == 0}
            for i, (a, t) in enumerate(zip(asked, texts, strict=True))
        ]
    )
    arguments = settings(KTOConfig, tmp_path, len(rows), beta=0.3, desirable_weight=1.2, undesirable_weight=0.7)
    trainer = KTOTrainer(
        copy.deepcopy(model),
        copy.deepcopy(before),
        args=arguments,
        train_dataset=data,
        processing_class=tiny_tokenizer(),
    )
    same(ours(model, kto(0.3, 1.2, 0.7), items, before), theirs(trainer))


def test_reward(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification
    from trl import RewardConfig, RewardTrainer

    tiny_model("gqa").save_pretrained(tmp_path / "base")
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=1)
    model.config.pad_token_id = 0
    rows = triples()
    trainer = RewardTrainer(
        copy.deepcopy(model),
        args=settings(RewardConfig, tmp_path, len(rows), center_rewards_coefficient=0.01),
        train_dataset=preference_set(rows),
        processing_class=tiny_tokenizer(),
    )
    same(ours(model, reward(0.01), pairs(rows)), theirs(trainer))


def concatenated(trainer: Any, model: Any, rows: list[Triple]) -> tuple[float, torch.Tensor]:
    """ORPO's and CPO's trainers on ids as they are: their own collation has no place here."""
    batch: dict[str, Any] = {}
    for name, place in (("chosen", 1), ("rejected", 2)):
        texts = [row[0] + row[place] for row in rows]
        width = max(map(len, texts))
        batch[f"{name}_input_ids"] = torch.tensor([t + [0] * (width - len(t)) for t in texts])
        batch[f"{name}_attention_mask"] = torch.tensor([[1] * len(t) + [0] * (width - len(t)) for t in texts])
        batch[f"{name}_labels"] = torch.tensor(
            [[-100] * len(r[0]) + r[place] + [-100] * (width - len(t)) for r, t in zip(rows, texts, strict=True)]
        )
    loss, _ = trainer.get_batch_loss_metrics(model, batch)
    loss.backward()
    return loss.item(), gradient(model)


def test_orpo(tmp_path: Path) -> None:
    """TRL's cross-entropy reads the prompt too; a prompt of one token, which nothing predicts, makes both the same."""
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    model, rows = tiny_model("gqa"), triples(prompt=1)
    arguments = settings(ORPOConfig, tmp_path, len(rows), beta=0.4)
    trainer = ORPOTrainer(
        copy.deepcopy(model), args=arguments, train_dataset=preference_set(rows), processing_class=tiny_tokenizer()
    )
    same(ours(model, orpo(0.4), pairs(rows)), concatenated(trainer, trainer.model, rows))


def test_simpo(tmp_path: Path) -> None:
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    model, rows = tiny_model("gqa"), triples()
    arguments = settings(CPOConfig, tmp_path, len(rows), beta=2.0, simpo_gamma=0.6, loss_type="simpo", cpo_alpha=0.0)
    trainer = CPOTrainer(
        copy.deepcopy(model), args=arguments, train_dataset=preference_set(rows), processing_class=tiny_tokenizer()
    )
    same(ours(model, simpo(2.0, 0.6), pairs(rows)), concatenated(trainer, trainer.model, rows))


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
def test_distill(beta: float) -> None:
    from trl.experimental.gkd import GKDTrainer

    model, teacher, items = tiny_model("gqa"), tiny_model("gqa", seed=5), singles(triples())
    student = copy.deepcopy(model)
    width = max(len(i.input_ids) for i in items)
    ids = torch.tensor([i.input_ids + [0] * (width - len(i.input_ids)) for i in items])
    labels = torch.tensor(
        [
            [t if on else -100 for t, on in zip(i.input_ids, i.trained, strict=True)]
            + [-100] * (width - len(i.input_ids))
            for i in items
        ]
    )
    mask = torch.arange(width)[None] < torch.tensor([[len(i.input_ids)] for i in items])
    with torch.no_grad():
        aim = teacher(ids, attention_mask=mask).logits[:, :-1]
    found = student(ids, attention_mask=mask).logits[:, :-1]
    kept = labels[:, 1:]
    loss = (
        GKDTrainer.generalized_jsd_loss(found, aim, kept, beta=beta, temperature=1.7, reduction="sum")
        / (kept != -100).sum()
    )
    loss.backward()
    register()
    teacher.set_attn_implementation(NAME)
    same(ours(model, distill(teacher, beta, 1.7), items), (loss.item(), gradient(student)))
