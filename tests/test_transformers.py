"""Models of the transformers library as they come: tiny, random, in float64; no line of relprop knows any of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reference_sequences as reference
import relprop

transformers = pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parent / "peers"))

import models  # noqa: E402

close = partial(torch.testing.assert_close, rtol=1e-6, atol=1e-9)

IDS = models.IDS
SMALL: dict[str, Any] = {
    "vocab_size": 50, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
GROUPED = {**SMALL, "num_key_value_heads": 2}
T5 = {
    "vocab_size": 50,
    "d_model": 24,
    "d_kv": 6,
    "d_ff": 40,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
}

DECODERS: dict[str, Callable[[], nn.Module]] = {
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**GROUPED)),
    "qwen3": lambda: transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**GROUPED, head_dim=6)),
    "gemma3": lambda: transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**GROUPED, head_dim=6)),
    "phi3": lambda: transformers.Phi3ForCausalLM(transformers.Phi3Config(**GROUPED)),
    "falcon": lambda: transformers.FalconForCausalLM(
        transformers.FalconConfig(vocab_size=50, hidden_size=24, num_hidden_layers=2, num_attention_heads=4)
    ),
    "mpt": lambda: transformers.MptForCausalLM(
        transformers.MptConfig(vocab_size=50, d_model=24, n_heads=4, n_layers=2, max_seq_len=64)  # ALiBi
    ),
    "mixtral": lambda: transformers.MixtralForCausalLM(
        transformers.MixtralConfig(**GROUPED, num_local_experts=4, experts_implementation="eager")
    ),
    "modernbert": lambda: transformers.ModernBertForMaskedLM(transformers.ModernBertConfig(**SMALL)),
}
WITH_BIASES: dict[str, Callable[[], nn.Module]] = {
    "gpt2": lambda: models.build("gpt2"),
    "bert": lambda: models.build("bert"),
    "roberta": lambda: transformers.RobertaForSequenceClassification(transformers.RobertaConfig(**SMALL)),
    "deberta": lambda: transformers.DebertaV2ForSequenceClassification(
        transformers.DebertaV2Config(
            **SMALL, relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=4, max_relative_positions=8
        )
    ),
    "xlnet": lambda: transformers.XLNetForSequenceClassification(
        transformers.XLNetConfig(vocab_size=50, d_model=24, n_layer=2, n_head=4, d_inner=40)
    ),
    "mamba": lambda: transformers.MambaForCausalLM(
        transformers.MambaConfig(vocab_size=50, hidden_size=24, num_hidden_layers=2, state_size=4)
    ),
    "mamba2": lambda: transformers.Mamba2ForCausalLM(
        transformers.Mamba2Config(
            vocab_size=50,
            hidden_size=24,
            num_hidden_layers=2,
            state_size=4,
            num_heads=6,
            head_dim=8,
            n_groups=2,
            chunk_size=4,
        )
    ),
}


def build(name: str) -> nn.Module:
    model = (DECODERS | WITH_BIASES)[name]().double().eval()
    return model.requires_grad_(False)


def target(model: nn.Module) -> Any:
    return (-1, 7) if "Causal" in type(model).__name__ or "LMHead" in type(model).__name__ else models.score


@pytest.mark.parametrize("name", DECODERS | WITH_BIASES)
def test_as_it_comes(name: str) -> None:
    """Without any option: the model's own output, a finite map, and one call alike another."""
    model = build(name)
    found = relprop.attribute(model, {"input_ids": IDS}, target(model))
    assert torch.equal(found.output, model(input_ids=IDS).logits)
    assert found.values["input_ids"].shape == IDS.shape
    assert torch.isfinite(found.values["input_ids"]).all() and found.values["input_ids"].abs().sum() > 0
    again = relprop.attribute(model, IDS, target(model), composite=found.composite)
    close(again.values, found.values["input_ids"])


