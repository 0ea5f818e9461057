"""Finding and loading models."""

from __future__ import annotations

import os
import warnings
from functools import cache
from pathlib import Path
from typing import Any

from tuneloop.console import say
from tuneloop.errors import PrerequisiteError, UsageError, nearest
from tuneloop.store import read_json

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def key(name: str) -> str:
    """How local copies are named: last part, lower case, - and _ equal."""
    return name.rstrip("/").split("/")[-1].lower().replace("_", "-")


@cache
def _announce(name: str, folder: Path) -> None:
    """Once for each process: a comparison looks its models up again and again."""
    say(f"local copy of {name}: {folder}")


def locate(name: str) -> str:
    """A folder for `name` where there is one (a path, 'world', a local copy), else `name` itself for the hub."""
    if name == "world":
        folder = Path(__file__).parent.parent / "world" / "base"
        if not (folder / "config.json").is_file():
            raise PrerequisiteError(
                201, "the shipped base model is missing", where=str(folder), cure="reinstall tuneloop"
            )
        return str(folder)
    if Path(name).is_dir():
        return name
    root = os.environ.get("TUNELOOP_MODELS")
    if root and Path(root).is_dir():
        for folder in sorted(Path(root).iterdir()):
            if folder.is_dir() and key(folder.name) == key(name):
                _announce(name, folder)
                return str(folder)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise PrerequisiteError(202, f"no such model folder: {name}", cure="check the path")
    return name


def _check(folder: Path) -> None:
    names = [p.name for p in folder.iterdir()]
    if "config.json" not in names and "adapter_config.json" not in names:
        raise PrerequisiteError(
            203, "not a model folder", where=str(folder), expected="config.json or adapter_config.json"
        )
    weights = [n for n in names if n.endswith(".safetensors")]
    if "adapter_config.json" in names and "config.json" not in names:
        # PEFT would take the pickle where this very name is missing.
        weights = [n for n in weights if n == "adapter_model.safetensors"]
    pickles = [
        n for n in names if n.endswith(PICKLES) and n not in ("training_args.bin", "optimizer.pt", "scheduler.pt")
    ]
    if not weights:
        what = f"the weights are pickled ({pickles[0]})" if pickles else "no weights"
        raise PrerequisiteError(
            204,
            what,
            where=str(folder),
            expected="*.safetensors: a pickle can run code when it is opened",
            cure="convert it with safetensors on a machine you trust, or take the safetensors revision",
        )


def _pretrained(loader: Any, name: str, **settings: Any) -> Any:
    from transformers.utils import logging

    logging.disable_progress_bar()  # weights are read in a moment, and its bar knows nothing of --quiet
    target = locate(name)
    if Path(target).is_dir():
        return _from_folder(loader, target, **settings)
    try:
        return loader.from_pretrained(target, trust_remote_code=False, **settings)
    except (OSError, ValueError) as error:
        root = os.environ.get("TUNELOOP_MODELS")
        near = nearest(key(name), [p.name for p in Path(root).iterdir()]) if root and Path(root).is_dir() else ""
        raise PrerequisiteError(
            207,
            f"unknown model '{name}' ({type(error).__name__})",
            where="not a folder, no local copy, and not reachable on the hub",
            expected=near or "a folder, a hub name, or 'world'",
            cure="check the name, go online, or set TUNELOOP_MODELS to a folder of local copies",
        ) from error


def load_shape(name: str, revision: str | None = None) -> Any:
    """A model's config, without its weights. Raises PrerequisiteError 207 and 208."""
    from transformers import AutoConfig

    return _pretrained(AutoConfig, name, revision=revision or "main")


def _from_folder(loader: Any, folder: str, **settings: Any) -> Any:
    """Loads a folder; what is broken in it becomes a coded error that names the folder."""
    from safetensors import SafetensorError

    revision = settings.pop("revision", None)
    if revision not in (None, "main"):
        say(f"revision {revision} is of the hub; {folder} is taken as it is")
    try:
        return loader.from_pretrained(folder, trust_remote_code=False, local_files_only=True, **settings)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise PrerequisiteError(
            208,
            f"cannot load: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            where=folder,
            expected="the files that save_pretrained writes, whole",
            cure="copy or download the folder again",
        ) from error


def _base_of(folder: Path) -> tuple[str, str]:
    """Name and revision of the base of an adapter folder."""
    found = read_json(folder / "adapter_config.json")
    base = found.get("base_model_name_or_path")
    if not base:
        raise PrerequisiteError(
            209,
            "the adapter does not name its base",
            where=str(folder / "adapter_config.json"),
            expected="base_model_name_or_path",
        )
    return str(base), str(found.get("revision") or "main")


def load_tokenizer(name: str, *, revision: str | None = None) -> Any:
    """The tokenizer of a model, adapter or hub name; the template saved with a tune comes along.

    An adapter folder without a tokenizer has its base's.
    """
    from transformers import AutoTokenizer

    folder = Path(locate(name))
    if (folder / "adapter_config.json").is_file() and not (folder / "tokenizer_config.json").is_file():
        name, revision = _base_of(folder)
    return _pretrained(AutoTokenizer, name, revision=revision or "main")


