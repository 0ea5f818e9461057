"""What only a CUDA device can run: skipped by name elsewhere."""

from __future__ import annotations

import pytest
import torch

from tuneloop.train import varlen
from tuneloop.train.attention import packed, packed_attention
from tuneloop.train.places import runs

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.parametrize("heads", [(4, 4), (8, 2)])
def test_kernel_of_varying_lengths_agrees_with_the_ordinary_one(heads: tuple[int, int]) -> None:
    torch.manual_seed(0)
    texts = [*runs([7, 130, 64]), range(201, 240), [*range(201, 210), *range(240, 260)]]
    shapes = [(1, heads[0], 260, 64), *[(1, heads[1], 260, 64)] * 2]
    values = [torch.randn(shape, device="cuda", dtype=torch.bfloat16) for shape in shapes]
    found = []
    for off in (False, True):
        inputs = [x.clone().requires_grad_() for x in values]
        with packed(texts, "cuda"), pytest.MonkeyPatch.context() as patch:
            if off:
                patch.setattr(varlen, "fits", lambda *_: False)
            out = packed_attention(torch.nn.Module(), *inputs, None)[0]
        out.float().square().sum().backward()
        found.append([out, *[x.grad for x in inputs]])
    for one, other in zip(*found, strict=True):
        assert (one.float() - other.float()).norm() <= 2e-2 * other.float().norm()
