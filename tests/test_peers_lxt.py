"""lxt 2.1's AttnLRP and CP-LRP on tiny language models: its figures are kept in `peers/lxt.json`, with versions."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

import relprop

pytest.importorskip("transformers")
HERE = Path(__file__).parent / "peers"
sys.path.insert(0, str(HERE))

import models  # noqa: E402

FIGURES = json.loads((HERE / "lxt.json").read_text(encoding="utf-8"))["score, then relevance per token"]
CASES = [(name, method) for name in FIGURES for method in FIGURES[name]]


def test_all_six_architectures_are_there() -> None:
    assert set(FIGURES) == set(models.CASES) == {"llama", "qwen2", "qwen3", "gemma3", "gpt2", "bert"}


@pytest.mark.parametrize(("name", "method"), CASES)
def test_equals_lxt(name: str, method: str) -> None:
    found = relprop.attribute(models.build(name), {"input_ids": models.IDS}, models.score, composite=method)
    score, *relevance = FIGURES[name][method]
    # both in float64; rotary angles and norms are float32 inside transformers
    torch.testing.assert_close(float(found.score[0]), score, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.values["input_ids"][0], torch.tensor(relevance).double(), rtol=1e-5, atol=1e-6)
