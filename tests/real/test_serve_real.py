"""`tuneloop serve` with real weights, asked by the official client, and as a teacher over real HTTP."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import BadRequestError, NotFoundError, OpenAI

from tuneloop.config import GenerateConfig
from tuneloop.errors import UsageError
from tuneloop.generate import generate
from tuneloop.lm import Http
from tuneloop.serve.run import check_address

ASKED = [{"role": "user", "content": "Once upon a time"}]


@pytest.fixture(scope="module")
def base_url(stories: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "tuneloop", "serve", "--model", str(stories), "--template", "plain", "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if found := re.search(r"http://127\.0\.0\.1:(\d+)/v1", line):
            break
    else:
        pytest.fail(f"the server did not start: {said}")
    yield found.group()
    process.terminate()
    process.wait(timeout=20)
    process.stderr.close()


@pytest.fixture(scope="module")
def client(base_url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=base_url, api_key="none", max_retries=0) as held:
        yield held


@pytest.fixture(scope="module")
def model(client: OpenAI) -> str:
    return client.models.list().data[0].id


def test_chat_streams_what_it_says_whole(client: OpenAI, model: str) -> None:
    for settings in ({"temperature": 0.0}, {"temperature": 1.0, "seed": 7, "top_p": 0.9}):
        asked: dict[str, Any] = {"model": model, "messages": ASKED, "max_tokens": 40, **settings}
        whole = client.chat.completions.create(**asked)
        text, finish, usage = "", None, None
        for piece in client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
            usage = piece.usage or usage
            for choice in piece.choices:
                text += choice.delta.content or ""
                finish = choice.finish_reason or finish
        assert text == whole.choices[0].message.content
        assert finish == whole.choices[0].finish_reason == "length"
        assert usage == whole.usage
        assert whole.usage is not None and whole.usage.completion_tokens == 40


def test_stop_strings_cut_and_never_leak_into_the_stream(client: OpenAI, model: str) -> None:
    asked: dict[str, Any] = {"model": model, "prompt": "Once upon a time", "max_tokens": 60, "temperature": 0.0}
    free = client.completions.create(**asked).choices[0].text
    stop = free[20:29]
    assert client.completions.create(**asked, stop=stop).choices[0].text == free[: free.find(stop)]
    pieces = [p.choices[0].text for p in client.completions.create(**asked, stop=stop, stream=True) if p.choices]
    assert "".join(pieces) == free[: free.find(stop)]


def test_log_probabilities_are_those_of_the_model(client: OpenAI, model: str, stories: Path) -> None:
    import torch

    from tuneloop.models import load_model, load_tokenizer
    from tuneloop.prompts.templates import start_ids

    found = client.completions.create(
        model=model, prompt="Once upon a time", max_tokens=12, temperature=0.0, logprobs=2
    )
    scores = found.choices[0].logprobs
    assert scores is not None and scores.token_logprobs is not None
    tokenizer, network = load_tokenizer(str(stories)), load_model(str(stories))
    ids = [*start_ids(tokenizer), *tokenizer("Once upon a time", add_special_tokens=False)["input_ids"]]
    with torch.no_grad():
        for value in scores.token_logprobs:
            logits = torch.log_softmax(network(torch.tensor([ids])).logits[0, -1].float(), -1)
            ids.append(int(logits.argmax()))
            assert value == pytest.approx(float(logits.max()), abs=1e-4)
    assert tokenizer.decode(ids[-12:]).strip() == found.choices[0].text.strip()


def test_rows_of_a_batch_do_not_change_one_another(client: OpenAI, model: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def one(seed: int) -> str:
        text = f"Tell me about {'a cat and ' * (seed % 4)}a dog."
        messages: Any = [{"role": "user", "content": text}]
        found = client.chat.completions.create(
            model=model, messages=messages, max_tokens=24, temperature=0.9, seed=seed
        )
        return str(found.choices[0].message.content)

    alone = [one(seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(one, range(8))) == alone


def test_mistakes_are_errors_of_the_protocol(client: OpenAI, model: str) -> None:
    with pytest.raises(NotFoundError, match="no model 'gpt-9'"):
        client.chat.completions.create(model="gpt-9", messages=ASKED)  # type: ignore[arg-type]
    for more in (
        {"response_format": {"type": "json_object"}}, {"temperature": -1}, {"n": 2}, {"max_tokens": 0},
        {"tools": [{"type": "function", "function": {"name": "x"}}]}, {"messages": []},
        {"messages": [{"role": "user", "content": "word " * 3000}]},
    ):  # fmt: skip
        with pytest.raises(BadRequestError):
            client.chat.completions.create(**({"model": model, "messages": ASKED} | more))  # type: ignore[call-overload]


def test_wrong_routes_and_broken_bodies_are_errors_of_the_protocol(base_url: str, client: OpenAI, model: str) -> None:
    def error(path: str, body: bytes | None) -> tuple[int, dict[str, Any]]:
        request = urllib.request.Request(f"{base_url}{path}", body, {"Content-Type": "application/json"})
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=30)
        with caught.value as reply:
            return reply.code, json.load(reply)["error"]

    good = json.dumps({"model": model, "messages": ASKED}).encode()
    assert error("/chat/completion", good)[0] == 404
    assert error("/chat/completions", None)[0] == 405
    for body in (good[:-5], b"", b"[]", b"\xff\xfe", b'{"messages": 3}', b'{"messages": [{"content": "x"}]}'):
        status, found = error("/chat/completions", body)
        assert status == 400 and found["message"]
    with pytest.raises(NotFoundError):
        client.embeddings.create(model=model, input="x")
    with pytest.raises(BadRequestError, match="context holds"):
        client.completions.create(model=model, prompt="word " * 3000)


def test_what_a_client_no_longer_waits_for_is_given_up(base_url: str, client: OpenAI, model: str) -> None:
    def health(name: str) -> int:
        with urllib.request.urlopen(base_url.replace("/v1", "/health"), timeout=30) as reply:
            return int(json.load(reply)[name])

    host, port = re.findall(r"//([^:/]+):(\d+)", base_url)[0]
    for count, stream in enumerate((False, True), start=1):
        asked = {"model": model, "prompt": "Once upon a time", "max_tokens": 480, "stream": stream}
        body = json.dumps(asked).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        head += "Content-Type: application/json\r\n"
        with socket.create_connection((host, int(port))) as gone:
            gone.sendall(head.encode() + b"\r\n" + body)
            while health("under_way") == 0:
                time.sleep(0.01)
        while health("under_way"):
            time.sleep(0.01)
        assert health("given_up") == count
        assert client.completions.create(model=model, prompt="Once", max_tokens=2).choices[0].text


def test_the_same_idempotency_key_is_answered_once(base_url: str, model: str) -> None:
    def post(key: str) -> Any:
        body = json.dumps({"model": model, "messages": ASKED, "max_tokens": 5}).encode()
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        request = urllib.request.Request(f"{base_url}/chat/completions", body, headers)
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)["id"]

    assert post("one") == post("one") != post("two")


def test_a_served_model_is_a_teacher(base_url: str, model: str, tmp_path: Path) -> None:
    teacher = Http(model, base_url, timeout=60, capabilities=("chat", "completions"))
    settings = GenerateConfig.model_validate(
        {"method": "magpie", "limits": {"rows": 3}, "teacher": {"max_new_tokens": 12, "temperature": 1.0},
         "filters": {"min_words": 1}}
    )  # fmt: skip
    # A story model stops at no end of turn, so each answer is cut off: refused by name, not kept and not lost.
    from tuneloop.errors import PartialError

    with pytest.raises(PartialError, match="20 length"):
        generate(settings, teacher, tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out" / "journal.jsonl").read_text().splitlines()]
    assert sum(line.get("state") == "ok" for line in lines) >= 20


def test_another_address_wants_a_token() -> None:
    for host, token in (("0.0.0.0", None), ("192.168.0.7", ""), ("example.org", "short"), ("::", None)):
        with pytest.raises(UsageError, match="TL-175"):
            check_address(host, token)
    for host, token in (("127.0.0.1", None), ("localhost", None), ("::1", None), ("0.0.0.0", "0123456789abcdef")):
        check_address(host, token)


def test_the_token_is_asked_for(stories: Path) -> None:
    from fastapi.testclient import TestClient

    from tuneloop.lm.batching import Batching
    from tuneloop.serve.app import build

    token = "0123456789abcdef"
    with TestClient(build(Batching.load(str(stories), template="plain"), token=token)) as browser:
        assert browser.get("/health").status_code == 200
        assert browser.get("/v1/models").status_code == 401
        assert browser.get("/v1/models", headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert browser.get("/v1/models", headers={"Authorization": f"Bearer {token}"}).status_code == 200
