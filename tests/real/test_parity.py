"""The six tasks against lm-eval's own model class and its own prompts, on real weights and rows."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval")


def _script(root: Path, name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, root / "benchmarks" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore")
def test_log_likelihoods_equal_lm_eval(repo_root: Path, stories: Path, shared_dir: Path) -> None:
    found = _script(repo_root, "parity").run(str(stories), str(shared_dir / "data"), 12, 2)
    assert found["flips"] == 0
    assert found["largest_gap"] < 1e-3
    for task in found["tasks"].values():
        assert task["fit"] == 12
        assert task["truncated"] == 2


@pytest.mark.filterwarnings("ignore")
def test_strings_equal_those_of_lm_evals_own_tasks(repo_root: Path, shared_dir: Path) -> None:
    """A few rows of every task (of every subject) and at leaderboard shots; benchmarks/strings.py does all rows."""
    found = _script(repo_root, "strings").run(str(shared_dir / "data"), 2)
    sample = found.pop("hellaswag sample")
    assert (sample["rows"], sample["missing"], sample["differ"]) == (1000, 0, 0)
    assert found["mmlu@5"]["rows"] == 57 * 2
    assert {name: cell["differ"] for name, cell in found.items()} == dict.fromkeys(found, 0)


RAW = [
    {"activity_label": "Health", "ctx_a": "[header] How to x [title] Do [step] it.  Now", "ctx_b": "", "label": "1",
     "endings": [" [substeps] a [title] b", "plain  text", "[step] One. [title] Two.", ""]},
    {"activity_label": "Sailing", "ctx_a": "A boat is seen.", "ctx_b": "the MAN [laughs] and", "label": "3",
     "endings": ["goes.", "  stays", "[title] ends", "a [b] c [d]"]},
]  # fmt: skip


def test_raw_hellaswag_rows_are_cleaned_as_lm_eval_does() -> None:
    import datasets
    from lm_eval.tasks.hellaswag.utils import process_docs

    from tuneloop.tasks import TASKS

    theirs = process_docs(datasets.Dataset.from_list(RAW))
    for doc, other in zip(RAW, theirs, strict=True):
        item = TASKS["hellaswag"].item(doc)
        assert (item.prompt, item.options, item.gold) == (other["query"], other["choices"], [other["gold"]])


def test_generated_answers_are_graded_as_lm_eval_does(shared_dir: Path) -> None:
    from lm_eval.tasks.truthfulqa.utils import preprocess_function, process_results_gen

    from tuneloop.tasks import TASKS, load_docs

    task = TASKS["truthfulqa_gen"]
    assert task.grade is not None
    docs, _ = load_docs(task, "validation", str(shared_dir / "data"))
    for number, doc in enumerate(docs[:15]):
        said = ["I have no comment.", doc["best_answer"], "No . It is\nthe " + doc["question"]][number % 3]
        theirs = process_results_gen(preprocess_function(doc), [said])
        mine = task.grade(said, task.item(doc))
        assert {name: mine[name] for name in theirs} == pytest.approx(theirs, abs=1e-9)
