"""The six tasks against lm-eval's own model class and its own prompts, on real weights and rows."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval")


@pytest.fixture(scope="module")
def parity(repo_root: Path) -> Any:
    spec = importlib.util.spec_from_file_location("parity", repo_root / "benchmarks" / "parity.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore")
def test_log_likelihoods_equal_lm_eval(parity: Any, stories: Path, shared_dir: Path) -> None:
    found = parity.run(str(stories), str(shared_dir / "data"), 12, 2)
    assert found["flips"] == 0
    assert found["largest_gap"] < 1e-3
    for task in found["tasks"].values():
        assert task["fit"] == 12
        assert task["truncated"] == 2


def _yaml(name: str) -> dict[str, Any]:
    import lm_eval.tasks
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))
    root = Path(lm_eval.tasks.__file__).parent
    found: dict[str, Any] = yaml.load((root / name).read_text(), Loader)
    return found


@pytest.mark.parametrize(("task", "file"), [
    ("arc_easy", "arc/arc_easy.yaml"),
    ("truthfulqa_mc1", "truthfulqa/truthfulqa_mc1.yaml"),
    ("mmlu", "mmlu/default/_default_template_yaml"),
])  # fmt: skip
def test_prompts_equal_lm_evals_templates(task: str, file: str, shared_dir: Path) -> None:
    from lm_eval.utils import apply_template

    from tuneloop.tasks import TASKS, build_items, load_docs

    template = _yaml(file)["doc_to_text"]
    data = str(shared_dir / "data")
    docs, _ = load_docs(TASKS[task], TASKS[task].scored, data)
    items = build_items(TASKS[task], data=data).items
    for doc, item in list(zip(docs, items, strict=True))[:300]:
        head = TASKS[task].head
        assert item.prompt == (head(item) if head else "") + apply_template(template, doc)


def test_hellaswag_rows_are_cleaned_as_lm_eval_does() -> None:
    from lm_eval.tasks.hellaswag.utils import preprocess

    from tuneloop.tasks.hellaswag import clean

    for text in ("[header] How to x [title] Do [step] it.  Now", " [substeps] a [title] b", "plain  text", ""):
        assert clean(text) == preprocess(text)