@pytest.mark.parametrize("name", DECODERS)
def test_constant_attention_conserves_without_biases(name: str) -> None:
    model = build(name)
    found = relprop.attribute(model, IDS, target(model), composite="cp_lrp")
    assert (found.residual.abs() <= 1e-6 * found.score.abs().max()).all()


@pytest.mark.parametrize("composite", ["attnlrp", "cp_lrp"])
@pytest.mark.parametrize("name", ["llama", "gemma3", "bert", "gpt2"])
def test_eager_equals_sdpa(name: str, composite: str) -> None:
    model = models.build(name).requires_grad_(False)
    maps = []
    for implementation in ("eager", "sdpa"):
        model.set_attn_implementation(implementation)
        maps.append(relprop.attribute(model, IDS, models.score, composite=composite).values)
    close(*maps, rtol=1e-5, atol=1e-6)  # the eager softmax of some models is float32


@pytest.mark.parametrize("name", ["llama", "gemma3", "mixtral", "gpt2", "mamba"])
def test_a_text_alone_and_in_a_batch(name: str) -> None:
    model = build(name)
    together = relprop.attribute(model, IDS, target(model)).values
    for n in range(len(IDS)):
        close(relprop.attribute(model, IDS[n : n + 1], target(model)).values[0], together[n])


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3", "mixtral", "bert", "roberta", "modernbert", "deberta"])
def test_padding_carries_nothing(name: str, side: str) -> None:
    model = build(name)
    if side == "left" and name not in DECODERS:
        pytest.skip("learned positions count padding on the left")
    pad = 3
    ids = torch.cat([IDS[:1], IDS.new_zeros(1, pad)], 1)
    mask = torch.cat([torch.ones_like(IDS[:1]), IDS.new_zeros(1, pad)], 1)
    here, last = slice(0, IDS.shape[1]), IDS.shape[1] - 1
    if side == "left":
        ids, mask, here, last = ids.roll(pad, 1), mask.roll(pad, 1), slice(pad, None), -1
    inputs = {"input_ids": ids, "attention_mask": mask}
    if name == "roberta":
        ids[0, IDS.shape[1] :] = model.config.pad_token_id
    score = lambda at: lambda y: y[:, at, 7] if y.ndim == 3 else y[:, 1]  # noqa: E731
    padded = relprop.attribute(model, inputs, score(last), composite="attnlrp").values["input_ids"]
    alone = relprop.attribute(model, IDS[:1], score(-1), composite="attnlrp").values
    close(padded[:, here], alone, rtol=1e-5, atol=1e-7)  # rotary angles are float32
    padded[:, here] = 0
    assert padded.abs().sum() == 0


@pytest.mark.parametrize("name", ["llama", "gpt2", "mamba"])
def test_cached_equals_uncached(name: str) -> None:
    """use_cache=True hands the keys through a cache object; the map does not notice."""
    model = build(name)
    cached, uncached = (
        relprop.attribute(model, IDS, target(model), forward_kwargs={"use_cache": use}).values for use in (True, False)
    )
    close(cached, uncached)


def test_a_prompt_in_two_pieces() -> None:
    """A first forward fills the cache, a second continues: embeddings of both explained in one graph."""
    model = build("llama")

    def in_two(ids: Tensor) -> Tensor:
        first = model(input_ids=ids[:, :4], use_cache=True)
        return model(input_ids=ids[:, 4:], past_key_values=first.past_key_values).logits

    two = relprop.attribute(in_two, IDS, (-1, 7), composite="attnlrp").values
    close(two, relprop.attribute(model, IDS, (-1, 7), composite="attnlrp").values)


def test_encoder_and_decoder_share_the_score() -> None:
    model = transformers.T5ForConditionalGeneration(transformers.T5Config(**T5)).double().eval()
    found = relprop.attribute(model, {"input_ids": IDS, "decoder_input_ids": IDS[:, :3]}, (-1, 7), composite="cp_lrp")
    assert all(found.values[name].abs().sum() > 0 for name in ("input_ids", "decoder_input_ids"))
    close(found.values["input_ids"].sum(1) + found.values["decoder_input_ids"].sum(1), found.score)