def load_model(
    name: str,
    *,
    dtype: str = "auto",
    device: str = "auto",
    revision: str | None = None,
    kind: str = "causal",
    load_in_4bit: bool = False,
) -> Any:
    """A causal language model in eval mode; a folder with an adapter is loaded over its base.

    `kind` "reward": a classifier with one label over the same decoder. `load_in_4bit`: linear layers in NF4.
    Only safetensors, never remote code. Raises PrerequisiteError 201-204, 207-209 and 265.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    target = Path(locate(name))
    chosen = torch.device(pick_device(device))
    # PEFT 0.21 reads a property that transformers 5 renamed; a user can do nothing about it.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
    settings = {"dtype": pick_dtype(dtype, chosen.type), "use_safetensors": True}
    if load_in_4bit:
        settings |= _four_bits(settings["dtype"], chosen)
    loader: Any = AutoModelForCausalLM
    if kind == "reward":
        loader, settings["num_labels"] = AutoModelForSequenceClassification, 1
    if target.is_dir():
        _check(target)
        if (target / "adapter_config.json").is_file():
            from peft import PeftModel

            base, at = _base_of(target)
            if Path(locate(base)).is_dir():
                _check(Path(locate(base)))
            model = _pretrained(loader, base, revision=at, **settings)
            return PeftModel.from_pretrained(model, str(target), use_safetensors=True).to(chosen).eval()
    return _pretrained(loader, name, revision=revision or "main", **settings).to(chosen).eval()


def plain_attention(network: Any) -> str:
    """The attention that reads masks and caches: torch's, or 'eager' for a model that caps or shifts its scores."""
    return "sdpa" if getattr(network, "_supports_sdpa", False) else "eager"


def _four_bits(dtype: Any, device: Any) -> dict[str, Any]:
    """NF4 with quantised constants (Dettmers et al. 2023)."""
    import importlib.util

    if device.type == "mps" or importlib.util.find_spec("bitsandbytes") is None:
        raise PrerequisiteError(
            265,
            f"4-bit weights do not run here ({'on ' + device.type if device.type == 'mps' else 'no bitsandbytes'})",
            where="train.load_in_4bit",
            expected="a CPU or a CUDA device, and the package bitsandbytes",
            cure="pip install bitsandbytes, or --set train.load_in_4bit=false",
        )
    from transformers import BitsAndBytesConfig

    settings = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    return {"quantization_config": settings, "device_map": {"": str(device)}}


def load_random(config: str | Path, *, seed: int = 0) -> Any:
    """A model of the shape that a config.json (or its folder) describes, with random float32 weights from `seed`."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = _from_folder(AutoConfig, str(config))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(shape, dtype=torch.float32).eval()


def pick_device(device: str) -> str:
    """The device that is asked for, or the best there is. Raises UsageError 216, PrerequisiteError 217."""
    import torch

    if device != "auto":
        _check_device(device)
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _check_device(device: str) -> None:
    import torch

    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda", "mps") or not (number.isdecimal() or device == kind):
        raise UsageError(
            216, f"unknown device '{device}'", where="train.device or model.device",
            expected="auto, cpu, cuda, cuda:N or mps",
        )  # fmt: skip
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}[kind]
    if int(number or 0) >= there:
        raise PrerequisiteError(
            217, f"there is no device '{device}' here: torch {torch.__version__} sees {there} of its kind",
            where="train.device or model.device", cure="leave it at auto, or install the torch build of your device",
        )  # fmt: skip


def pick_dtype(dtype: str, device: str) -> Any:
    """float32 where nothing else is asked, but bfloat16 on CUDA, which has it natively."""
    import torch

    if dtype == "auto":
        return torch.bfloat16 if device == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if dtype not in known:
        raise UsageError(210, f"unknown dtype '{dtype}'", where="model.dtype", expected="auto, float32 or bfloat16")
    return known[dtype]


def why_dtype(dtype: str, device: str) -> str:
    """The choice of `pick_dtype` and its reason, for manifests and logs."""
    chosen = str(pick_dtype(dtype, device)).removeprefix("torch.")
    if dtype != "auto":
        return f"{chosen}: asked for"
    return f"{chosen}: {'native on this CUDA device' if chosen == 'bfloat16' else f'the exact choice on {device}'}"


def context_length(model: Any, tokenizer: Any) -> int:
    """Positions the model was made for."""
    for name in ("max_position_embeddings", "n_positions", "n_ctx", "seq_length"):
        value = getattr(model.config, name, None)
        if isinstance(value, int):
            return value
    limit = getattr(tokenizer, "model_max_length", None)
    return int(limit) if limit and limit < 10**9 else 2048


def eos_ids(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end a generation: those of the generation config and the tokenizer's own."""
    listed = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    found = listed if isinstance(listed, list) else [listed]
    return sorted({i for i in [*found, tokenizer.eos_token_id] if i is not None})
