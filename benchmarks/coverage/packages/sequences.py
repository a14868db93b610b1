"""Sequences without transformers, and models that another package has wrapped."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.coverage.architectures import IDS, Architecture


def vectors() -> Tensor:
    return torch.randn(2, 8, 16)


def _decoder(**given: Any) -> nn.Module:
    from x_transformers import Decoder, TransformerWrapper

    return TransformerWrapper(
        num_tokens=50, max_seq_len=16, attn_layers=Decoder(dim=24, depth=2, heads=2, attn_dim_head=8, **given)
    )


def _encoder() -> nn.Module:
    from x_transformers import ContinuousTransformerWrapper, Encoder

    return ContinuousTransformerWrapper(
        dim_in=16, dim_out=3, max_seq_len=16, attn_layers=Encoder(dim=24, depth=2, heads=2, attn_dim_head=8)
    )


def _perceiver() -> nn.Module:
    from perceiver_pytorch import Perceiver

    return Perceiver(
        num_freq_bands=2, depth=1, max_freq=4.0, input_channels=16, input_axis=1, num_latents=4, latent_dim=16, num_classes=3,
        latent_heads=2, cross_dim_head=8, latent_dim_head=8,
    )  # fmt: skip


def _linformer() -> nn.Module:
    from linformer import Linformer

    return Linformer(dim=16, seq_len=8, depth=2, heads=2, k=4)


def _performer() -> nn.Module:
    from performer_pytorch import Performer

    return Performer(dim=16, depth=1, heads=2, dim_head=8)


def _local() -> nn.Module:
    from local_attention import LocalTransformer

    return LocalTransformer(
        num_tokens=50, dim=16, depth=2, max_seq_len=16, local_attn_window_size=4, heads=2, dim_head=8
    )


def _whisper() -> nn.Module:
    from whisper.model import AudioEncoder

    return AudioEncoder(n_mels=8, n_ctx=8, n_state=16, n_head=2, n_layer=2)


def _adapted() -> nn.Module:
    import peft

    inner = nn.Sequential(nn.Linear(16, 24), nn.GELU(), nn.Linear(24, 3))
    return peft.get_peft_model(inner, peft.LoraConfig(r=4, target_modules=["0", "2"], init_lora_weights=False))


def _private() -> nn.Module:
    from opacus import GradSampleModule

    return GradSampleModule(nn.Sequential(nn.Conv1d(16, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3)))


def first(name: str, package: str, kind: str, build: Any, inputs: Any, **more: Any) -> Architecture:
    return Architecture(name, package, kind, build, inputs, **more)


ALL: list[Architecture] = [
    first("Decoder", "x_transformers", "sequences", _decoder, lambda: {"x": IDS}),
    first("Decoder, rotary, GLU, RMS norm", "x_transformers", "sequences",
          lambda: _decoder(rotary_pos_emb=True, ff_glu=True, use_rmsnorm=True), lambda: {"x": IDS}),
    first("Encoder", "x_transformers", "sequences", _encoder, vectors),
    first("Perceiver", "perceiver_pytorch", "sequences", _perceiver, vectors, limit="it adds sines of the position and latents"),
    first("Linformer", "linformer", "sequences", _linformer, vectors),
    first("Performer", "performer_pytorch", "sequences", _performer, vectors),
    first("LocalTransformer", "local_attention", "sequences", _local, lambda: {"x": IDS}),
    first("AudioEncoder", "whisper", "sequences", _whisper, lambda: torch.randn(2, 8, 16)),
    first("LoRA", "peft", "wrapped", _adapted, lambda: torch.randn(2, 16)),
    first("GradSampleModule", "opacus", "wrapped", _private, lambda: torch.randn(2, 16, 8)),
]  # fmt: skip
