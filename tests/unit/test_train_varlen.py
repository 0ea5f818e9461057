"""Texts end to end as the kernel of varying lengths reads them. The kernel itself runs on CUDA alone: tests/gpu."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import scaled_dot_product_attention

from tuneloop.train import varlen
from tuneloop.train.attention import packed, packed_attention
from tuneloop.train.places import line, runs

TEXTS: dict[str, list[Sequence[int]]] = {
    "one after the other": runs([3, 9, 4]),
    "a shared beginning": [range(4), range(4, 9), [4, 5, *range(9, 12)]],
}


def by_hand(q: Any, k: Any, v: Any, ends: Any, _: Any, longest: int, __: int, *, scale: Any, window_size: Any) -> Any:
    """What the kernel computes, text by text."""
    assert window_size == (-1, 0)
    assert ends.dtype == torch.int32
    assert longest == int(ends.diff().max())
    parts = [
        scaled_dot_product_attention(*(x[a:b].transpose(0, 1) for x in (q, k, v)), is_causal=True, scale=scale)
        for a, b in pairwise(ends.tolist())
    ]
    return torch.cat(parts, 1).transpose(0, 1)


@pytest.mark.parametrize("kind", list(TEXTS))
def test_values_and_gradients_are_those_of_texts_side_by_side(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", by_hand)
    varlen._shares_heads.cache_clear()
    tokens = 1 + max(max(text) for text in TEXTS[kind])
    torch.manual_seed(0)
    heads = [torch.randn(tokens, n, 8, requires_grad=True) for n in (4, 2, 2)]
    found = varlen.varlen(heads, line(TEXTS[kind], "cpu"), None)
    with packed(TEXTS[kind]):
        want = packed_attention(torch.nn.Module(), *(x.transpose(0, 1)[None] for x in heads), None)[0][0]
    assert torch.allclose(found, want, atol=1e-6)
    pull = torch.randn_like(want)
    for a, b in zip(*(torch.autograd.grad(x, heads, pull) for x in (found, want)), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    varlen._shares_heads.cache_clear()


@pytest.mark.parametrize("kind", list(TEXTS))
def test_torch_takes_the_call(kind: str) -> None:
    """Without numbers, so that it runs here: torch's function with these arguments, and what comes out of it."""
    tokens = 1 + max(max(text) for text in TEXTS[kind])
    with FakeTensorMode(allow_non_fake_inputs=True):
        heads = [torch.empty(tokens, n, 64, dtype=torch.bfloat16) for n in (4, 2, 2)]
        assert varlen.varlen(heads, line(TEXTS[kind], "cpu"), 0.125).shape == (tokens, 4, 64)


def test_on_a_cpu_the_kernel_is_not_asked() -> None:
    assert not varlen.fits([torch.empty(3, 4, 64, dtype=torch.bfloat16)] * 3, 0.0)


def test_the_kernel_is_asked_for_heads_of_one_width_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors that say they are on a GPU, without one: what `fits` answers rests on shapes and types."""
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _: (8, 0))

    def asked(*widths: int, dropout: float = 0.0, dtype: torch.dtype = torch.bfloat16) -> bool:
        with FakeTensorMode():
            sizes = zip((4, 2, 2), widths, strict=True)
            return varlen.fits([torch.empty(3, n, width, dtype=dtype, device="cuda") for n, width in sizes], dropout)

    assert asked(64, 64, 64) and asked(256, 256, 256)
    assert not asked(192, 192, 128)  # DeepSeek-V2
    assert not asked(96, 96, 64)  # MiniCPM3
    assert not asked(64, 128, 64)
    assert not asked(60, 60, 60) and not asked(264, 264, 264)
    assert not asked(64, 64, 64, dropout=0.1) and not asked(64, 64, 64, dtype=torch.float32)
