"""Models of the transformers library: each from its own configuration class, with every size it knows made small."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from benchmarks.coverage.architectures import IDS, Architecture

transformers.logging.set_verbosity(50)  # what it says of sizes this small is of no use here

WIDTH, HEADS, LAYERS, VOCABULARY = 32, 4, 2, 50
SIZES: dict[str, Any] = {
    **dict.fromkeys(("vocab_size", "pad_vocab_size"), VOCABULARY),
    **dict.fromkeys(
        (
            "hidden_size", "d_model", "n_embd", "dim", "embedding_size", "embed_dim", "word_embed_proj_dim", "emb_dim",
            "encoder_hidden_size", "projection_dim", "hidden_dim", "hidden_dim_size", "lru_width", "attention_hidden_size",
        ),
        WIDTH,
    ),
    **dict.fromkeys(
        (
            "intermediate_size", "ffn_dim", "d_ff", "d_inner", "encoder_ffn_dim", "decoder_ffn_dim", "n_inner",
            "ffn_hidden_size", "mlp_dim", "intermediate_dim",
        ),
        48,
    ),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "shared_intermediate_size"), 16),
    **dict.fromkeys(
        (
            "num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers", "decoder_layers",
            "num_decoder_layers", "num_encoder_layers", "num_hidden_layers_decoder", "encoder_num_layers",
        ),
        LAYERS,
    ),
    **dict.fromkeys(
        (
            "num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads",
            "decoder_attention_heads",
        ),
        HEADS,
    ),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("head_dim", "attention_head_dim", "d_kv"), 8),
    **dict.fromkeys(
        ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_source_positions", "max_target_positions"),
        64,
    ),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_top_k", "num_experts_per_token"), 2),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 8),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim"), 4),
    "v_head_dim": 8,
    "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "n_shared_experts": 1,
    **dict.fromkeys(("state_size", "mamba_d_state"), 4),
    "sliding_window": 4, "attention_window": 4,
    "image_size": 32, "patch_size": 8, "num_channels": 3, "num_labels": 3,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "decoder_start_token_id": 0,
}  # fmt: skip
DERIVED = {"head_dim"}
"""Sizes that many configurations compute: given only where the default has a value of its own."""


def tiny(config: type, **given: Any) -> Any:
    """A configuration with small sizes; those inside it too. What is `given` wins; a dict is for the one inside."""
    default = config()
    without = given.pop("without", ())
    sizes: dict[str, Any] = {}
    for key, value in SIZES.items():
        if key not in without and hasattr(default, key) and not isinstance(getattr(default, key), (list, tuple)):
            if isinstance(getattr(config, key, None), property):
                continue
            if key in DERIVED and getattr(default, key) is None:
                continue
            sizes[key] = value
    for key, inner in getattr(config, "sub_configs", {}).items():
        own = given.pop(key, {})
        current = getattr(default, key, None)
        if current is None:
            continue
        kind = inner if inner.__name__ != "AutoConfig" else type(current)
        made = tiny(kind, **own)
        sizes[key] = made if not isinstance(current, dict) else made.to_dict()
    return config(**sizes | given)


def model(name: str, **given: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        kind = getattr(transformers, name)
        return kind(tiny(kind.config_class, **given))

    return build


def text(kind: str, names: str, limit: str = "", options: Any = None, **given: Any) -> list[Architecture]:
    """Models of ids."""
    return [
        Architecture(
            name,
            "transformers",
            kind,
            model(name, **given),
            lambda: {"input_ids": IDS.clone()},
            options=options or {},
            limit=limit,
        )
        for name in names.split()
    ]


def pairs(names: str, **given: Any) -> list[Architecture]:
    """Encoder and decoder, both of ids."""
    inputs = lambda: {"input_ids": IDS.clone(), "decoder_input_ids": IDS[:, :4].flip(1).clone()}  # noqa: E731
    return [
        Architecture(name, "transformers", "encoder-decoder", model(name, **given), inputs, "logits")
        for name in names.split()
    ]


def shown(
    kind: str,
    names: str,
    shape: tuple[int, ...],
    key: str = "pixel_values",
    select: Any = None,
    limit: str = "",
    **given: Any,
) -> list[Architecture]:
    """Models of pictures, films, sounds: floating point numbers of one shape."""
    inputs = lambda: {key: torch.randn(2, *shape)}  # noqa: E731
    return [
        Architecture(name, "transformers", kind, model(name, **given), inputs, select, limit=limit)
        for name in names.split()
    ]


def similarity(output: Any) -> Tensor:
    """What a model of pictures and texts compares."""
    return (output.image_embeds * output.text_embeds).sum(-1)


def both(
    name: str,
    shape: tuple[int, ...] = (3, 32, 32),
    select: Any = None,
    ids: Tensor = IDS,
    options: Any = None,
    **given: Any,
) -> Architecture:
    """Models of pictures and texts."""
    inputs = lambda: {"input_ids": ids.clone(), "pixel_values": torch.randn(2, *shape)}  # noqa: E731
    return Architecture(name, "transformers", "multimodal", model(name, **given), inputs, select, options or {})


PICTURE = (3, 32, 32)
IMAGE_TOKEN = 49
_SEEN = torch.cat([torch.full((2, 16), IMAGE_TOKEN), IDS], 1)

ALL: list[Architecture] = [
    *text(
        "decoder",
        "LlamaForCausalLM MistralForCausalLM Qwen2ForCausalLM Qwen3ForCausalLM GemmaForCausalLM Gemma2ForCausalLM "
        "Phi3ForCausalLM OlmoForCausalLM Olmo2ForCausalLM Olmo3ForCausalLM CohereForCausalLM Cohere2ForCausalLM GraniteForCausalLM "
        "SmolLM3ForCausalLM HeliumForCausalLM ApertusForCausalLM Exaone4ForCausalLM SeedOssForCausalLM "
        "ArceeForCausalLM NanoChatForCausalLM BitNetForCausalLM "
        "DiffLlamaForCausalLM Glm4ForCausalLM Ernie4_5ForCausalLM VaultGemmaForCausalLM CwmForCausalLM DogeForCausalLM "
        "StableLmForCausalLM MiniCPM3ForCausalLM",
    ),
    *text("decoder", "Gemma3ForCausalLM"),
    *text(
        "decoder",
        "GPT2LMHeadModel GPTNeoXForCausalLM OPTForCausalLM BloomForCausalLM PhiForCausalLM PersimmonForCausalLM "
        "Starcoder2ForCausalLM NemotronForCausalLM BioGptForCausalLM XGLMForCausalLM "
        "OpenAIGPTLMHeadModel CTRLLMHeadModel GPTBigCodeForCausalLM ModernBertDecoderForCausalLM FalconForCausalLM MptForCausalLM",
    ),
    *text("decoder", "GPTJForCausalLM CodeGenForCausalLM", rotary_dim=4),
    *text("decoder", "GPTNeoForCausalLM", attention_types=[[["global", "local"], 1]], window_size=4),
    *text(
        "mixture of experts",
        "MixtralForCausalLM Qwen2MoeForCausalLM Qwen3MoeForCausalLM OlmoeForCausalLM PhimoeForCausalLM "
        "GraniteMoeForCausalLM GraniteMoeSharedForCausalLM DeepseekV2ForCausalLM Glm4MoeForCausalLM "
        "Ernie4_5_MoeForCausalLM JetMoeForCausalLM Dots1ForCausalLM FlexOlmoForCausalLM MiniMaxForCausalLM "
        "Llama4ForCausalLM",
    ),
    *text("mixture of experts", "DeepseekV3ForCausalLM LongcatFlashForCausalLM", head_dim=4),
    *text("mixture of experts", "GptOssForCausalLM", limit="its gate multiplies `up + 1`, and the 1 keeps a share"),
    *text(
        "state space and recurrent",
        "MambaForCausalLM FalconMambaForCausalLM Lfm2ForCausalLM",
    ),
    *text("state space and recurrent", "RwkvForCausalLM xLSTMForCausalLM", options={"use_cache": False}),
    *text("state space and recurrent", "RecurrentGemmaForCausalLM", options={"use_cache": False}, num_hidden_layers=3),
    *text("state space and recurrent", "Mamba2ForCausalLM", num_heads=8, head_dim=8, n_groups=2, chunk_size=4),
    *text(
        "state space and recurrent",
        "BambaForCausalLM GraniteMoeHybridForCausalLM FalconH1ForCausalLM",
        options={"use_cache": False},
        mamba_n_heads=8,
        mamba_d_head=8,
        mamba_n_groups=2,
        mamba_chunk_size=4,
        mamba_d_ssm=64,
    ),
    *text("state space and recurrent", "JambaForCausalLM NemotronHForCausalLM", options={"use_cache": False}),
    *text(
        "state space and recurrent",
        "Qwen3NextForCausalLM",
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        options={"use_cache": False},
    ),
    *text(
        "encoder",
        "BertForSequenceClassification RobertaForSequenceClassification DistilBertForSequenceClassification "
        "AlbertForSequenceClassification ElectraForSequenceClassification MPNetForSequenceClassification "
        "ModernBertForSequenceClassification DebertaForSequenceClassification DebertaV2ForSequenceClassification "
        "RoFormerForSequenceClassification RemBertForSequenceClassification "
        "ConvBertForSequenceClassification SqueezeBertForSequenceClassification FNetForSequenceClassification "
        "EuroBertForSequenceClassification EsmForSequenceClassification MegatronBertForSequenceClassification "
        "NomicBertForSequenceClassification XLMForSequenceClassification FlaubertForSequenceClassification "
        "LongformerForSequenceClassification BigBirdForSequenceClassification NystromformerForSequenceClassification "
        "YosoForSequenceClassification IBertForSequenceClassification MobileBertForSequenceClassification "
        "LayoutLMForSequenceClassification CanineForSequenceClassification "
        "RobertaPreLayerNormForSequenceClassification GteForSequenceClassification "
        "JinaEmbeddingsV3ForSequenceClassification",
    ),
    *text("encoder", "XLNetForSequenceClassification", without=("max_position_embeddings",)),
    *text(
        "encoder",
        "FunnelForSequenceClassification",
        without=("num_hidden_layers", "num_blocks"),
        block_sizes=[1, 1],
        num_decoder_layers=1,
    ),
    *text(
        "encoder",
        "PerceiverForSequenceClassification",
        num_latents=8,
        d_latents=32,
        num_self_attends_per_block=2,
        num_self_attention_heads=4,
        num_cross_attention_heads=4,
    ),
    *text("encoder", "XmodForSequenceClassification", default_language="en_XX"),
    *text("masked language model", "BertForMaskedLM ModernBertForMaskedLM DistilBertForMaskedLM"),
    *pairs(
        "T5ForConditionalGeneration MT5ForConditionalGeneration UMT5ForConditionalGeneration LongT5ForConditionalGeneration "
        "SwitchTransformersForConditionalGeneration BartForConditionalGeneration MBartForConditionalGeneration "
        "PegasusForConditionalGeneration MarianMTModel BlenderbotForConditionalGeneration M2M100ForConditionalGeneration "
        "LEDForConditionalGeneration NllbMoeForConditionalGeneration "
        "T5GemmaForConditionalGeneration FSMTForConditionalGeneration PLBartForConditionalGeneration",
    ),
    *pairs("ProphetNetForConditionalGeneration", without=("num_hidden_layers",)),
    *shown(
        "vision",
        "ViTForImageClassification DeiTForImageClassification BeitForImageClassification Data2VecVisionForImageClassification "
        "Dinov2ForImageClassification Dinov2WithRegistersForImageClassification ViTMSNForImageClassification "
        "IJepaForImageClassification SiglipForImageClassification CLIPForImageClassification",
        PICTURE,
    ),
    *shown(
        "vision",
        "SwinForImageClassification Swinv2ForImageClassification",
        (3, 64, 64),
        image_size=64,
        patch_size=4,
        embed_dim=16,
        depths=[1, 2],
        num_heads=[2, 4],
        window_size=4,
    ),
    *shown(
        "vision",
        "ResNetForImageClassification RegNetForImageClassification",
        (3, 64, 64),
        embedding_size=16,
        hidden_sizes=[16, 24, 32, 40],
        depths=[1, 1, 1, 1],
        groups_width=8,
    ),
    *shown(
        "vision",
        "PoolFormerForImageClassification",
        (3, 64, 64),
        patch_size=7,
        hidden_sizes=[16, 24, 32, 40],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 2, 4, 8],
        patch_sizes=[7, 3, 3, 3],
    ),
    *shown(
        "vision", "MobileNetV1ForImageClassification MobileNetV2ForImageClassification ", (3, 64, 64), image_size=64
    ),
    *shown(
        "vision",
        "MobileViTForImageClassification MobileViTV2ForImageClassification",
        (3, 64, 64),
        image_size=64,
        patch_size=2,
    ),
    *shown(
        "vision",
        "PvtV2ForImageClassification HieraForImageClassification FocalNetForImageClassification SwiftFormerForImageClassification",
        (3, 224, 224),
    ),
    *shown(
        "vision",
        "BitForImageClassification CvtForImageClassification TextNetForImageClassification HGNetV2ForImageClassification",
        (3, 64, 64),
    ),
    *shown(
        "segmentation and detection",
        "SegformerForSemanticSegmentation",
        (3, 64, 64),
        hidden_sizes=[16, 24, 32, 40],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 2, 4, 8],
        decoder_hidden_size=16,
    ),
    *shown(
        "segmentation and detection", "YolosForObjectDetection", PICTURE, image_size=[32, 32], num_detection_tokens=5
    ),
    *shown(
        "video",
        "VideoMAEForVideoClassification",
        (4, 3, 32, 32),
        limit="it adds sines of the position, which keep a share",
        num_frames=4,
        tubelet_size=2,
    ),
    *shown("video", "TimesformerForVideoClassification", (4, 3, 32, 32), num_frames=4),
    *shown("video", "VivitForVideoClassification", (4, 3, 32, 32), num_frames=4, tubelet_size=[2, 8, 8]),
    *shown(
        "audio",
        "Wav2Vec2ForSequenceClassification HubertForSequenceClassification WavLMForSequenceClassification "
        "UniSpeechForSequenceClassification SEWForSequenceClassification Wav2Vec2ConformerForSequenceClassification Data2VecAudioForSequenceClassification",
        (800,),
        "input_values",
        conv_dim=[16, 16, 16],
        conv_kernel=[10, 3, 3],
        conv_stride=[5, 2, 2],
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        classifier_proj_size=16,
    ),
    *shown(
        "audio",
        "ASTForAudioClassification",
        (64, 16),
        "input_values",
        max_length=64,
        num_mel_bins=16,
        patch_size=8,
        frequency_stride=8,
        time_stride=8,
    ),
    *shown("audio", "WhisperForAudioClassification", (16, 128), "input_features", num_mel_bins=16),
    Architecture(
        "WhisperForConditionalGeneration",
        "transformers",
        "audio",
        model("WhisperForConditionalGeneration", num_mel_bins=16),
        lambda: {"input_features": torch.randn(2, 16, 128), "decoder_input_ids": IDS[:, :4].clone()},
    ),
    Architecture(
        "Speech2TextForConditionalGeneration",
        "transformers",
        "audio",
        model("Speech2TextForConditionalGeneration", input_feat_per_channel=16, conv_channels=32),
        lambda: {"input_features": torch.randn(2, 64, 16), "decoder_input_ids": IDS[:, :4].clone()},
    ),
    both("CLIPModel", select=similarity),
    both("SiglipModel", select=similarity),
    both("ChineseCLIPModel", select=similarity),
    both("BlipForConditionalGeneration"),
    both("GitForCausalLM"),
    both(
        "LlavaForConditionalGeneration",
        ids=_SEEN,
        image_token_id=IMAGE_TOKEN,
        image_token_index=IMAGE_TOKEN,
        text_config={"pad_token_id": 0},
    ),
    both("PaliGemmaForConditionalGeneration", ids=_SEEN, image_token_id=IMAGE_TOKEN, image_token_index=IMAGE_TOKEN),
    both(
        "Gemma3ForConditionalGeneration",
        ids=_SEEN,
        image_token_id=IMAGE_TOKEN,
        image_token_index=IMAGE_TOKEN,
        mm_tokens_per_image=16,
    ),
    *shown(
        "time series",
        "PatchTSTForClassification",
        (64, 3),
        "past_values",
        "prediction_logits",
        context_length=64,
        num_input_channels=3,
        patch_length=8,
        patch_stride=8,
        num_targets=3,
    ),
]
