"""Streaming block by block computes what the whole model computes, for every family."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from families import FAMILIES, make_model
from transformers import AutoModelForCausalLM

from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.modeling.stream import Stream


@pytest.mark.parametrize("family", FAMILIES)
def test_streamed_logits_equal_the_whole_models(family: str, tmp_path: Path) -> None:
    folder = make_model(family, tmp_path / "model")
    tokens = torch.randint(3, 160, (5, 24), generator=torch.Generator().manual_seed(1))
    skeleton = Skeleton(ModelFolder.open(folder))
    stream = Stream(skeleton, tokens, batch_size=2)
    with torch.inference_mode():
        expected = AutoModelForCausalLM.from_pretrained(folder).eval()(tokens, use_cache=False).logits
        hidden = stream.enter()
        for index, block in enumerate(skeleton.blocks):
            skeleton.materialize(block.name, stream.dtype)
            hidden = [stream.call(index, batch) for batch in hidden]
            skeleton.release(block.name)
        logits = torch.cat([stream.logits(t, h) for t, h in zip(stream.batches, hidden, strict=True)])
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    assert all(p.is_meta for block in skeleton.blocks for p in block.module.parameters())
