"""Tiny language models whose weights depend on nothing but a seed and the names of their parameters."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from torch import Tensor, nn

IDS = torch.tensor([[5, 17, 3, 42, 8, 23, 31], [11, 2, 49, 7, 30, 9, 14]])

_COMMON: dict[str, Any] = {
    "vocab_size": 50, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 32, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    model: str
    config: str
    code: str
    lxt: str
    options: dict[str, Any] = field(default_factory=dict)


def _decoder(name: str, **options: Any) -> Case:
    code = f"transformers.models.{name.lower()}.modeling_{name.lower()}"
    return Case(f"{name}ForCausalLM", f"{name}Config", code, name.lower(), {**_COMMON, **options})


CASES: dict[str, Case] = {
    "llama": _decoder("Llama"),
    "qwen2": _decoder("Qwen2"),
    "qwen3": _decoder("Qwen3", head_dim=6),
    "gemma3": Case(
        "Gemma3ForCausalLM", "Gemma3TextConfig", "transformers.models.gemma3.modeling_gemma3", "gemma3",
        {**_COMMON, "head_dim": 6, "sliding_window": 4, "query_pre_attn_scalar": 6},
    ),
    "gpt2": Case(
        "GPT2LMHeadModel", "GPT2Config", "transformers.models.gpt2.modeling_gpt2", "gpt2",
        {"vocab_size": 50, "n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": 32, "bos_token_id": 1, "eos_token_id": 2},
    ),
    "bert": Case(
        "BertForSequenceClassification", "BertConfig", "transformers.models.bert.modeling_bert", "bert",
        {k: v for k, v in _COMMON.items() if k != "num_key_value_heads"},
    ),
}  # fmt: skip


def build(name: str) -> nn.Module:
    """The model, in float64. Weights are of unit gain and so large that attention is far from uniform."""
    case = CASES[name]
    config = getattr(transformers, case.config)(**case.options)
    config._attn_implementation = "eager" if name == "bert" else "sdpa"
    model = getattr(transformers, case.model)(config).double().eval()
    for key, parameter in model.named_parameters():
        generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
        values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        if parameter.ndim == 1:
            parameter.data = 0.2 * values + (1.0 if "norm" in key.lower() or "ln_" in key else 0.0) * key.endswith(
                "weight"
            )
        else:
            parameter.data = 1.5 * values * parameter.shape[1] ** -0.5
    return model


def score(logits: Tensor) -> Tensor:
    """The logit of token 7 after the last one, or of class 1."""
    return logits[:, -1, 7] if logits.ndim == 3 else logits[:, 1]