def test_a_vision_transformer() -> None:
    config = transformers.ViTConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=40, image_size=16, patch_size=4
    )
    model = transformers.ViTForImageClassification(config).double().eval()
    found = relprop.attribute(model, {"pixel_values": torch.randn(2, 3, 16, 16).double()}, 1)
    assert found.composite == relprop.composites.attnlrp_gamma()
    assert found.values["pixel_values"].shape == (2, 3, 16, 16)


@pytest.mark.parametrize(("composite", "constant"), [("attnlrp", False), ("cp_lrp", True)])
def test_llamas_block_by_the_propositions(composite: str, constant: bool) -> None:
    """The library's block against the reference that the papers' propositions make."""
    model = models.build("llama")
    layer, body = model.model.layers[0], model.model
    attn, mlp = layer.self_attn, layer.mlp
    x = torch.randn(1, 5, 24).double()
    angles = body.rotary_emb(x, torch.arange(5)[None])
    block = reference.Decoder(
        attn.q_proj, attn.k_proj, attn.v_proj, attn.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj,
        layer.input_layernorm.weight.detach(), layer.post_attention_layernorm.weight.detach(), 1e-6, 4, 2,
        angles[0][0].double(), angles[1][0].double(),
    )  # fmt: skip
    v = torch.randn(5, 24).double()

    def run(x: Tensor) -> Tensor:
        out = layer(x, position_embeddings=tuple(a.double() for a in angles))
        return out[0] if isinstance(out, tuple) else out

    found = relprop.attribute(run, x, lambda y: (y * v).sum((1, 2)), composite=composite)
    y, down = block(x[0], constant)
    # its norm computes in float32
    torch.testing.assert_close(found.output[0], y, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.values[0], down(y * v), rtol=1e-4, atol=1e-4)


def test_relevance_per_block() -> None:
    model = build("llama")
    found = relprop.attribute(model, IDS, (-1, 7), composite="cp_lrp", layers="model.layers.?")
    for n in range(2):
        close(found.layers[f"model.layers.{n}"].sum((1, 2)), found.score, rtol=1e-5, atol=1e-7)  # float32 norms


