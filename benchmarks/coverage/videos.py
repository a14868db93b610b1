"""Models of torchvision: its own networks for pictures and films, segmentation, and the backbones of its detectors."""

from __future__ import annotations

from typing import Any

import torch
import torchvision.models as tv
from torchvision.models.detection.backbone_utils import mobilenet_backbone, resnet_fpn_backbone

from benchmarks.coverage.architectures import Architecture


def picture(name: str, size: int = 64, **given: Any) -> Architecture:
    return Architecture(
        name,
        "torchvision",
        "torchvision",
        lambda: tv.get_model(name, weights=None, num_classes=5, **given),
        lambda: torch.randn(2, 3, size, size),
    )


def segmentation(name: str) -> Architecture:
    build = lambda: tv.get_model(name, weights=None, weights_backbone=None, num_classes=3)  # noqa: E731
    return Architecture(
        name, "torchvision", "segmentation and detection", build, lambda: torch.randn(2, 3, 64, 64), "out"
    )


def film(name: str, frames: int = 8, size: int = 32) -> Architecture:
    build = lambda: tv.get_model(name, weights=None, num_classes=5)  # noqa: E731
    return Architecture(name, "torchvision", "video", build, lambda: torch.randn(2, 3, frames, size, size))


ALL: list[Architecture] = [
    *(
        picture(name, 32)
        for name in [
            "resnet18",
            "resnext50_32x4d",
            "squeezenet1_0",
            "mobilenet_v2",
            "mobilenet_v3_small",
            "mnasnet0_5",
            "shufflenet_v2_x0_5",
            "efficientnet_b0",
            "regnet_x_400mf",
            "regnet_y_400mf",
            "convnext_tiny",
            "swin_t",
            "swin_v2_t",
        ]
    ),
    picture("googlenet", 64, init_weights=False, aux_logits=False),
    picture("maxvit_t", 224),
    picture("vit_b_32", 64, image_size=64),
    *(segmentation(name) for name in ["fcn_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"]),
    Architecture(
        "resnet50_fpn",
        "torchvision",
        "segmentation and detection",
        lambda: resnet_fpn_backbone(backbone_name="resnet50", weights=None),
        lambda: torch.randn(2, 3, 64, 64),
        "0",
    ),
    Architecture(
        "mobilenet_v3_large_fpn",
        "torchvision",
        "segmentation and detection",
        lambda: mobilenet_backbone(backbone_name="mobilenet_v3_large", weights=None, fpn=True),
        lambda: torch.randn(2, 3, 64, 64),
        "0",
    ),
    *(film(name) for name in ["r3d_18", "mc3_18", "r2plus1d_18", "swin3d_t"]),
]
