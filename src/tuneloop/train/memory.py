"""How much memory a step takes, counted before anything is loaded.

The step itself runs on tensors without numbers (torch's FakeTensorMode): the same model code, objective and optimiser,
and a ledger of every block that lives at each moment. So there is no formula to go stale when a kernel changes. What
the ledger cannot see is the process itself (interpreter, libraries) and the allocator's waste; both are stated terms.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tuneloop.config import TrainConfig
from tuneloop.models import load_shape
from tuneloop.train.activations import keeping, recompute
from tuneloop.train.attention import NAME, register, why_not
from tuneloop.train.batch import Item
from tuneloop.train.methods import adapter, freeze
from tuneloop.train.objectives import build
from tuneloop.train.objectives.tokens import suppose_plain
from tuneloop.train.optim import Optimizer
from tuneloop.train.state import State, Trainer
from tuneloop.train.step import take_step

KINDS = ("weights", "adapters", "gradients", "optimizer", "scores", "activations")
# Deeper models are counted at these two depths and continued in a line: every layer adds the same.
DEPTHS = (4, 8)
# Memory over the blocks that come and go within a step (on CUDA: over all that is alive), fitted by
# benchmarks/plan_memory.py (see its dated results) on glibc's malloc. CUDA's caching allocator: not measured here.
WASTE = {"cpu": 1.38, "cuda": 1.08, "mps": 1.38}
LIBRARIES = 100 << 20  # what a process grows by when it loads its first model, besides the weights
ROOM = 0.85  # of what is free may be planned for; the rest is for what else the machine does


@dataclass
class Ledger:
    """Bytes alive now and at the peak, by kind; and the most that each kind, and all that comes and goes, ever had."""

    now: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    peak: dict[str, int] = field(default_factory=dict)
    most: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    total: int = 0
    highest: int = 0
    moving: int = 0

    def add(self, kind: str, count: int) -> None:
        self.now[kind] += count
        self.total += count
        self.most[kind] = max(self.most[kind], self.now[kind])
        self.moving = max(self.moving, self.now["scores"] + self.now["activations"])
        if self.total > self.highest:
            self.highest, self.peak = self.total, dict(self.now)

    def begin(self) -> None:
        """Peaks are those from here on."""
        self.highest, self.peak, self.most = self.total, dict(self.now), dict(self.now)
        self.moving = self.now["scores"] + self.now["activations"]

    def coming(self) -> int:
        """The most of the scores and the most of the activations, though they are not there at one time.

        A heap keeps what each had: where a large block was, small ones settle, and the next large one does not fit
        there. What stays (weights, states) is made once and wastes nothing.
        """
        return max(self.moving, self.most["scores"] + self.most["activations"])


class _Watch(TorchDispatchMode):
    """Enters every storage that an operation makes, and strikes it out when the last tensor on it is gone."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ledger, self.vocabulary = Ledger(), vocabulary
        self.kinds: dict[int, str] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = _without_numbers(func, args, kwargs or {})
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                scores = leaf.ndim >= 2 and leaf.shape[-1] == self.vocabulary
                self._enter(leaf, "scores" if scores else "activations")
        return out

    def _enter(self, tensor: torch.Tensor, kind: str) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self.kinds:
            self.kinds[key] = kind
            self.ledger.add(kind, storage.nbytes())
            weakref.finalize(storage, self._leave, key, storage.nbytes())

    def _leave(self, key: int, count: int) -> None:
        self.ledger.add(self.kinds.pop(key), -count)

    def rename(self, tensors: Sequence[torch.Tensor | None], kind: str) -> None:
        """From now on these blocks count as `kind`."""
        for tensor in tensors:
            if tensor is None:
                continue
            storage = tensor.untyped_storage()
            before = self.kinds.get(storage._cdata)
            if before is not None and before != kind:
                self.ledger.add(before, -storage.nbytes())
                self.kinds[storage._cdata] = kind
                self.ledger.add(kind, storage.nbytes())


