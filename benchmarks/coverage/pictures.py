"""Models of timm: its small variants, on small pictures."""

from __future__ import annotations

from typing import Any

import timm
import torch

from benchmarks.coverage.architectures import Architecture


def picture(name: str, size: int = 64, kind: str = "timm", limit: str = "", **given: Any) -> Architecture:
    return Architecture(
        name,
        "timm",
        kind,
        lambda: timm.create_model(name, num_classes=5, **given),
        lambda: torch.randn(2, 3, size, size),
        limit=limit,
    )


FOURIER = "it adds sines of the position, which keep a share"
ALL: list[Architecture] = [
    *(
        picture(name, 32, "convolutional")
        for name in [
            "resnet18",
            "resnet50",
            "seresnet50",
            "ecaresnet50t",
            "resnet50_gn",
            "resnest14d",
            "res2net50_26w_4s",
            "skresnet18",
            "resnetv2_50",
            "densenet121",
            "dla34",
            "vovnet39a",
            "cspresnet50",
            "cspdarknet53",
            "inception_v3",
            "inception_next_atto",
            "xception41",
            "efficientnet_b0",
            "tf_efficientnetv2_b0",
            "mobilenetv2_100",
            "mobilenetv3_large_100",
            "mobilenetv3_small_100",
            "mobilenetv4_conv_small",
            "mnasnet_100",
            "mixnet_s",
            "fbnetc_100",
            "ghostnet_100",
            "hardcorenas_a",
            "lcnet_050",
            "tinynet_e",
            "rexnet_100",
            "regnetx_002",
            "regnety_002",
            "nf_regnet_b0",
            "dm_nfnet_f0",
            "repvgg_a0",
            "mobileone_s0",
            "repghostnet_050",
            "selecsls42",
            "convnext_atto",
            "convnextv2_atto",
            "convmixer_768_32",
            "hgnetv2_b0",
            "fasternet_t0",
            "starnet_s1",
            "rdnet_tiny",
            "mambaout_femto",
            "poolformer_s12",
            "convformer_s18",
            "caformer_s18",
            "fastvit_t8",
            "repvit_m0_9",
            "focalnet_tiny_srf",
            "gernet_s",
            "bat_resnext26ts",
            "lambda_resnet26t",
            "halonet26t",
            "botnet26t_256",
            "eca_botnext26ts_256",
            "vgg11",
        ]
        if name
        not in (
            "inception_v3",
            "xception41",
            "convmixer_768_32",
            "botnet26t_256",
            "halonet26t",
            "eca_botnext26ts_256",
            "lambda_resnet26t",
            "bat_resnext26ts",
            "vgg11",
        )
    ),
    picture("inception_v3", 96, "convolutional"),
    picture("xception41", 64, "convolutional"),
    *(picture(name, 64, "convolutional and attention") for name in ["lambda_resnet26t"]),
    *(
        picture(name, 64, "vision transformer", img_size=64, embed_dim=48, depth=2, num_heads=4)
        for name in [
            "vit_tiny_patch16_224",
            "deit_tiny_patch16_224",
            "deit3_small_patch16_224",
            "beit_base_patch16_224",
            "eva02_tiny_patch14_224",
            "vit_relpos_small_patch16_224",
            "vit_small_patch14_dinov2",
            "vit_small_patch16_rope_224",
            "vit_base_patch16_siglip_224",
        ]
        if "patch14" not in name
    ),
    *(
        picture(name, 56, "vision transformer", img_size=56, embed_dim=48, depth=2, num_heads=4)
        for name in ("eva02_tiny_patch14_224", "vit_small_patch14_dinov2")
    ),
    picture("cait_xxs24_224", 64, "vision transformer", img_size=64, embed_dim=48, depth=2, num_heads=4),
    picture(
        "convit_tiny", 64, "vision transformer", img_size=64, embed_dim=48, depth=2, num_heads=4, local_up_to_layer=1
    ),
    picture("tnt_s_legacy_patch16_224", 64, "vision transformer", img_size=64, depth=2),
    picture("xcit_nano_12_p16_224", 64, "vision transformer", FOURIER, img_size=64, embed_dim=48, depth=2, num_heads=4),
    picture("edgenext_xx_small", 64, "convolutional and attention", FOURIER),
    picture("pit_ti_224", 64, "vision transformer", img_size=64),
    picture("crossvit_tiny_240", 240, "vision transformer"),
    picture("coat_tiny", 64, "vision transformer", img_size=64),
    picture("levit_128s", 224, "vision transformer"),
    picture("mixer_s16_224", 64, "vision transformer", img_size=64),
    picture("gmlp_s16_224", 64, "vision transformer", img_size=64),
    picture("resmlp_12_224", 64, "vision transformer", img_size=64),
    picture("sequencer2d_s", 64, "vision transformer", img_size=64),
    picture(
        "swin_tiny_patch4_window7_224",
        64,
        "vision transformer",
        img_size=64,
        window_size=4,
        depths=(1, 2),
        num_heads=(2, 4),
        embed_dim=24,
    ),
    picture(
        "swinv2_tiny_window8_256",
        64,
        "vision transformer",
        img_size=64,
        window_size=4,
        depths=(1, 2),
        num_heads=(2, 4),
        embed_dim=24,
    ),
    picture(
        "swinv2_cr_tiny_224",
        64,
        "vision transformer",
        img_size=64,
        window_size=4,
        depths=(1, 2),
        num_heads=(2, 4),
        embed_dim=24,
    ),
    picture("twins_svt_small", 64, "vision transformer", img_size=64),
    picture("twins_pcpvt_small", 64, "vision transformer", img_size=64),
    picture("nest_tiny", 64, "vision transformer", img_size=64),
    picture("pvt_v2_b0", 64, "vision transformer"),
    picture("maxvit_pico_rw_256", 64, "convolutional and attention", img_size=64),
    picture("coatnet_nano_rw_224", 64, "convolutional and attention", img_size=64),
    picture("maxvit_tiny_tf_224", 64, "convolutional and attention", img_size=64),
    picture("mobilevit_xxs", 64, "convolutional and attention"),
    picture("mobilevitv2_050", 64, "convolutional and attention"),
    picture("efficientformer_l1", 224, "convolutional and attention"),
    picture("efficientformerv2_s0", 224, "convolutional and attention"),
    picture("efficientvit_b0", 64, "convolutional and attention"),
    picture("efficientvit_m0", 224, "convolutional and attention"),
    picture("davit_tiny", 64, "convolutional and attention", depths=(1, 1, 1, 1), embed_dims=(24, 48, 96, 192)),
    picture("gcvit_xxtiny", 224, "convolutional and attention"),
    picture("hiera_tiny_224", 64, "vision transformer", img_size=(64, 64)),
    picture("mvitv2_tiny", 64, "vision transformer", img_size=64),
    picture("tiny_vit_5m_224", 64, "convolutional and attention"),
    picture("visformer_tiny", 64, "convolutional and attention", img_size=64),
    picture("volo_d1_224", 64, "vision transformer", img_size=64),
    picture("nextvit_small", 64, "convolutional and attention"),
    picture("swiftformer_xs", 64, "convolutional and attention"),
    picture("shvit_s1", 64, "convolutional and attention"),
    picture("vitamin_small_224", 64, "convolutional and attention", img_size=64),
]
