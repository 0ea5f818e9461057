"""Every string that lm-eval's own task objects send, for every local row, against ours.

    python benchmarks/strings.py --data FOLDER [--rows N] [--only mmlu@5 ...]

lm-eval's stock YAML files are loaded as they are, only their rows come from the folder. Prints one JSON object; without
--rows it also goes, dated, to benchmarks/results/, where the cells of several calls come together.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Doc = dict[str, Any]
# name, shots, the stock file; {} stands for a subject
CELLS = (
    ("arc_easy", 0, "arc/arc_easy.yaml"),
    ("arc_challenge", 0, "arc/arc_challenge.yaml"),
    ("arc_challenge", 25, "arc/arc_challenge.yaml"),
    ("mmlu", 0, "mmlu/default/mmlu_{}.yaml"),
    ("mmlu", 5, "mmlu/default/mmlu_{}.yaml"),
    ("truthfulqa_mc1", 0, "truthfulqa/truthfulqa_mc1.yaml"),
    ("truthfulqa_mc2", 0, "truthfulqa/truthfulqa_mc2.yaml"),
    ("truthfulqa_gen", 0, "truthfulqa/truthfulqa_gen.yaml"),
    ("hellaswag", 0, "hellaswag/hellaswag.yaml"),
    ("hellaswag", 4, "hellaswag/hellaswag.yaml"),
)


def stock(file: str, rows: Callable[[str], list[Doc]], splits: tuple[str, ...], shots: int, clean: bool) -> Any:
    """lm-eval's task of a stock file over our rows; `clean` rows went through its clean-up already."""
    import datasets
    import lm_eval.tasks
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    config = dict(load_yaml(Path(lm_eval.tasks.__file__).parent / file))
    for key in ("dataset_path", "dataset_name", "tag", "task_alias", "group"):
        config.pop(key, None)
    if clean:
        config.pop("process_docs")
    config["custom_dataset"] = lambda **_: {s: datasets.Dataset.from_list(rows(s)) for s in splits}
    task = ConfigurableTask(config=config | {"num_fewshot": shots})
    task.set_fewshot_seed(1234)  # what simple_evaluate does
    return task


def sent(task: Any, limit: int | None) -> Iterator[list[tuple[Any, ...]]]:
    """The arguments of every request, by document."""
    task.build_all_requests(limit=limit, rank=0, world_size=1)
    by: dict[int, list[tuple[Any, ...]]] = {}
    for instance in task.instances:
        by.setdefault(instance.doc_id, []).append(instance.args)
    yield from (by[i] for i in sorted(by))


def compare(name: str, shots: int, file: str, data: str, limit: int | None) -> dict[str, Any]:
    """Rows, strings and how many differ; the first difference is shown."""
    from tuneloop.tasks import TASKS, Shots, build_items, load_docs

    task = TASKS[name]
    splits = tuple(s for s in {task.scored, task.shots_from} if s)
    docs = {s: load_docs(task, s, data)[0] for s in splits}
    if name == "hellaswag":  # the local copy is clean: lm-eval's own step from raw rows is checked in the tests
        docs = {s: [{"query": d["query"], "choices": d["choices"], "label": d["gold"]} for d in v]
                for s, v in docs.items()}  # fmt: skip
    if name == "truthfulqa_gen":  # a list without answers has no type of its own
        docs = {s: [{**d, "incorrect_answers": d["incorrect_answers"] or [""]} for d in v] for s, v in docs.items()}
    items = iter(build_items(task, Shots(shots, "lm-eval"), data=data, limit=None).items)
    parts: list[tuple[str, str]] = [("", file)]
    if task.by_category:
        parts = [(s, file.format(s)) for s in dict.fromkeys(d["subject"] for d in docs[task.scored])]
    rows = strings = differ = 0
    first: Any = None
    for subject, path in parts:
        own = {s: [d for d in v if not subject or d["subject"] == subject] for s, v in docs.items()}
        found = stock(path, own.__getitem__, tuple(own), shots, name == "hellaswag")
        for calls, _ in zip(sent(found, limit), own[task.scored], strict=limit is None):
            item = next(items)
            if task.grade is not None:
                mine = [item.prompt]
                theirs = [call[0] for call in calls]
                same_stop = all(tuple(call[1]["until"]) == task.stop for call in calls)
                assert same_stop, calls[0][1]
            else:
                mine = [item.prompt + f"\0 {option}" for option in item.options]
                theirs = [f"{call[0]}\0{call[1]}" for call in calls]
            rows, strings = rows + 1, strings + len(theirs)
            if mine != theirs:
                differ += 1
                first = first or next((pair for pair in zip(mine, theirs, strict=False) if pair[0] != pair[1]), None)
        if limit and subject:
            for _ in own[task.scored][limit:]:
                next(items)
    return {"rows": rows, "strings": strings, "differ": differ} | ({"first": first} if first else {})


def sample(data: str) -> dict[str, Any]:
    """The 1,000 HellaSwag rows of the OLMo sample against the clean copy: prompts equal but for repeated dots and
    blanks, which their source collapsed; endings equal but for the leading blank that the copy lost."""
    from tuneloop.tasks import TASKS, read_docs

    task = TASKS["hellaswag"]
    by = {tuple(_plain(e.strip()) for e in d["choices"]): task.item(d)
          for d in read_docs(f"{data}/hellaswag/validation_clean.jsonl.gz")}  # fmt: skip
    rows = read_docs(f"{data}/hellaswag/olmo_sample_1000.jsonl.gz")
    missing = differ = blanks = 0
    for doc in rows:
        theirs = task.item(doc)
        mine = by.get(tuple(_plain(e.strip()) for e in theirs.options))
        missing += mine is None
        if mine is not None:
            differ += _plain(mine.prompt) != _plain(theirs.prompt) or mine.gold != theirs.gold
            blanks += [_plain(e) for e in mine.options] != [_plain(e) for e in theirs.options]
    return {"rows": len(rows), "missing": missing, "differ": differ, "rows_with_a_lost_blank": blanks}


def _plain(text: str) -> str:
    return re.sub(r"([. ])(?:\s*\1)+", r"\1", text)


def run(data: str, limit: int | None = None, cells: Any = CELLS) -> dict[str, Any]:
    import logging

    from tuneloop import console

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    console.set_mode(quiet=True)
    found = {f"{name}@{shots}": compare(name, shots, file, data, limit) for name, shots, file in cells}
    return found | {"hellaswag sample": sample(data)}


def keep(cells: dict[str, Any]) -> None:
    """Puts the cells into the result file of today."""
    today = datetime.date.today().isoformat()
    path = Path(__file__).parent / "results" / f"{today}-strings.json"
    path.parent.mkdir(exist_ok=True)
    before = json.loads(path.read_text())["cells"] if path.is_file() else {}
    head = {"benchmark": "strings", "date": today, "lm_eval": importlib.metadata.version("lm_eval")}
    path.write_text(json.dumps({**head, "cells": before | cells}, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--rows", type=int, help="first rows of a task, or of each subject; default: all")
    parser.add_argument("--only", nargs="+", help="task@shots, as the result names them; default: all")
    asked = parser.parse_args()
    chosen = [cell for cell in CELLS if not asked.only or f"{cell[0]}@{cell[1]}" in asked.only]
    found = run(asked.data, asked.rows, chosen)
    if asked.rows is None:
        keep(found)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