def _without_numbers(func: Any, args: Any, kwargs: Any) -> Any:
    """The operation, or a stand-in where its result's shape or value depends on numbers that are not there."""
    aten = torch.ops.aten
    if func is aten._local_scalar_dense.default:
        return True if args[0].dtype == torch.bool else 1.0
    if func is aten._unique2.default:  # as many as there can be
        return args[0].new_empty(args[0].numel()), torch.zeros_like(args[0]), args[0].new_empty(0)
    if func is aten.bincount.default:
        least = kwargs.get("minlength", args[2] if len(args) > 2 else 0)
        return torch.zeros(max(1, least), dtype=torch.long)
    return func(*args, **kwargs)


def count(shape: Any, config: TrainConfig, dtype: torch.dtype, items: list[Item], *, packing: bool) -> dict[str, int]:
    """Bytes at the peak of the second step over `items`, by KINDS; 'coming': `Ledger.coming`; 'loading': the weights
    while they load.

    `shape` is the model's config. Raises RuntimeError where the model's code asks for numbers.
    """
    layers = int(shape.get_text_config().num_hidden_layers)
    if layers <= DEPTHS[1] or config.devices > 1:
        return _count(shape, config, dtype, items, packing=packing)
    few, more = (_count(_at_depth(shape, n), config, dtype, items, packing=packing) for n in DEPTHS)
    step = (layers - DEPTHS[1]) / (DEPTHS[1] - DEPTHS[0])
    return {kind: round(more[kind] + (more[kind] - few[kind]) * step) for kind in more}


def _at_depth(shape: Any, layers: int) -> Any:
    found = type(shape).from_dict(shape.to_dict())
    found.num_hidden_layers = layers
    if getattr(found, "layer_types", None):
        found.layer_types = found.layer_types[:layers]
    return found


def _count(shape: Any, config: TrainConfig, dtype: torch.dtype, items: list[Item], *, packing: bool) -> dict[str, int]:
    from torch._subclasses.fake_tensor import FakeTensorMode

    register()
    watch = _Watch(int(shape.get_text_config().vocab_size))
    with torch.device("meta"):
        network, teacher = _bare(shape, config, dtype), _teacher(config, dtype)
        packing = packing and not why_not(network, max(len(item.input_ids) for item in items))
        for model in (network, teacher) if packing else ():
            if model is not None:
                model.set_attn_implementation(NAME)
        saved = _saved_by_four_bits(network) if config.load_in_4bit else 0
        base = {id(p) for p in network.parameters()}
        if config.method != "full":
            network = adapter(network, config)
        adapters = [name for name, p in network.named_parameters() if id(p) not in base]
    with FakeTensorMode(allow_non_fake_inputs=True), watch:
        for model in (network, teacher):
            if model is not None:
                _materialise(model)
                watch.rename(list(model.parameters()), "weights")
                suppose_plain(model)
        weights = dict(network.named_parameters())
        loading = 2 * watch.ledger.now["weights"]  # the file's pages and the copy
        watch.rename([weights[name] for name in adapters], "adapters")
        freeze(network, config.freeze)
        recompute(network, config)
        objective = build(config, teacher)
        trainer = Trainer(network, config, items, [], Path("."), 1e-4, packing, 0, objective)
        trainer.keeping = keeping(network, config)
        if objective.before:
            objective.before(network, items, trainer.passes)
        optimizer = Optimizer(network, config, 1e-4)
        _name_gradients(watch, optimizer)
        for _ in range(2):
            watch.ledger.begin()
            take_step(trainer, optimizer, State(), items, 10)
            watch.rename(list(optimizer.tensors().values()), "optimizer")
            watch.rename([p for name, p in weights.items() if name not in adapters], "weights")
            watch.rename([weights[name] for name in adapters], "adapters")
    peak = {**watch.ledger.peak, "loading": loading, "coming": watch.ledger.coming()}
    return {**peak, "weights": peak["weights"] - saved}


