"""A sample of the architectures of `docs/coverage.md`; `make coverage` examines them all."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.coverage import sequences
from benchmarks.coverage.check import examine

SAMPLE = [
    "LlamaForCausalLM",
    "Gemma3ForCausalLM",
    "GPT2LMHeadModel",
    "Glm4MoeForCausalLM",
    "MixtralForCausalLM",
    "Mamba2ForCausalLM",
    "RwkvForCausalLM",
    "BertForSequenceClassification",
    "LongformerForSequenceClassification",
    "T5ForConditionalGeneration",
    "ViTForImageClassification",
    "SwinForImageClassification",
    "Wav2Vec2ForSequenceClassification",
    "CLIPModel",
]
CATALOGUE = {one.name: one for one in sequences.ALL}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SAMPLE)
def test_as_it_comes(name: str) -> None:
    assert examine(CATALOGUE[name]).faults == []


def test_no_name_twice() -> None:
    assert len(CATALOGUE) == len(sequences.ALL) >= 100
