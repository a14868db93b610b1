"""Tables: rows of numbers, and of numbers with ids beside them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.coverage.architectures import Architecture

FEATURES = 6


def table(
    name: str, package: str, build: Callable[[], nn.Module], inputs: Callable[[], Any] | None = None, **more: Any
) -> Architecture:
    return Architecture(name, package, "tables", build, inputs or (lambda: torch.randn(4, FEATURES)), **more)


def _mlp() -> nn.Module:
    from rtdl_revisiting_models import MLP

    return MLP(d_in=FEATURES, d_out=3, n_blocks=2, d_block=8, dropout=0.1)


def _resnet() -> nn.Module:
    from rtdl_revisiting_models import ResNet

    return ResNet(d_in=FEATURES, d_out=3, n_blocks=2, d_block=8, d_hidden_multiplier=2.0, dropout1=0.1, dropout2=0.0)


def _ft_transformer() -> nn.Module:
    from rtdl_revisiting_models import FTTransformer

    return FTTransformer(
        n_cont_features=FEATURES, cat_cardinalities=[3, 4], d_out=3, n_blocks=2, d_block=8, attention_n_heads=2,
        attention_dropout=0.0, ffn_d_hidden_multiplier=2.0, ffn_dropout=0.0, residual_dropout=0.0,
    )  # fmt: skip


def _periodic() -> nn.Module:
    from rtdl_num_embeddings import PeriodicEmbeddings

    return nn.Sequential(
        PeriodicEmbeddings(FEATURES, 4, n_frequencies=3, lite=False), nn.Flatten(), nn.Linear(4 * FEATURES, 3)
    )


def _tabnet() -> nn.Module:
    from pytorch_tabnet.tab_network import TabNetNoEmbeddings

    # The mask of the features comes from a sparsemax.
    return TabNetNoEmbeddings(FEATURES, 3, n_d=4, n_a=4, n_steps=2)


def _tab_transformer() -> nn.Module:
    from tab_transformer_pytorch import FTTransformer

    return FTTransformer(categories=(3, 4), num_continuous=FEATURES, dim=8, depth=1, heads=2, dim_head=4, dim_out=3)


def _clicks(name: str) -> Callable[[], nn.Module]:
    """A table whose first two columns are ids, in a float tensor, as the package takes them."""

    def build() -> nn.Module:
        import deepctr_torch.models
        from deepctr_torch.inputs import DenseFeat, SparseFeat

        columns = [SparseFeat("a", 5, 4), SparseFeat("b", 6, 4), DenseFeat("c", 1), DenseFeat("d", 1)]
        made = getattr(deepctr_torch.models, name)
        return made(columns, columns, dnn_hidden_units=(8, 4), init_std=0.5)

    return build


def _rows_with_ids() -> torch.Tensor:
    return torch.cat([torch.tensor([[1.0, 2.0], [4.0, 0.0], [3.0, 5.0], [2.0, 1.0]]), torch.randn(4, 2)], 1)


SIGMOID = "its answer is the sigmoid of a score, which is not 0 at 0"
ALL: list[Architecture] = [
    table("MLP", "rtdl_revisiting_models", _mlp),
    table("ResNet", "rtdl_revisiting_models", _resnet),
    table(
        "FTTransformer", "rtdl_revisiting_models", _ft_transformer,
        lambda: {"x_cont": torch.randn(4, FEATURES), "x_cat": torch.tensor([[0, 1], [2, 3], [1, 0], [2, 2]])},
        limit="its class token is one of the tokens",
    ),
    table("PeriodicEmbeddings", "rtdl_num_embeddings", _periodic, limit="a cosine is not 0 at 0"),
    table("TabNet", "pytorch_tabnet", _tabnet, select=0, limit="its gates are sigmoids and its masks are sparsemaxes"),
    table(
        "tab_transformer_pytorch.FTTransformer", "tab_transformer_pytorch", _tab_transformer,
        lambda: {"x_numer": torch.randn(4, FEATURES), "x_categ": torch.tensor([[0, 1], [2, 3], [1, 0], [2, 2]])},
        limit="its residual streams are mixed by sigmoids",
    ),
    *(
        table(name, "deepctr_torch", _clicks(name), _rows_with_ids, limit=SIGMOID)
        for name in ["DeepFM", "DCN", "xDeepFM", "AutoInt", "WDL"]
    ),
]  # fmt: skip