def _bare(shape: Any, config: TrainConfig, dtype: torch.dtype) -> Any:
    """The model of a shape, on the device that is on."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    if config.objective != "reward":
        return AutoModelForCausalLM.from_config(shape, dtype=dtype)
    found = type(shape).from_dict({**shape.to_dict(), "num_labels": 1, "pad_token_id": 0})
    return AutoModelForSequenceClassification.from_config(found, dtype=dtype)


def _teacher(config: TrainConfig, dtype: torch.dtype) -> Any:
    if config.teacher is None:
        return None
    from transformers import AutoModelForCausalLM

    found = AutoModelForCausalLM.from_config(load_shape(config.teacher), dtype=dtype)
    return found.requires_grad_(False)


def _saved_by_four_bits(network: Any) -> int:
    """Bytes that the linear layers inside the decoder need less as NF4: 4 bits and 0.127 for the constants a weight."""
    head = network.get_output_embeddings()
    layers = [m for m in network.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    return round(sum(m.weight.numel() * (m.weight.element_size() - 0.516) for m in layers))


def _materialise(network: Any) -> None:
    """Gives a network from the meta device blocks in the mode that is on; tied weights stay tied."""
    made: dict[int, torch.nn.Parameter] = {}
    for module in network.modules():
        for name, weight in module._parameters.items():
            if weight is None:
                continue
            if id(weight) not in made:
                empty = torch.empty(weight.shape, dtype=weight.dtype)
                made[id(weight)] = torch.nn.Parameter(empty, requires_grad=weight.requires_grad)
            module._parameters[name] = made[id(weight)]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


def _name_gradients(watch: _Watch, optimizer: Optimizer) -> None:
    """Has each gradient renamed as it is made, before the next block can set a peak; behind the optimiser's hooks."""
    for place, (_, weight) in enumerate(optimizer.weights):
        weight.register_post_accumulate_grad_hook(
            lambda w, place=place: watch.rename([w.grad, optimizer.masters[place].grad], "gradients")
        )


def peak(counted: dict[str, int], base: int, device: str) -> int:
    """Bytes at the worst moment: `base` for the process itself, and the blocks with the allocator's waste."""
    if device == "cuda":
        return base + round(max(sum(counted[kind] for kind in KINDS) * WASTE[device], counted["loading"]))
    stays = counted["weights"] + counted["adapters"] + counted["optimizer"]
    moves = counted["coming"] + counted["gradients"]
    return base + LIBRARIES + round(max(stays + moves * WASTE[device], counted["loading"]))


def corrected(alone: int, one: int, probed: int) -> int:
    """Bytes foretold for a pass counted as `alone`, after a probe that took `probed` where `one` was counted.

    The mean of two estimates: the count, and the probe with the counted growth. Malloc wastes another share of a small
    pass than of a large one, so what the probe is off by holds for a large pass only in part.
    """
    return alone + (probed - one) // 2


def recommend(step: int, expect: Callable[[int], int], room: int) -> int:
    """The largest divisor of the step that fits: the examples of a step, and so the result, stay the same."""
    sizes = [size for size in range(1, step + 1) if step % size == 0]
    low, high = 0, len(sizes) - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if expect(sizes[middle]) <= room else (low, middle - 1)
    return sizes[low]


def resident_bytes() -> int:
    """Memory of this process now."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def peak_bytes(device: torch.device) -> int:
    """The most this process ever had: of the allocator on CUDA, resident elsewhere."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device))
    import resource
    import sys

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def free_bytes(device: str) -> int:
    """What a new process can have: of the device on CUDA, of the machine or its control group elsewhere."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    import psutil

    free = int(psutil.virtual_memory().available)
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and used.is_file() and limit.read_text().strip().isdigit():
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return free