def test_relevance_per_head_and_per_neuron() -> None:
    """What enters the output projection is laid out by heads, what enters the last layer of an MLP by neurons."""
    model = build("llama")
    names = ["model.layers.1.self_attn.o_proj", "model.layers.1.mlp.down_proj"]
    entering, leaving = (
        relprop.attribute(model, IDS, (-1, 7), composite="attnlrp", layers=names, layers_at=at).layers
        for at in ("input", "output")
    )
    heads = entering[names[0]].unflatten(-1, (4, -1)).sum(-1)
    assert heads.shape == (2, 7, 4) and entering[names[1]].shape == (2, 7, 40)
    for name in names:
        close(entering[name].sum(-1), leaving[name].sum(-1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    model = models.build(name).requires_grad_(False)
    exact = relprop.attribute(model, IDS, models.score, composite="attnlrp").values
    half = relprop.attribute(model.to(dtype), IDS, models.score, composite="attnlrp").values
    assert half.dtype == torch.float32  # ids have no dtype to mirror
    size = exact.abs().max()
    assert ((half - exact).abs() <= 0.1 * size).all()
    assert nn.functional.cosine_similarity(half.double().flatten(), exact.flatten(), 0) > 0.99


def test_a_chunked_scan_does_not_depend_on_its_chunks() -> None:
    """Mamba-2 multiplies its factors in an order of its own; with step size, B and C constant only x is left."""
    maps = []
    for chunk in (2, 4, 16):
        torch.manual_seed(0)
        config = transformers.Mamba2Config(
            vocab_size=50, hidden_size=24, num_hidden_layers=2, state_size=4, num_heads=6, head_dim=8, n_groups=2,
            chunk_size=chunk,
        )  # fmt: skip
        model = transformers.Mamba2ForCausalLM(config).double().eval()
        found = relprop.attribute(model, IDS, (-1, 7))
        assert found.composite == relprop.composites.mamba_lrp()
        maps.append(found.values)
    for other in maps[1:]:
        close(maps[0], other, rtol=1e-5, atol=1e-6)  # the scan is float32


@pytest.mark.parametrize("composite", ["attnlrp", "cp_lrp", "epsilon"])
def test_gradient_checkpointing(composite: str) -> None:
    """The library's own, which acts in training mode only (here without dropout), and ours."""
    model = models.build("llama")
    expected = relprop.attribute(model, IDS, models.score, composite=composite).values
    ours = relprop.attribute(
        model, IDS, models.score, composite=composite, checkpoint=True, forward_kwargs={"use_cache": False}
    )
    close(ours.values, expected)
    model.set_attn_implementation("eager")
    with pytest.raises(relprop.errors.UnsupportedOperationError, match="use_cache"):
        relprop.attribute(model, IDS, models.score, composite=composite, checkpoint=True)
    model.set_attn_implementation("sdpa")
    model.train()
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    theirs = relprop.attribute(model, IDS, models.score, composite=composite, forward_kwargs={"use_cache": False})
    close(theirs.values, expected)


def test_positions_report_what_ends_in_them() -> None:
    """With biases gone, tokens, positions and types share the whole score under constant attention."""
    model = models.build("bert")
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data.zero_()
    plain, told = (
        relprop.attribute(model.bert.embeddings, IDS, lambda y: y[:, 2, 5], composite="cp_lrp", positions=p)
        for p in (False, True)
    )
    close(told.values, plain.values)
    assert set(told.positions) == {"position_embeddings", "token_type_embeddings"} and not plain.positions
    assert told.positions["position_embeddings"].shape == (1, 7)
    everything = told.values.sum() + sum(t.sum() for t in told.positions.values())
    close(everything, told.score.sum())


def test_added_positions_report_too() -> None:
    config = transformers.ViTConfig(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=4, intermediate_size=40, image_size=8, patch_size=4
    )
    model = transformers.ViTForImageClassification(config).double().eval()
    torch.nn.init.normal_(model.vit.embeddings.position_embeddings)
    found = relprop.attribute(model, torch.randn(2, 3, 8, 8).double(), 1, composite="attnlrp", positions=True)
    assert found.positions["vit.embeddings"].shape == (1, 5)
    assert found.positions["vit.embeddings"].abs().sum() > 0


def test_a_cache_that_is_overwritten() -> None:
    """RWKV keeps its state in tensors that each layer reads, then overwrites."""
    config = transformers.RwkvConfig(
        vocab_size=50, hidden_size=24, num_hidden_layers=2, attention_hidden_size=24, context_length=16
    )
    model = transformers.RwkvForCausalLM(config).double().eval()
    plain = relprop.attribute(model, IDS, (-1, 7), composite="attnlrp", forward_kwargs={"use_cache": False})
    cached = relprop.attribute(model, IDS, (-1, 7), composite="attnlrp", forward_kwargs={"use_cache": True})
    close(cached.values, plain.values)


def test_functions_of_the_librarys_own() -> None:
    """Bloom's GELU is an autograd function: followed as the GELU that it is."""
    config = transformers.BloomConfig(vocab_size=50, hidden_size=24, n_layer=2, n_head=4)
    model = transformers.BloomForCausalLM(config).double().eval()
    found = relprop.attribute(model, IDS, (-1, 7), composite="attnlrp")
    for block in model.transformer.h:
        block.mlp.gelu_impl = nn.GELU(approximate="tanh")
    torch.testing.assert_close(
        found.values, relprop.attribute(model, IDS, (-1, 7), composite="attnlrp").values, rtol=1e-5, atol=1e-8
    )  # its constants have eight digits
