"""Pictures and volumes, without timm or torchvision: medicine, segmentation, descriptors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.coverage.architectures import Architecture


def medical(name: str, shape: tuple[int, ...], select: Any = None, limit: str = "", **given: Any) -> Architecture:
    def build() -> nn.Module:
        import monai.networks.nets

        return getattr(monai.networks.nets, name)(**given)

    return Architecture(name, "monai", "pictures and volumes", build, lambda: torch.randn(*shape), select, limit=limit)


def _descriptor(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import kornia.feature

        return getattr(kornia.feature, name)(pretrained=False)

    return build


def _efficientnet() -> nn.Module:
    from efficientnet_pytorch import EfficientNet

    return EfficientNet.from_name("efficientnet-b0", num_classes=5)


PLANE = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}
ALL: list[Architecture] = [
    medical("UNet", (2, 1, 32, 32), channels=(4, 8, 16), strides=(2, 2), **PLANE),
    medical("AttentionUnet", (2, 1, 32, 32), channels=(4, 8, 16), strides=(2, 2), **PLANE),
    medical("SegResNet", (2, 1, 32, 32), init_filters=8, **PLANE),
    medical("BasicUNetPlusPlus", (2, 1, 32, 32), features=(4, 4, 8, 8, 8, 4), select=0, **PLANE),
    medical("VNet", (2, 1, 16, 16, 16), spatial_dims=3, in_channels=1, out_channels=2),
    medical("DenseNet121", (2, 1, 32, 32), **PLANE),
    medical(
        "UNETR", (1, 1, 32, 32), img_size=(32, 32), feature_size=4, hidden_size=24, mlp_dim=32, num_heads=2, **PLANE
    ),
    medical("SwinUNETR", (1, 1, 64, 64), feature_size=12, depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 4), **PLANE),
    medical("MedNeXt", (1, 1, 32, 32), init_filters=4, select=None, **PLANE),
    Architecture("HardNet", "kornia", "pictures and volumes", _descriptor("HardNet"), lambda: torch.randn(2, 1, 32, 32), limit="the mean that it subtracts is detached"),
    Architecture("SOSNet", "kornia", "pictures and volumes", _descriptor("SOSNet"), lambda: torch.randn(2, 1, 32, 32)),
    Architecture(
        "EfficientNet", "efficientnet_pytorch", "pictures and volumes", _efficientnet, lambda: torch.randn(2, 3, 64, 64)
    ),
]  # fmt: skip
