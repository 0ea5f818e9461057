"""Who is measured: the base under several prompts, and tunes. What is chosen is chosen on train and valid rows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tuneloop.config import CompareConfig, EvalConfig, ModelConfig
from tuneloop.errors import UsageError
from tuneloop.evaluate.prompting import Prompting
from tuneloop.evaluate.run import Loaded
from tuneloop.evaluate.search import best_tune, instruction_for, search
from tuneloop.evaluate.split import check_folder
from tuneloop.store import read_json

PROMPTS = (
    "base", "instructions", "few_shot", "few_shot_retrieved", "chain_of_thought", "self_consistency", "prompt_search",
)  # fmt: skip
DEFAULT_SHOTS = 5
SEARCHES = ("search", "choice")  # folders that `resolve` writes below `out`, beside those of the contenders


@dataclass(frozen=True)
class Contender:
    """A model and how it is asked. `benchmarks`: also scored on tasks; prompts for the user's rows are not."""

    name: str
    model: ModelConfig
    prompting: Prompting = field(default_factory=Prompting)
    tuned: bool = False
    benchmarks: bool = True
    train_seconds: float | None = None
    chosen_from: int = 1  # prompts or tunes that were tried on valid rows for this one


def tune_config(base: ModelConfig, folder: Path | str) -> ModelConfig:
    """A tune brings its own template, which was saved with it."""
    return ModelConfig(name=str(folder), dtype=base.dtype, device=base.device)


def resolve(
    config: EvalConfig, compare: CompareConfig, model: ModelConfig, tunes: dict[str, Path], out: Path,
    *, data: Path | None, loaded: Loaded, overwrite: bool = False,
) -> list[Contender]:  # fmt: skip
    """The contenders that `compare.contenders` names, in that order; searches write below `out`.

    Raises UsageError 157 for a contender that needs a data folder, a tune or a model in this process, and has none; 126
    for a tune whose name is no folder of its own.
    """
    if tunes:
        check_names(list(tunes))
    kinds = list(dict.fromkeys(compare.contenders)) or _all(data, tunes, bool(model.base_url))
    if "prompt_search" in kinds and model.base_url:
        raise _missing("prompt_search", "a model in this process", "leave it out, or give a model folder")
    if data is not None:
        check_folder(data)
    needs_data = [k for k in kinds if k not in ("base", "few_shot", "tune")]
    if needs_data and data is None:
        raise _missing(needs_data[0], "a data folder", "give --data")
    tuned = {name: tune_config(model, folder) for name, folder in tunes.items()}
    found: list[Contender] = []
    for kind in kinds:
        if kind in ("tune", "best_tune", "tune_prompted") and not tuned:
            raise _missing(kind, "a tune", "give --tune, or compare.tunes")
        if kind == "tune":
            found += [_tune(name, one) for name, one in tuned.items()]
        elif kind == "best_tune" and data is not None:
            name = best_tune(config, tuned, data, out / "choice", loaded, overwrite=overwrite)
            found.append(replace(_tune(name, tuned[name]), chosen_from=len(tuned)))
        elif kind == "tune_prompted":
            found.append(_prompted(found, config, tuned))
        elif kind == "prompt_search" and data is not None:
            prompting = search(config, compare, model, data, out / "search", loaded, overwrite=overwrite)
            tried = len(read_json(out / "search" / "search.json")["rounds"][0]["scores"])
            found.append(Contender(kind, model, prompting, benchmarks=False, chosen_from=tried))
        else:
            found.append(_plain(kind, config, compare, model, data))
    return found


def check_names(names: list[str]) -> None:
    """UsageError 126 unless every contender has a name, and so a folder, of its own."""
    taken = next((name for name in names if name in SEARCHES), None)
    if taken:
        raise UsageError(
            126, f"a contender cannot be called '{taken}': what is chosen on valid rows is kept there",
            where="contenders", cure="give it another name",
        )  # fmt: skip
    if len(set(names)) != len(names) or not names or any(Path(name).name != name for name in names):
        raise UsageError(
            126, "contenders need names of their own", where="contenders",
            expected="one or more, each fit to name a folder",
        )  # fmt: skip


def _all(data: Path | None, tunes: dict[str, Path], server: bool) -> list[Any]:
    if data is None:
        return ["base", "few_shot", *(["tune"] if tunes else [])]
    own = [] if not tunes else ["tune", "tune_prompted"] if len(tunes) == 1 else ["best_tune", "tune_prompted"]
    return [*(p for p in PROMPTS if not (server and p == "prompt_search")), *own]


def _missing(kind: str, what: str, cure: str) -> UsageError:
    return UsageError(157, f"the contender '{kind}' needs {what}", where="compare.contenders", cure=cure)


def _plain(kind: str, config: EvalConfig, compare: CompareConfig, model: ModelConfig, data: Path | None) -> Contender:
    shots, seed = config.few_shot or DEFAULT_SHOTS, config.seed
    if kind == "base":
        return Contender(kind, model)
    if kind == "few_shot":
        return Contender(kind, model, Prompting(shots=shots, shot_seed=seed))
    instruction = compare.instruction or (instruction_for(data) if data else "")
    prompting = {
        "instructions": Prompting(instruction=instruction),
        "few_shot_retrieved": Prompting(shots=shots, retrieved=True),
        "chain_of_thought": Prompting(instruction=instruction, thinks=True),
        "self_consistency": Prompting(instruction=instruction, thinks=True, samples=compare.samples),
    }[kind]
    return Contender(kind, model, prompting, benchmarks=False)


def _tune(name: str, model: ModelConfig) -> Contender:
    manifest = Path(model.name) / "manifest.json"
    seconds = read_json(manifest).get("seconds") if manifest.is_file() else None
    return Contender(name, model, tuned=True, train_seconds=float(seconds) if seconds else None)


def _prompted(found: list[Contender], config: EvalConfig, tuned: dict[str, ModelConfig]) -> Contender:
    """A tune under the prompt that the search found, else with retrieved shots: whether both together do more."""
    tune = next((c for c in found if c.tuned), None) or _tune(*next(iter(tuned.items())))
    searched = next((c.prompting for c in found if c.name == "prompt_search"), None)
    prompting = searched if searched and searched != Prompting() else None
    prompting = prompting or Prompting(shots=config.few_shot or DEFAULT_SHOTS, retrieved=True)
    return replace(tune, name=f"{tune.name}_prompted", prompting=prompting, benchmarks=False)
