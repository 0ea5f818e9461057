"""Our scorer as a model of lm-eval (extra `lm-eval`), so that all of its tasks run on it."""

from __future__ import annotations

from typing import Any

from tuneloop.errors import PrerequisiteError
from tuneloop.lm import generate
from tuneloop.scoring.pairs import Pair, pair_tokens, prefix_token
from tuneloop.scoring.score import Scorer

MAX_NEW_TOKENS = 256  # lm-eval's default


def harness_model(scorer: Scorer, tokenizer: Any) -> Any:
    """An `lm_eval.api.model.LM` over `scorer`. PrerequisiteError 261 where lm-eval is not installed."""
    try:
        from lm_eval.api.model import LM
    except ImportError as error:
        raise PrerequisiteError(
            261, "lm-eval is not installed", where="a task lm-eval:NAME", cure="pip install 'tuneloop[lm-eval]'"
        ) from error

    class Shared(LM):  # type: ignore[misc]
        """Requests with the same context are one question: what they share is computed once."""

        tokenizer_name = str(getattr(tokenizer, "name_or_path", ""))

        def loglikelihood(self, requests: list[Any], **_: Any) -> list[tuple[float, bool]]:
            return likelihoods(scorer, tokenizer, [request.args for request in requests])

        def loglikelihood_rolling(self, requests: list[Any], **_: Any) -> list[float]:
            return rolling(scorer, tokenizer, [request.args[0] for request in requests])

        def generate_until(self, requests: list[Any], **_: Any) -> list[str]:
            return written(scorer, tokenizer, [request.args for request in requests])

        def chat_template(self, chat_template: bool | str = False) -> str | None:
            return str(tokenizer.chat_template) if chat_template and tokenizer.chat_template else None

        def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
            return str(
                tokenizer.apply_chat_template(
                    chat_history, tokenize=False, add_generation_prompt=add_generation_prompt,
                    continue_final_message=not add_generation_prompt,
                )
            )  # fmt: skip

    return Shared()


def likelihoods(scorer: Scorer, tokenizer: Any, asked: list[tuple[str, str]]) -> list[tuple[float, bool]]:
    by: dict[str, list[int]] = {}
    for i, (context, _) in enumerate(asked):
        by.setdefault(context, []).append(i)
    requests = [(context, [asked[i][1] for i in rows]) for context, rows in by.items()]
    result: list[Any] = [None] * len(asked)
    for rows, scores in zip(by.values(), scorer.score(pair_tokens(tokenizer, requests), "lm-eval"), strict=True):
        for i, found in zip(rows, scores, strict=True):
            result[i] = (found.logprob, found.greedy)
    return result


def rolling(scorer: Scorer, tokenizer: Any, texts: list[str]) -> list[float]:
    """Log-likelihood of whole texts in windows of the context, each token predicted once."""
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    start, room = prefix_token(tokenizer), scorer.max_length
    requests = []
    for text in texts:
        windows = get_rolling_token_windows(tokenizer.encode(text), prefix_token=start, max_seq_len=room, context_len=1)
        apart = [make_disjoint_window(window) for window in windows]
        requests.append([Pair(list(prompt), list(scored)) for prompt, scored in apart])
    scored = iter(scorer.score([pairs for pairs in requests if pairs], "lm-eval"))
    return [sum(s.logprob for s in next(scored)) if pairs else 0.0 for pairs in requests]


def written(scorer: Scorer, tokenizer: Any, asked: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """Generated text; requests with the same settings share batches."""
    by: dict[str, list[int]] = {}
    for i, (_, settings) in enumerate(asked):
        by.setdefault(repr(sorted(settings.items())), []).append(i)
    result = [""] * len(asked)
    for rows in by.values():
        settings = asked[rows[0]][1]
        until = settings.get("until") or []
        stop = [until] if isinstance(until, str) else list(until)
        warmth = float(settings.get("temperature") or 0.0) if settings.get("do_sample") else 0.0
        room = int(settings.get("max_gen_toks") or settings.get("max_new_tokens") or MAX_NEW_TOKENS)
        ids = [list(tokenizer(asked[i][0])["input_ids"]) for i in rows]
        texts = generate(
            scorer.model, tokenizer, ids, max_new_tokens=room, stop=[s for s in stop if s], temperature=warmth
        )
        for i, text in zip(rows, texts, strict=True):
            result[i] = text
    return result
